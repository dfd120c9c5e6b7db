package idempotency_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/tandemgo/tandem/idempotency"
)

func BenchmarkDo(b *testing.B) {
	s := newStore(b)
	work := func(context.Context) (int, error) { return 1, nil }
	run := func(b *testing.B, id string) {
		if _, err := idempotency.Do(b.Context(), s, idempotency.Key{Scope: "bench", ID: id}, idempotency.Config{}, work); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			run(b, "a"+strconv.Itoa(b.N)+"-"+strconv.Itoa(i))
		}
	})
	b.Run("replay", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			run(b, "replay")
		}
	})
}
