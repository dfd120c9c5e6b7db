package main

// What the shoppers were told, against what has happened.

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A report compares what the shoppers were told with what has happened. The first part is made from the ledgers of the
// parties alone, and decides; the second part comes from counters, and explains.
type report struct {
	Accepted        int `json:"accepted"`  // orders whose shopper was told: done
	Rejected        int `json:"rejected"`  // and told: declined
	Undecided       int `json:"undecided"` // and told nothing definite, or one thing and then another
	PaymentsCharged int `json:"payments_charged"`
	EmailsSent      int `json:"emails_sent"`
	StockMoved      int `json:"stock_moved"`
	AnalyticsSeen   int `json:"analytics_seen"`
	// Lost counts, by order and effect: an accepted order without its effect, or with another one than was ordered; and an
	// effect whose order nobody was told about.
	Lost int `json:"lost"`
	// Doubled counts effects beyond the first of their order.
	Doubled int `json:"doubled"`

	DuplicatesSuppressed suppressed     `json:"duplicates_suppressed"`
	Retries              map[string]int `json:"retries"` // by place and cause
	BudgetDenied         int            `json:"budget_denied"`
	BreakerOpened        int            `json:"breaker_opened"`
	Redelivered          int64          `json:"redelivered"`
	DeadLettered         int64          `json:"dead_lettered"`
	Reconnects           int            `json:"reconnects"`
	LatencyP50           float64        `json:"latency_p50_ms"`
	LatencyP99           float64        `json:"latency_p99_ms"`
	Faults               map[string]int `json:"faults"` // injected, by kind

	turnedAway int // how often a shopper saw a 503, for the tests
}

type suppressed struct {
	Total   int            `json:"total"`
	ByLayer map[string]int `json:"by_layer"`
}

// An effect is one thing that must happen to each accepted order, once.
type effect struct {
	ledger string
	count  func(*report) *int
	fits   func(order, done line) bool // the effect is what was ordered
}

var effects = []effect{
	{paymentsLedger, func(r *report) *int { return &r.PaymentsCharged }, func(o, d line) bool { return o.Cents == d.Cents }},
	{mailLedger, func(r *report) *int { return &r.EmailsSent }, func(o, d line) bool { return o.To == d.To }},
	{stockLedger, func(r *report) *int { return &r.StockMoved }, func(o, d line) bool { return slices.Equal(o.Items, d.Items) }},
	{analyticsLedger, func(r *report) *int { return &r.AnalyticsSeen }, func(o, d line) bool {
		return o.Cents == d.Cents && slices.Equal(o.Items, d.Items)
	}},
}

// compare reads the ledgers of dir.
func compare(dir string) (*report, error) {
	r := &report{Retries: map[string]int{}, Faults: map[string]int{}, DuplicatesSuppressed: suppressed{ByLayer: map[string]int{}}}
	shoppers, err := readLedger(dir, shoppersLedger)
	if err != nil {
		return nil, err
	}
	told := r.readAnswers(shoppers)
	r.readCalls(shoppers)
	for _, e := range effects {
		lines, err := readLedger(dir, e.ledger)
		if err != nil {
			return nil, err
		}
		r.readEffects(e, lines, told)
	}
	return r, nil
}

// readAnswers compares what the shoppers wanted with what they were told. It returns what was ordered in each accepted
// order.
func (r *report) readAnswers(lines []line) (told map[string]line) {
	wanted, answers, twofold := map[string]line{}, map[string]line{}, map[string]bool{}
	told = map[string]line{}
	var millis []float64
	for _, l := range lines {
		if l.Event == ordered {
			wanted[l.Key] = l
		}
		if l.Event != accepted && l.Event != rejected {
			continue
		}
		if first, again := answers[l.Key]; again {
			if first.Event != l.Event || first.Order != l.Order {
				twofold[l.Key] = true
			}
			continue
		}
		answers[l.Key] = l
		millis = append(millis, l.Millis)
		switch _, taken := told[l.Order]; {
		case l.Event == rejected:
			r.Rejected++
		case taken: // somebody else's order: this one's effects are nowhere
			r.Lost += len(effects)
		default:
			told[l.Order] = wanted[l.Key]
		}
	}
	r.Accepted = len(told)
	for key := range wanted {
		if _, ok := answers[key]; !ok || twofold[key] {
			r.Undecided++
		}
	}
	slices.Sort(millis)
	r.LatencyP50, r.LatencyP99 = quantile(millis, 0.50), quantile(millis, 0.99)
	return told
}

