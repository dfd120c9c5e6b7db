package breaker_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/breaker"
)

func groupOf(t testing.TB, c breaker.GroupConfig) *breaker.Group {
	t.Helper()
	g, err := breaker.NewGroup(c)
	require.NoError(t, err)
	return g
}

func size(g *breaker.Group) (n int) {
	g.Each(func(*breaker.Breaker) { n++ })
	return n
}

func TestOneBreakerPerKey(t *testing.T) {
	g := groupOf(t, breaker.GroupConfig{Config: breaker.Config{Consecutive: 1}})
	require.Same(t, g.Get("a"), g.Get("a"))
	require.Equal(t, "a", g.Get("a").Name())
	do(g.Get("a"), 1, fail)
	require.Equal(t, breaker.Open, g.Get("a").State())
	require.Equal(t, breaker.Closed, g.Get("b").State())
	require.Equal(t, 2, size(g))
}

func TestAGroupIsBoundedAndKeepsWhatIsOpen(t *testing.T) {
	g := groupOf(t, breaker.GroupConfig{})
	for i := range 100 {
		g.Get("open" + strconv.Itoa(i)).Trip(time.Hour)
	}
	for i := range 100_000 {
		g.Get("host" + strconv.Itoa(i))
	}
	require.Equal(t, 1024, size(g))
	for i := range 100 {
		require.Equal(t, breaker.Open, g.Get("open"+strconv.Itoa(i)).State(), "forgotten while open")
	}
}

func TestIdleBreakersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := groupOf(t, breaker.GroupConfig{})
		a := g.Get("a")
		g.Get("open").Trip(time.Hour)
		time.Sleep(10 * time.Minute)
		require.Equal(t, 1, size(g))
		require.NotSame(t, a, g.Get("a"))
		time.Sleep(50 * time.Minute)
		require.Zero(t, size(g), "not open any more")
	})
}

// A callback may use the group, from within the group.
func TestCallbacksMayCallTheGroup(t *testing.T) {
	var g *breaker.Group
	called := 0
	g = groupOf(t, breaker.GroupConfig{MaxKeys: 2, Config: breaker.Config{
		Consecutive: 1,
		OnStateChange: func(ctx context.Context, e breaker.StateChange) {
			called++
			g.Get(e.Name + "'")
			g.Each(func(b *breaker.Breaker) { b.State() })
		},
	}})
	do(g.Get("a"), 1, fail)
	do(g.Get("b"), 1, fail)
	require.Equal(t, 2, called)
}

func TestOff(t *testing.T) {
	for _, g := range []*breaker.Group{breaker.Off(), nil} {
		require.Nil(t, g.Get("a"))
		require.Zero(t, size(g))
		do(g.Get("a"), 100, fail)
		require.NoError(t, g.Get("a").Do(t.Context(), succeed))
	}
}

func TestGroupConfigFaults(t *testing.T) {
	_, err := breaker.NewGroup(breaker.GroupConfig{Config: breaker.Config{Probes: -1}, MaxKeys: -1, Idle: -1})
	for _, name := range []string{"Probes", "MaxKeys", "Idle"} {
		require.ErrorContains(t, err, name)
	}
}
