package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestMain fails when a run has left a goroutine behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leftRunning(5 * time.Second); left != "" {
			_, _ = fmt.Fprintf(os.Stderr, "left running:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leftRunning returns the stacks of goroutines other than the runtime's own, the test's and those a library keeps for
// the whole process.
func leftRunning(patience time.Duration) string {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		var left []string
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, ".TestMain(") || strings.Contains(stack, "server/ats.") ||
				strings.Contains(stack, "os/signal.") || strings.Contains(stack, "testing.") {
				continue
			}
			left = append(left, stack)
		}
		if len(left) == 0 {
			return ""
		}
		if time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
	}
}

// small is a run of some seconds with every kind of fault. Under the race detector, which takes most of the processor, it
// is slower: these are real sockets and real time.
func small() config {
	p := showPace()
	p.attemptTimeout = slowness * 250 * time.Millisecond
	p.lease = time.Second // the least that the store of the claims takes
	p.breakerOpen = 150 * time.Millisecond
	p.workerRetry = 50 * time.Millisecond
	p.resumes = 100 * time.Millisecond
	p.reconnect = 50 * time.Millisecond
	p.paymentsOverload = 600 * time.Millisecond
	p.paymentsDown = 900 * time.Millisecond
	p.ordersDown = 200 * time.Millisecond
	p.natsDown = 300 * time.Millisecond
	return config{orders: 200, rate: 75 / float64(slowness), seed: 7, faults: allKinds, pace: p, log: quiet}
}

func TestEveryOrderOnceThroughEveryFault(t *testing.T) {
	t.Parallel()
	r, err := run(t.Context(), small(), nil)
	require.NoError(t, err)
	require.NoError(t, r.faulty(allKinds), "%+v", r)
	require.Equal(t, 200, r.Accepted+r.Rejected)
	require.Positive(t, r.Rejected)
	for _, n := range []int{r.PaymentsCharged, r.EmailsSent, r.StockMoved, r.AnalyticsSeen} {
		require.Equal(t, r.Accepted, n)
	}
	require.Zero(t, r.DeadLettered)
	require.Positive(t, r.BreakerOpened)
	require.Positive(t, r.Redelivered)
	require.Positive(t, r.Reconnects)
	require.Positive(t, r.DuplicatesSuppressed.Total)
}

func TestWithoutFaults(t *testing.T) {
	t.Parallel()
	c := small()
	c.faults, c.orders = nil, 100
	r, err := run(t.Context(), c, nil)
	require.NoError(t, err)
	require.NoError(t, r.faulty(nil))
	require.Empty(t, r.Faults)
	require.Zero(t, r.Reconnects)
}

// The report must be able to fail: each line of each ledger, taken away or written twice, is found.
func TestReportFindsAChangedLedger(t *testing.T) {
	t.Parallel()
	c := small()
	c.faults, c.orders, c.rate = nil, 8, 100
	s, err := openShop(t.Context(), c)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	s.shoppers.run(t.Context())
	require.NoError(t, s.settle(context.Background()))

	right, err := compare(s.dir)
	require.NoError(t, err)
	require.NoError(t, right.faulty(nil))
	for _, e := range effects {
		eachLine(t, s.dir, e.ledger, effected, func(without, twice func() *report) {
			r := without()
			require.Equal(t, [2]int{1, 0}, [2]int{r.Lost, r.Doubled}, e.ledger)
			r = twice()
			require.Equal(t, [2]int{0, 1}, [2]int{r.Lost, r.Doubled}, e.ledger)
		})
	}
	eachLine(t, s.dir, shoppersLedger, accepted, func(without, _ func() *report) {
		r := without() // it happened, and nobody was told
		require.Equal(t, [2]int{len(effects), 1}, [2]int{r.Lost, r.Undecided})
	})

	path := ledgerPath(s.dir, stockLedger)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, bytes.ReplaceAll(whole, []byte(`"quantity":`), []byte(`"quantity":1`)), 0o600))
	r, err := compare(s.dir)
	require.NoError(t, err)
	require.Equal(t, right.Accepted, r.Lost, "stock moved by another number than was ordered")
}

// eachLine calls f for each line of a ledger that tells of an event, with the reports of the ledger without that line, and
// with it twice.
func eachLine(t *testing.T, dir, ledger string, e event, f func(without, twice func() *report)) {
	t.Helper()
	path := ledgerPath(dir, ledger)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	reportOf := func(content []byte) *report {
		require.NoError(t, os.WriteFile(path, content, 0o600))
		r, err := compare(dir)
		require.NoError(t, err)
		return r
	}
	lines, found := bytes.SplitAfter(whole, []byte("\n")), 0
	for i, l := range lines {
		if bytes.Contains(l, []byte(`"event":"`+e+`"`)) {
			found++
			f(
				func() *report { return reportOf(bytes.Join(slices.Concat(lines[:i], lines[i+1:]), nil)) },
				func() *report { return reportOf(append(bytes.Clone(whole), l...)) },
			)
		}
	}
	require.Positive(t, found)
	reportOf(whole)
}

