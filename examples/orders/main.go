// Command orders is a shop in one process, on real parts only: net/http servers on loopback sockets, a grpc-go server and
// an embedded nats-server with JetStream on disk. It takes orders while its parts fail, and compares in the end what the
// shoppers were told with what has happened.
//
//	go run ./examples/orders
//
// A reader who wants to follow one order goes from shoppers.go over storefront.go, orders.go, journal.go and workers.go to
// report.go; wiring.go gives each part its policies. What makes the parts fail is in faults.go, and demo.go is where it meets
// them; they do not know of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	os.Exit(command(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes.
const (
	exitRight       = 0
	exitWrong       = 1   // lost, doubled, undecided, a fault that was not injected, or something broke
	exitUsage       = 2   // the command line
	exitInterrupted = 130 // Ctrl-C, as a shell says it; unless what was done by then is wrong
)

// command runs the shop once and prints its report.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, asJSON, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitRight
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "orders:", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once

	var progress func(string)
	if isTerminal(stdout) && isTerminal(stderr) && c.log == quiet {
		progress = func(text string) { _, _ = fmt.Fprintf(stderr, "\r\033[K%s", text) }
	}
	r, err := run(ctx, c, progress)
	interrupted := ctx.Err() != nil
	if r == nil && interrupted {
		return exitInterrupted // before anything had begun
	}
	wrong := []error{err}
	if r != nil {
		expected := c.faults
		if interrupted {
			expected = nil // there was no time for all of them
		}
		wrong = append(wrong, printReport(r, asJSON, stdout), r.faulty(expected))
	}
	switch err := errors.Join(wrong...); {
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "orders:", strings.ReplaceAll(err.Error(), "\n", "\norders: "))
		return exitWrong
	case interrupted:
		return exitInterrupted
	}
	return exitRight
}

func printReport(r *report, asJSON bool, w io.Writer) error {
	if !asJSON {
		return r.print(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

var quiet = slog.New(slog.DiscardHandler)

// parse reads the command line.
func parse(args []string, stderr io.Writer) (c config, asJSON bool, err error) {
	f := flag.NewFlagSet("orders", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the caller prints errors
	f.Usage = func() {}
	f.IntVar(&c.orders, "orders", 600, "`number` of orders; faults need at least 50")
	f.Float64Var(&c.rate, "rate", 60, "`number` of orders placed per second")
	f.Uint64Var(&c.seed, "seed", 1, "`seed` of the orders and of the faults")
	faults := f.String("faults", "all", "all, none, or a `list` of: "+names(allKinds))
	f.StringVar(&c.natsURL, "nats", "", "`URL` of a NATS server with JetStream to use instead of the embedded one")
	f.BoolVar(&asJSON, "json", false, "print the report as one JSON object")
	verbose := f.Bool("v", false, "log what happens to stderr")
	without := f.String("without", "", "take protections away, to see what they are for: a `list` of: "+names(allProtections))
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(stderr)
			f.PrintDefaults()
		}
		return c, false, err
	}
	if f.NArg() > 0 {
		return c, false, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	var wrong [2]error
	switch *faults {
	case "all":
		c.faults = allKinds
	case "":
		wrong[0] = errors.New("-faults: want all, none or a list")
	case "none":
	default:
		c.faults, wrong[0] = choose("-faults", *faults, allKinds)
	}
	c.without, wrong[1] = choose("-without", *without, allProtections)
	c.pace = showPace()
	c.log = quiet
	if *verbose {
		c.log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return c, asJSON, errors.Join(wrong[0], wrong[1], c.validate())
}

func names[T ~string](all []T) string {
	s := make([]string, len(all))
	for i, n := range all {
		s[i] = string(n)
	}
	return strings.Join(s, ", ")
}

// choose reads a list of names.
func choose[T ~string](what, list string, all []T) (chosen []T, err error) {
	for name := range strings.SplitSeq(list, ",") {
		name := T(strings.TrimSpace(name))
		switch {
		case name == "" || slices.Contains(chosen, name):
		case !slices.Contains(all, name):
			return nil, fmt.Errorf("%s: there is no %q; there are: %s", what, name, names(all))
		default:
			chosen = append(chosen, name)
		}
	}
	return chosen, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// run opens the shop, lets the shoppers in, waits until the queues are empty, closes, and compares. When ctx ends, no new
// order is placed, and the rest is the same. A report comes also with an error that was met on the way down.
func run(ctx context.Context, c config, progress func(string)) (r *report, err error) {
	s, err := openShop(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	stop := s.show(progress)
	s.shoppers.run(ctx)
	ctx = context.WithoutCancel(ctx)
	settled := s.settle(ctx)
	stop()
	r, err = s.compare(ctx)
	return r, errors.Join(settled, err)
}

// show tells how far the run is, until stop is called.
func (s *shop) show(progress func(string)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				progress("")
				return
			case <-tick.C:
				progress(fmt.Sprintf("%d of %d ordered, %d decided, %d faults",
					s.shoppers.began.Load(), s.shoppers.orders, s.shoppers.decided.Load(), sum(s.faults.counts())))
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}
