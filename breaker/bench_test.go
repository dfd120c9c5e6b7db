package breaker_test

import (
	"context"
	"testing"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/tandemgo/tandem/breaker"
)

// bare is gobreaker with the same duties: a rolling window of ten buckets, a ratio, and an outcome that is not counted.
func bare() *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Interval: 10 * time.Second, BucketPeriod: time.Second,
		ReadyToTrip: func(n gobreaker.Counts) bool { return n.Requests >= 20 && n.TotalFailures*2 >= n.Requests },
		IsExcluded:  func(err error) bool { return err == context.Canceled }, //nolint:errorlint // as cheap as can be
	})
}

func BenchmarkDo(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	ours, theirs, slow := breakerOf(b, breaker.Config{}), bare(), breakerOf(b, breaker.Config{SlowAfter: time.Second})
	for _, c := range []struct {
		name string
		call func()
	}{
		{"gobreaker", func() { _, _ = theirs.Execute(func() (struct{}, error) { return struct{}{}, succeed(ctx) }) }},
		{"tandem", func() { _ = ours.Do(ctx, succeed) }},
		{"tandem/permit", func() {
			if p, err := ours.Allow(); err == nil {
				_ = succeed(ctx)
				p.Done(breaker.Success)
			}
		}},
		{"tandem/slow", func() { _ = slow.Do(ctx, succeed) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.call()
			}
		})
		b.Run(c.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c.call()
				}
			})
		})
	}
}

func BenchmarkRefusal(b *testing.B) {
	ours := breakerOf(b, breaker.Config{})
	ours.Trip(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		_ = ours.Do(b.Context(), succeed)
	}
}
