package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What the report must not be fooled by, with ledgers written by hand.
func TestReportIsNotFooled(t *testing.T) {
	t.Parallel()
	tea := []item{{SKU: "tea", Quantity: 2, UnitCents: 300}}
	wants := func(key string) line {
		return line{Event: ordered, Key: key, Cents: 600, Items: tea, To: key + "@example.com"}
	}
	told := func(what event, key, order string) line { return line{Event: what, Key: key, Order: order} }
	type ledgers map[string][]line
	right := func() ledgers {
		return ledgers{
			shoppersLedger:  {wants("ann"), told(accepted, "ann", "1")},
			paymentsLedger:  {{Event: called, Order: "1"}, {Event: effected, Order: "1", Cents: 600}},
			mailLedger:      {{Event: effected, Order: "1", To: "ann@example.com"}},
			stockLedger:     {{Event: effected, Order: "1", Items: tea}},
			analyticsLedger: {{Event: effected, Order: "1", Cents: 600, Items: tea}},
		}
	}
	for _, c := range []struct {
		what                     string
		change                   func(l ledgers)
		lost, doubled, undecided int
	}{
		{"as it should be", func(ledgers) {}, 0, 0, 0},
		{"two clicks are told the same", func(l ledgers) {
			l[shoppersLedger] = append(l[shoppersLedger], told(accepted, "ann", "1"))
		}, 0, 0, 0},
		{"two clicks are told of two orders", func(l ledgers) {
			l[shoppersLedger] = append(l[shoppersLedger], told(accepted, "ann", "2"))
		}, 0, 0, 1},
		{"two clicks are told yes and no", func(l ledgers) {
			l[shoppersLedger] = append(l[shoppersLedger], told(rejected, "ann", "1"))
		}, 0, 0, 1},
		{"two shoppers are told of one order", func(l ledgers) {
			l[shoppersLedger] = append(l[shoppersLedger], wants("bob"), told(accepted, "bob", "1"))
		}, 4, 0, 0},
		{"a shopper is told nothing, and somebody is told what nobody wanted", func(l ledgers) {
			l[shoppersLedger] = append(l[shoppersLedger], wants("bob"), told(accepted, "eve", "2"))
		}, 4, 0, 1},
		{"a shopper was declined, and paid", func(l ledgers) {
			l[shoppersLedger] = append(l[shoppersLedger], wants("bob"), told(rejected, "bob", "2"))
			l[paymentsLedger] = append(l[paymentsLedger], line{Event: effected, Order: "2", Cents: 600})
		}, 1, 0, 0},
		{"a call is not an effect", func(l ledgers) { l[paymentsLedger] = l[paymentsLedger][:1] }, 1, 0, 0},
		{"a known key is not an effect", func(l ledgers) {
			l[mailLedger] = append(l[mailLedger], line{Event: called, Order: "1", Known: true})
		}, 0, 0, 0},
		{"too much was charged", func(l ledgers) { l[paymentsLedger][1].Cents++ }, 1, 0, 0},
		{"the mail went to somebody else", func(l ledgers) { l[mailLedger][0].To = "bob@example.com" }, 1, 0, 0},
		{"as many of something else left the stock", func(l ledgers) {
			l[stockLedger][0].Items = []item{{SKU: "rum", Quantity: 2, UnitCents: 300}}
		}, 1, 0, 0},
		{"a party has no ledger", func(l ledgers) { delete(l, stockLedger) }, 1, 0, 0},
	} {
		dir, l := t.TempDir(), right()
		c.change(l)
		for name, lines := range l {
			open, err := openLedger(dir, name)
			require.NoError(t, err)
			require.NoError(t, open.write(lines...))
			require.NoError(t, open.close())
		}
		r, err := compare(dir)
		require.NoError(t, err)
		require.Equal(t, [3]int{c.lost, c.doubled, c.undecided}, [3]int{r.Lost, r.Doubled, r.Undecided}, c.what)
	}
}
