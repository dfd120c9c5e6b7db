package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
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
	p.attemptTimeout = slowness * 300 * time.Millisecond
	p.lease = time.Second // the least that the store of the claims takes
	p.breakerOpen = 150 * time.Millisecond
	p.workerRetry = 50 * time.Millisecond
	p.resumes = 100 * time.Millisecond
	p.reconnect = 50 * time.Millisecond
	p.paymentsOverload = 600 * time.Millisecond
	p.paymentsDown = 900 * time.Millisecond
	p.ordersDown = 200 * time.Millisecond
	p.natsDown = 300 * time.Millisecond
	p.patience, p.settle = time.Minute, time.Minute // what is slow here is the machine
	return config{orders: 200, rate: 75 / float64(slowness), seed: 7, faults: allKinds, pace: p, log: quiet}
}

func TestEveryOrderOnceThroughEveryFault(t *testing.T) {
	t.Parallel()
	r := &result{config: small()}
	require.NoError(t, r.run())
	require.NoError(t, r.faulty(allKinds), "%+v", r.report)
	require.Equal(t, 200, r.Accepted+r.Rejected)
	require.Positive(t, r.Rejected)
	for _, n := range []int{r.PaymentsCharged, r.EmailsSent, r.StockMoved, r.AnalyticsSeen} {
		require.Equal(t, r.Accepted, n)
	}
	require.Zero(t, r.DeadLettered)
	require.Positive(t, r.BreakerOpened)
	require.Positive(t, r.breakerClosed, "a breaker closes again")
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
	cases := []struct {
		lacks protection
		check func(t *testing.T, with, r *result)
	}{
		{paymentKey, func(t *testing.T, _, r *result) {
			require.Positive(t, r.Doubled)
			require.Zero(t, r.Lost+r.DuplicatesSuppressed.ByLayer["payments"])
			require.Equal(t, r.Accepted, r.PaymentsCharged)
		}},
		{orderKey, func(t *testing.T, _, r *result) {
			require.Positive(t, r.Lost)
			require.Greater(t, r.PaymentsCharged, r.Accepted, "paid, and nobody was told of that order")
		}},
		{consumerDedupe, func(t *testing.T, _, r *result) {
			require.GreaterOrEqual(t, r.Doubled, r.Faults[string(panicAfter)]+r.Faults[string(ackLost)])
			require.Zero(t, r.Lost)
		}},
		{consumerKey, func(t *testing.T, _, r *result) {
			// The store cannot know that the worker died after its effect.
			require.GreaterOrEqual(t, r.Doubled, r.Faults[string(panicAfter)])
			require.Positive(t, r.DuplicatesSuppressed.ByLayer["consumers"])
		}},
		{consumerStore, func(t *testing.T, _, r *result) {
			// The parties remember the key themselves, and now have to.
			require.Zero(t, r.Lost+r.Doubled+r.Undecided)
			require.Zero(t, r.DuplicatesSuppressed.ByLayer["consumers"])
			require.GreaterOrEqual(t, r.DuplicatesSuppressed.ByLayer["mail"]+r.DuplicatesSuppressed.ByLayer["stock"],
				r.Faults[string(panicAfter)]+r.Faults[string(ackLost)])
		}},
		{publishConfirmation, func(t *testing.T, _, r *result) {
			require.Positive(t, r.Lost)
			require.Equal(t, r.Accepted, r.PaymentsCharged, "it is the event that was lost")
			require.Less(t, r.EmailsSent, r.Accepted)
			require.Less(t, r.AnalyticsSeen, r.Accepted)
		}},
		{journalResumption, func(t *testing.T, with, r *result) {
			require.Positive(t, r.Undecided, "who only looks what became of the order waits for ever")
			require.Positive(t, with.retriesAt("resumption"))
			require.Zero(t, r.retriesAt("resumption"))
		}},
		{answerGuard, func(t *testing.T, _, r *result) {
			// The order's key is enough: the guard spares work, and gives the first answer again to the byte.
			require.Zero(t, r.Lost+r.Doubled+r.Undecided)
			require.Zero(t, r.DuplicatesSuppressed.ByLayer["storefront"])
			require.Positive(t, r.DuplicatesSuppressed.ByLayer["journal"])
		}},
	}
	all := []*result{{config: small()}}
	for _, c := range cases {
		lacking := &result{config: small()}
		lacking.without = []protection{c.lacks}
		if c.lacks == journalResumption {
			lacking.pace.patience = 8 * time.Second // nobody else would end it
		}
		all = append(all, lacking)
	}
	runAll(all, 8/(1+slowness)) // some at a time, because they wait more than they work
	t.Log(table(all))
	require.NoError(t, all[0].err)
	require.NoError(t, all[0].faulty(allKinds))
	for i, c := range cases {
		t.Run(string(c.lacks), func(t *testing.T) {
			require.NotNil(t, all[i+1].report, "%v", all[i+1].err)
			c.check(t, all[0], all[i+1])
		})
	}
}