// readCalls counts how often shoppers had to come back with an order, by what they had seen before.
func (r *report) readCalls(lines []line) {
	before := map[string]string{} // by key
	for _, l := range lines {
		if l.Status == http.StatusServiceUnavailable {
			r.turnedAway++
		}
		if l.Event != called {
			continue
		}
		if cause := before[l.Key]; cause != "" {
			r.Retries["shoppers: "+cause]++
		}
		switch {
		case l.Status == 0:
			before[l.Key] = "no answer"
		case l.Status >= 400:
			before[l.Key] = strconv.Itoa(l.Status)
		}
	}
}

// readEffects compares one ledger with what the shoppers were told.
func (r *report) readEffects(e effect, lines []line, told map[string]line) {
	done := map[string]line{}
	for _, l := range lines {
		switch _, again := done[l.Order]; {
		case l.Known:
			r.suppress(e.ledger, 1)
		case l.Event != effected:
		case again:
			r.Doubled++
		default:
			done[l.Order] = l
			if _, ok := told[l.Order]; !ok {
				r.Lost++
			}
		}
	}
	*e.count(r) = len(done)
	for id, order := range told {
		if d, ok := done[id]; !ok || !e.fits(order, d) {
			r.Lost++
		}
	}
}

func (r *report) suppress(layer string, n int) {
	r.DuplicatesSuppressed.ByLayer[layer] += n
	r.DuplicatesSuppressed.Total += n
}

// explain adds the counters.
func (r *report) explain(m *metrics) {
	m = m.snapshot()
	maps.Copy(r.Retries, m.retries)
	for layer, n := range m.suppressed {
		r.suppress(layer, n)
	}
	r.BudgetDenied, r.BreakerOpened, r.Reconnects = m.budgetDenied, m.breakerOpened, m.reconnects
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// faulty says why the run was not right.
func (r *report) faulty(expected []kind) error {
	var wrong []error
	if r.Lost > 0 || r.Doubled > 0 || r.Undecided > 0 {
		wrong = append(wrong, fmt.Errorf("lost %d, doubled %d, undecided %d", r.Lost, r.Doubled, r.Undecided))
	}
	for _, k := range expected {
		if r.Faults[string(k)] == 0 {
			wrong = append(wrong, fmt.Errorf("the fault %s was never injected", k))
		}
	}
	return errors.Join(wrong...)
}

// print writes the report as a table.
func (r *report) print(w io.Writer) error {
	var b strings.Builder
	row := func(name string, value any, more ...string) {
		for i, m := range slices.Concat(more, []string{""}[min(len(more), 1):]) {
			if i > 0 {
				name, value = "", ""
			}
			b.WriteString(strings.TrimRight(fmt.Sprintf("%-21s %6v  %s", name, value, m), " ") + "\n")
		}
	}
	row("accepted", r.Accepted)
	row("rejected", r.Rejected, "cards declined on purpose")
	row("undecided", r.Undecided)
	row("payments charged", r.PaymentsCharged)
	row("emails sent", r.EmailsSent)
	row("stock moved", r.StockMoved)
	row("analytics seen", r.AnalyticsSeen)
	row("lost", r.Lost)
	row("doubled", r.Doubled)
	row("", "")
	row("duplicates suppressed", r.DuplicatesSuppressed.Total, list(r.DuplicatesSuppressed.ByLayer)...)
	row("retries", sum(r.Retries), byPlace(r.Retries)...)
	row("budget denied", r.BudgetDenied)
	row("breaker opened", r.BreakerOpened)
	row("redelivered", r.Redelivered)
	row("dead-lettered", r.DeadLettered)
	row("reconnects", r.Reconnects)
	row("latency of an order", "", fmt.Sprintf("p50 %.0f ms, p99 %.0f ms", r.LatencyP50, r.LatencyP99))
	row("faults injected", sum(r.Faults), list(r.Faults)...)
	_, err := io.WriteString(w, b.String())
	return err
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// list writes a map in order of its keys, some to a line.
func list(m map[string]int) (lines []string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		entry := fmt.Sprintf("%s %d", k, m[k])
		if last := len(lines) - 1; last >= 0 && len(lines[last])+len(entry) < 88 {
			lines[last] += ", " + entry
		} else {
			lines = append(lines, entry)
		}
	}
	return lines
}

// byPlace writes retries with one line for each place.
func byPlace(retries map[string]int) (lines []string) {
	places := map[string]map[string]int{}
	for k, n := range retries {
		place, cause, _ := strings.Cut(k, ": ")
		if places[place] == nil {
			places[place] = map[string]int{}
		}
		places[place][cause] = n
	}
	for _, place := range slices.Sorted(maps.Keys(places)) {
		lines = append(lines, place+": "+strings.Join(list(places[place]), ", "))
	}
	return lines
}
