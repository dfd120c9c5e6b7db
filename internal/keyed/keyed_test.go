package keyed_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/internal/keyed"
)

// thing is a value that says itself whether it is to be kept.
type thing struct {
	key  string
	kept bool
}

func things(most int, idle time.Duration) *keyed.Map[string, *thing] {
	return keyed.New(most, idle, func(k string) *thing { return &thing{key: k} }, func(t *thing) bool { return t.kept })
}

func keys(m *keyed.Map[string, *thing]) []string {
	all := map[string]bool{}
	m.Each(func(k string, v *thing) { all[k] = v.key == k })
	return slices.Sorted(maps.Keys(all))
}

func TestOneValuePerKey(t *testing.T) {
	m := things(10, 0)
	require.Same(t, m.Get("a"), m.Get("a"))
	require.NotSame(t, m.Get("a"), m.Get("b"))
	require.Equal(t, 2, m.Len())
}

func TestTheLeastRecentlyUsedGoesFirst(t *testing.T) {
	m := things(3, 0)
	for _, k := range []string{"a", "b", "c", "a", "d"} {
		m.Get(k)
	}
	require.Equal(t, []string{"a", "c", "d"}, keys(m))
}

func TestIdleIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := things(10, time.Minute)
		a, b, c := m.Get("a"), m.Get("b"), m.Get("c")
		c.kept = true
		time.Sleep(time.Minute - 1)
		require.Same(t, a, m.Get("a"))
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"a", "c"}, keys(m))
		require.NotSame(t, b, m.Get("b"))
		require.Same(t, c, m.Get("c"))
		c.kept = false
		time.Sleep(time.Minute)
		require.NotSame(t, a, m.Get("a"), "forgotten on being asked for, too")
		require.Equal(t, []string{"a"}, keys(m))
	})
}

func TestKeptAreEvictedLast(t *testing.T) {
	m := things(4, 0)
	for _, k := range []string{"a", "b", "c", "d"} {
		m.Get(k).kept = k == "a" || k == "b"
	}
	for i := range 100 {
		m.Get("x" + strconv.Itoa(i))
		require.Equal(t, 4, m.Len())
	}
	require.Equal(t, []string{"a", "b", "x98", "x99"}, keys(m))

	m.Get("a").kept = false
	m.Get("y")
	m.Get("z")
	require.Equal(t, []string{"a", "b", "y", "z"}, keys(m), "a was used a moment ago")
	m.Get("w")
	require.Equal(t, []string{"b", "w", "y", "z"}, keys(m), "a is like any other now")

	for _, k := range []string{"b", "w", "y", "z"} {
		m.Get(k).kept = true
	}
	m.Get("v")
	require.Equal(t, []string{"v", "w", "y", "z"}, keys(m), "the bound holds even when all are to be kept")
}

// An entry that was spared and no longer needs it goes before those that are used.
func TestSparedNoLonger(t *testing.T) {
	m := things(3, 0)
	a := m.Get("a")
	a.kept = true
	m.Get("b")
	m.Get("c")
	m.Get("d") // spares a
	a.kept = false
	m.Get("e")
	require.Equal(t, []string{"c", "d", "e"}, keys(m))
}

// The price of an insertion does not grow with the number of entries that are spared.
func TestManyKeptCostNoScan(t *testing.T) {
	asked := 0
	m := keyed.New(1024, 0, func(k int) int { return k }, func(k int) bool { asked++; return k < 1000 })
	for k := range 100_000 {
		m.Get(k)
	}
	require.Equal(t, 1024, m.Len())
	found := 0
	m.Each(func(k, _ int) {
		if k < 1000 {
			found++
		}
	})
	require.Equal(t, 1000, found)
	require.Less(t, asked, 300_000)
}

func TestManyGoroutines(t *testing.T) {
	m := things(8, time.Nanosecond)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				k := fmt.Sprint((i*7 + g) % 20)
				if v := m.Get(k); v.key != k {
					t.Errorf("got the value of %q, want %q", v.key, k)
				}
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, m.Len(), 8)
}

// A create that panics leaves the Map usable.
func TestPanicInCreate(t *testing.T) {
	m := keyed.New(2, 0, func(k string) int { return len(k[3:]) }, nil)
	require.Panics(t, func() { m.Get("ab") })
	require.Equal(t, 1, m.Get("abcd"))
	require.Equal(t, 1, m.Len())
}

func TestAHitAllocatesNothing(t *testing.T) {
	m := things(2, time.Minute)
	m.Get("a")
	m.Get("b")
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Get("a"); m.Get("b") }))
}

func BenchmarkGet(b *testing.B) {
	m := things(2, time.Minute)
	m.Get("a")
	b.ReportAllocs()
	for b.Loop() {
		m.Get("a")
	}
}