// The others are there for the load and for the time it takes. What they change is hidden in the full run by what its
// outages do; so both runs have only the faults that the protection is for. A machine that is busy otherwise may blur it
// even then, but not three times.
func TestEachProtectionSparesTimeOrLoad(t *testing.T) {
	t.Parallel()
	if raced {
		t.Skip("how long things take is not judged under the race detector")
	}
	for _, c := range []struct {
		lacks   protection
		faults  []kind
		change  func(c *config)
		differs func(with, r *result) bool
	}{
		{
			retries,
			[]kind{payment503, paymentResetBefore, paymentResetAfter},
			func(*config) {},
			func(with, r *result) bool {
				return r.turnedAway > 2*with.turnedAway && with.retriesAt("payments") > 0 && r.retriesAt("payments") == 0
			},
		},
		{
			breakers,
			[]kind{paymentsDown},
			func(c *config) { c.pace.paymentsDown = 1500 * time.Millisecond },
			func(with, r *result) bool {
				return with.BreakerOpened > 0 && r.BreakerOpened == 0 && r.callsWhileDown >= 10*with.callsWhileDown
			},
		},
		{
			budget,
			[]kind{paymentsOverload},
			func(c *config) { c.orders, c.pace.paymentsOverload = 300, 3*time.Second },
			func(with, r *result) bool {
				return with.BudgetDenied > 0 && r.BudgetDenied == 0 && 4*r.sentAgain() > 5*with.sentAgain()
			},
		},
		{
			attemptTimeout,
			[]kind{paymentHangBefore, paymentHangAfter},
			func(*config) {},
			func(with, r *result) bool { return r.LatencyP99 > 2*with.LatencyP99 },
		},
	} {
		t.Run(string(c.lacks), func(t *testing.T) {
			t.Parallel()
			for range 3 {
				with, r := &result{config: small()}, &result{config: small()}
				for _, one := range []*result{with, r} {
					one.faults = c.faults
					c.change(&one.config)
				}
				r.without = []protection{c.lacks}
				pair := []*result{with, r}
				runAll(pair, len(pair))
				t.Log(table(pair))
				for _, one := range pair {
					require.NoError(t, one.err)
					require.NoError(t, one.faulty(c.faults))
				}
				if c.differs(with, r) {
					return
				}
			}
			t.Errorf("without %s the report is as it was", c.lacks)
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

// retriesAt counts the retries at one place.
func (r *result) retriesAt(place string) (n int) {
	for k, count := range r.Retries {
		if strings.HasPrefix(k, place+": ") {
			n += count
		}
	}
	return n
}

// sentAgain counts the retries that were a load on payments; an open breaker sends nothing.
func (r *result) sentAgain() int {
	return r.retriesAt("payments") - r.Retries["payments: breaker open"]
}

// runAll runs them, some at a time.
func runAll(all []*result, atOnce int) {
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

func TestExitCodeOfAWrongRun(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	args := "-orders 60 -rate 200 -faults payment-reset-after -without payment-key -json"
	require.Equal(t, exitWrong, command(t.Context(), strings.Fields(args), &stdout, &stderr))
	require.Equal(t, "orders: lost 0, doubled 1, undecided 0\n", stderr.String())
	require.True(t, json.Valid(stdout.Bytes()))

	r := &report{Faults: map[string]int{string(ackLost): 1}}
	require.NoError(t, r.faulty([]kind{ackLost}))
	require.EqualError(t, r.faulty([]kind{ackLost, answerLost}), "the fault answer-lost was never injected")
}

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