// Each protection, taken away alone from the same run, changes the report in the way it was for.
func TestEachProtectionIsForSomething(t *testing.T) {
	t.Parallel()
	protected := &result{config: small()}
	type testCase struct {
		lacks protection
		check func(t *testing.T, with, r *result)
	}
	cases := []testCase{
		{paymentKey, func(t *testing.T, _, r *result) { require.Positive(t, r.Doubled) }},
		{orderKey, func(t *testing.T, _, r *result) { require.Positive(t, r.Lost+r.Doubled+r.Undecided) }},
		{consumerDedupe, func(t *testing.T, _, r *result) { require.Positive(t, r.Doubled) }},
		{consumerKey, func(t *testing.T, _, r *result) { require.Positive(t, r.Doubled) }},
		{consumerStore, func(t *testing.T, _, r *result) {
			// The parties remember the key themselves, and now have to.
			require.Zero(t, r.Lost+r.Doubled+r.Undecided)
			require.Zero(t, r.DuplicatesSuppressed.ByLayer["consumers"])
		}},
		{publishConfirmation, func(t *testing.T, _, r *result) { require.Positive(t, r.Lost) }},
		{journalResumption, func(t *testing.T, _, r *result) { require.Positive(t, r.Lost+r.Doubled+r.Undecided) }},
		{answerGuard, func(t *testing.T, _, r *result) {
			// The order's key is enough: the guard spares work, and gives the first answer again to the byte.
			require.Zero(t, r.Lost+r.Doubled+r.Undecided)
			require.Zero(t, r.DuplicatesSuppressed.ByLayer["storefront"])
			require.Positive(t, r.DuplicatesSuppressed.ByLayer["journal"])
		}},
	}
	timed := []testCase{ // how long things take is not judged under the race detector
		{retries, func(t *testing.T, with, r *result) { require.Greater(t, r.turnedAway, with.turnedAway) }},
		{breakers, func(t *testing.T, with, r *result) {
			require.Zero(t, r.BreakerOpened)
			require.GreaterOrEqual(t, r.callsWhileDown, 10*with.callsWhileDown)
		}},
		{budget, func(t *testing.T, with, r *result) {
			require.Positive(t, with.BudgetDenied)
			require.Zero(t, r.BudgetDenied)
			require.Greater(t, r.sentAgain(), with.sentAgain())
		}},
		{attemptTimeout, func(t *testing.T, with, r *result) { require.Greater(t, r.LatencyP99, with.LatencyP99) }},
	}
	if !raced {
		cases = append(cases, timed...)
	}
	// The restart of orders ends every hang of its callers: what a hang costs is seen without it.
	hangs := &result{config: small()}
	hangs.faults = []kind{paymentHangBefore, paymentHangAfter}
	all := []*result{protected, hangs}
	for _, c := range cases {
		lacking := &result{config: small()}
		lacking.without = []protection{c.lacks}
		switch c.lacks {
		case journalResumption:
			lacking.pace.patience = 8 * time.Second // nobody else would end it
		case attemptTimeout:
			lacking.faults = hangs.faults
		}
		all = append(all, lacking)
	}
	// The one that takes longest first; some at a time, because they wait more than they work.
	runAll(slices.Backward(all), 8/(1+slowness))

	t.Log(table(all))
	for _, r := range []*result{protected, hangs} {
		require.NoError(t, r.err)
		require.NoError(t, r.faulty(r.faults))
	}
	for i, c := range cases {
		t.Run(string(c.lacks), func(t *testing.T) {
			with, r := protected, all[i+2]
			if c.lacks == attemptTimeout {
				with = hangs
			}
			require.NotNil(t, r.report, "%v", r.err)
			c.check(t, with, r)
		})
	}
}

// A result is what one run came to.
type result struct {
	config
	*report
	callsWhileDown int
	breakerClosed  int
	err            error
}

// sentAgain counts the retries that were a load on payments; an open breaker sends nothing.
func (r *result) sentAgain() (n int) {
	for place, count := range r.Retries {
		if strings.HasPrefix(place, "payments:") && place != "payments: breaker open" {
			n += count
		}
	}
	return n
}

// runAll runs them, some at a time.
func runAll(all iter.Seq2[int, *result], atOnce int) {
	places := make(chan struct{}, atOnce)
	var work sync.WaitGroup
	for _, r := range all {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			r.err = r.run()
		})
	}
	work.Wait()
}

