package natsbus

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// A server that fulfils pull requests in turn, as JetStream does.
type pulls struct {
	open  []grant
	limit []bool
}

func (p *pulls) take(size int) (got bool, batch, bytes int, tooSmall bool) {
	if len(p.open) == 0 {
		return false, 0, 0, false
	}
	g, limited := p.open[0], p.limit[0]
	p.open, p.limit = p.open[1:], p.limit[1:]
	if limited && size > g.bytes {
		return false, g.batch, g.bytes, true
	}
	g.batch--
	g.bytes -= size
	if g.batch > 0 && (!limited || g.bytes > 0) {
		p.open, p.limit = append(p.open, g), append(p.limit, limited)
		return true, 0, 0, false
	}
	return true, 0, max(g.bytes, 0), false
}

// Never more slots or bytes in hand than allowed, whatever the sizes; and everything arrives.
func TestCreditKeepsItsBounds(t *testing.T) {
	const limit, slots = 1 << 20, 16
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := credit{limit: limit}
		var p pulls
		var hand []int
		left, idle := 500, 0
		next := func() int {
			if r.IntN(50) == 0 {
				return limit + r.IntN(limit) // must pass alone
			}
			return 1 + r.IntN(1<<(4+r.IntN(16)))
		}
		size := next()
		for left > 0 {
			bytes := 0
			for _, s := range hand {
				bytes += s
			}
			if g, ok := c.ask(slots-len(hand), bytes); ok {
				p.open, p.limit = append(p.open, g), append(p.limit, g.bytes > 0)
			}
			got, batch, rest, small := p.take(size)
			if got {
				c.got(size)
				hand = append(hand, size)
				left--
				idle = 0
				require.LessOrEqual(t, len(hand), slots)
				if bytes > 0 {
					require.LessOrEqual(t, bytes+size, limit, "seed %d", seed)
				}
				size = next()
			}
			if batch > 0 || rest > 0 {
				c.returned(batch, rest)
			}
			if small {
				c.tooSmall(rest)
			}
			if !got {
				if idle++; len(hand) > 0 {
					hand = hand[1:]
				}
				require.Less(t, idle, 100, "stuck: seed %d, %+v, %+v, size %d", seed, c, p, size)
			}
		}
	}
}

func TestCreditAsksForHalfAtOnce(t *testing.T) {
	var c credit
	g, ok := c.ask(16, 0)
	require.True(t, ok)
	require.Equal(t, grant{batch: 16}, g)
	for free := range 8 { // handlers return one by one, each asked for again
		c.got(1)
		_, ok = c.ask(16, 0)
		require.Equal(t, free == 7, ok)
	}
	require.Equal(t, 16, c.asked)
}

func TestPlace(t *testing.T) {
	p := place{stream: 10, seq: 0}
	saw := func(stream, seq uint64, deliveries int) int64 {
		return p.saw(ackInfo{stream: stream, seq: seq, deliveries: deliveries})
	}
	require.Zero(t, saw(11, 1, 1))
	require.Zero(t, saw(11, 2, 2), "a redelivery")
	require.Zero(t, saw(12, 3, 1), "after it")
	require.EqualValues(t, 7, saw(20, 4, 1), "13 to 19 are gone")
	require.Zero(t, saw(25, 9, 1), "others had four")
	require.Zero(t, saw(3, 1, 1), "the server lost its newest state")
	require.Zero(t, saw(4, 2, 1))
	require.True(t, p.hole(ackInfo{seq: 4}))
	require.False(t, p.hole(ackInfo{seq: 3}))
}