func (r *result) run() (err error) {
	s, err := openShop(context.Background(), r.config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.shoppers.run(context.Background())
	settled := s.settle(context.Background())
	r.report, err = s.compare(context.Background())
	r.callsWhileDown, r.breakerClosed = s.faults.callsWhileDown, s.metrics.snapshot().breakerClosed
	return errors.Join(settled, err)
}

// table prints what each protection changed.
func table(all []*result) string {
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "\n%-22s %4s %5s %5s %5s %8s %8s %7s %7s %7s %6s %7s\n", "without", "seed", "lost", "dbl", "undec",
		"suppress", "shop503", "retries", "denied", "opened", "down", "p99 ms")
	for _, r := range all {
		if r.report == nil {
			_, _ = fmt.Fprintf(&b, "%-22s %v\n", names(r.without), r.err)
			continue
		}
		_, _ = fmt.Fprintf(&b, "%-22s %4d %5d %5d %5d %8d %8d %7d %7d %7d %6d %7.0f\n", names(r.without), r.seed, r.Lost, r.Doubled, r.Undecided,
			r.DuplicatesSuppressed.Total, r.turnedAway, r.sentAgain(), r.BudgetDenied, r.BreakerOpened, r.callsWhileDown, r.LatencyP99)
	}
	return b.String()
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var stdout bytes.Buffer
	stderr := writerFunc(func(b []byte) (int, error) { // in the middle of it, however fast this machine is
		if bytes.Contains(b, []byte("msg=fault")) {
			interrupt()
		}
		return len(b), nil
	})
	code := command(ctx, []string{"-orders", "1000", "-json", "-v"}, &stdout, stderr)
	require.Equal(t, exitInterrupted, code)
	var r report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))
	require.Zero(t, r.Lost+r.Doubled+r.Undecided, "%+v", r)
	require.Positive(t, r.Accepted)
	require.Less(t, r.Accepted, 500)
}

func TestInterruptedBeforeItBegan(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var stdout, stderr bytes.Buffer
	require.Equal(t, exitInterrupted, command(ctx, nil, &stdout, &stderr))
	require.Empty(t, stdout.String())
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestServerOfTheUsersOwn(t *testing.T) {
	t.Parallel()
	own, err := startEmbedded(t.TempDir())
	require.NoError(t, err)
	defer own.Close()

	c := small()
	c.orders, c.natsURL = 80, own.URL()
	r, err := run(t.Context(), c, nil)
	require.NoError(t, err)
	require.NoError(t, r.faulty(allKinds), "%+v", r)
	require.Positive(t, r.Reconnects)

	nc, err := nats.Connect(own.URL())
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	for name := range js.StreamNames(t.Context()).Name() {
		t.Errorf("the run left the stream %s behind", name)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"-orders 49", exitUsage, "-orders 49 is too few for faults, which need at least 50; or switch them off with -faults none"},
		{"-orders 0 -faults none", exitUsage, "there must be at least one"},
		{"-rate 0", exitUsage, "-rate 0: want more than 0"},
		{"-faults payment-504", exitUsage, `-faults: there is no "payment-504"; there are: payment-503,`},
		{"-without hope", exitUsage, `-without: there is no "hope"; there are: payment-key,`},
		{"-nats http://localhost", exitWrong, "-nats: want nats://"},
		{"-nats nats://me:secret@127.0.0.1:1 -orders 50", exitWrong, "-nats: dial tcp 127.0.0.1:1"},
		{"-faults=", exitUsage, "-faults: want all, none or a list"},
		{"more", exitUsage, `unexpected argument "more"`},
		{"-what", exitUsage, "flag provided but not defined"},
		{"-h", exitRight, "-orders number"},
	} {
		var stdout, stderr bytes.Buffer
		code := command(t.Context(), strings.Fields(c.args), &stdout, &stderr)
		require.Equal(t, c.code, code, c.args)
		require.Contains(t, stderr.String(), c.says)
		require.NotContains(t, stderr.String(), "secret")
		require.Empty(t, stdout.String())
	}
}

func TestScheduleHoldsEveryKind(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		for _, orders := range []int{faultsNeed, 51, 200, 600, 3000} {
			plan := schedule(seed, orders, allKinds)
			count := map[kind]int{}
			for i, k := range plan {
				require.Less(t, i, orders)
				count[k]++
			}
			require.Len(t, count, len(allKinds), "seed %d, %d orders", seed, orders)
			require.NotEmpty(t, declines(seed, orders, plan))
			require.Equal(t, plan, schedule(seed, orders, allKinds))
		}
	}
}

// TestCampaign runs full seeds one after the other, as many as TANDEM_CAMPAIGN says; see the Makefile.
func TestCampaign(t *testing.T) {
	seeds, err := strconv.Atoi(os.Getenv("TANDEM_CAMPAIGN"))
	if err != nil || seeds < 1 {
		t.Skip("TANDEM_CAMPAIGN is not a number of seeds")
	}
	var all []*result
	defer func() { t.Log(table(all)) }()
	for seed := range uint64(seeds) {
		c, _, err := parse([]string{"-seed", strconv.FormatUint(seed+1, 10)}, io.Discard)
		require.NoError(t, err)
		r := &result{config: c}
		r.err = r.run()
		all = append(all, r)
		require.NoError(t, r.err)
		require.NoError(t, r.faulty(allKinds), "seed %d", r.seed)
		require.Positive(t, r.breakerClosed, "seed %d: no breaker closed again", r.seed)
	}
}
