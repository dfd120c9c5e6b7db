package idempotency_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/idempotencytest"
	"github.com/tandemgo/tandem/idempotency/memstore"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

var (
	errWork  = errors.New("the work failed")
	errStore = errors.New("the store is down")
	theKey   = idempotency.Key{Scope: "test", ID: "1"}
)

func newStore(t testing.TB) *memstore.Store {
	t.Helper()
	s, err := memstore.New(memstore.Config{})
	require.NoError(t, err)
	return s
}

// returns is work that returns v and counts its runs.
func returns(runs *int, v string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { *runs++; return v, nil }
}

func fails(context.Context) (string, error) { return "", errWork }

func do(t testing.TB, s idempotency.Store, c idempotency.Config, fn func(context.Context) (string, error)) (string, error) {
	t.Helper()
	return idempotency.Do(t.Context(), s, theKey, c, fn)
}

func TestDoRunsOnceAndReplays(t *testing.T) {
	s := newStore(t)
	runs := 0
	for range 3 {
		v, err := do(t, s, idempotency.Config{}, returns(&runs, "first"))
		require.NoError(t, err)
		require.Equal(t, "first", v)
	}
	require.Equal(t, 1, runs)
}

func TestDoGivesUpWhatFailed(t *testing.T) {
	for name, work := range map[string]func(context.Context) (string, error){
		"error":  fails,
		"panic":  func(context.Context) (string, error) { panic(errWork) },
		"goexit": func(context.Context) (string, error) { runtime.Goexit(); return "", nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			var recovered any
			var err error
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() { recovered = recover() }()
				_, err = do(t, s, idempotency.Config{}, work)
			})
			wg.Wait()
			switch name {
			case "error":
				require.Equal(t, errWork, err, "the error is the caller's own")
			case "panic":
				require.Equal(t, errWork, recovered, "the panic goes on as it was")
			}
			runs := 0
			v, err := do(t, s, idempotency.Config{Park: true}, returns(&runs, "second"))
			require.NoError(t, err)
			require.Equal(t, "second", v)
		})
	}
}

func TestDoRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		never := func(context.Context) (string, error) { t.Error("the work ran"); return "", nil }
		_, err := do(t, s, idempotency.Config{Fingerprint: []byte("one")}, func(ctx context.Context) (string, error) {
			time.Sleep(12 * time.Second)
			_, err := idempotency.Do(ctx, s, theKey, idempotency.Config{}, never)
			require.ErrorIs(t, err, idempotency.ErrInFlight)
			var hint interface{ Hint() (time.Duration, bool) }
			require.ErrorAs(t, err, &hint)
			after, ok := hint.Hint()
			require.True(t, ok)
			require.Equal(t, 28*time.Second, after, "extended after 10 of 30 s, 2 s ago")

			_, err = idempotency.Do(ctx, s, theKey, idempotency.Config{Fingerprint: []byte("two")}, never)
			require.ErrorIs(t, err, idempotency.ErrMismatch)
			return "done", nil
		})
		require.NoError(t, err)
		_, err = do(t, s, idempotency.Config{Fingerprint: []byte("two")}, never)
		require.ErrorIs(t, err, idempotency.ErrMismatch)
		require.True(t, permanent(err))
	})
}

// Package retry around Do must not ask again for an answer that stays as it is.
func TestDoMarksWhatNoRetryCanMend(t *testing.T) {
	keep := idempotency.Config{Keep: func(error) bool { return true }}
	for name, test := range map[string]struct {
		first idempotency.Config
		work  func(context.Context) (string, error)
		key   idempotency.Key
		want  error
	}{
		"a kept failure":      {keep, fails, theKey, nil},
		"a tombstone":         {idempotency.Config{MaxBytes: 1}, func(context.Context) (string, error) { return "long", nil }, theKey, idempotency.ErrNotKept},
		"a value of no sense": {idempotency.Config{}, func(context.Context) (string, error) { return "text", nil }, theKey, nil},
		"an unusable key":     {idempotency.Config{}, fails, idempotency.Key{Scope: "test"}, idempotency.ErrInvalidKey},
	} {
		t.Run(name, func(t *testing.T) {
			s, tries := newStore(t), 0
			_, _ = do(t, s, test.first, test.work)
			v, err := retry.DoValue(t.Context(), retry.Policy{}, func(ctx context.Context) (int, error) {
				tries++
				return idempotency.Do(ctx, s, test.key, test.first, func(context.Context) (int, error) { return 7, nil })
			})
			require.Error(t, err)
			if test.want != nil {
				require.ErrorIs(t, err, test.want)
			}
			require.Equal(t, 1, tries)
			require.Zero(t, v)
		})
	}
}

// What was read of a kept value before a fault in it is not a value.
func TestDoReturnsNoPartOfAValue(t *testing.T) {
	s := newStore(t)
	_, err := idempotency.Do(t.Context(), s, theKey, idempotency.Config{}, func(context.Context) (any, error) {
		return map[string]any{"Paid": true, "Amount": "much"}, nil
	})
	require.NoError(t, err)
	type receipt struct {
		Paid   bool
		Amount int
	}
	v, err := idempotency.Do(t.Context(), s, theKey, idempotency.Config{}, func(context.Context) (receipt, error) {
		return receipt{}, nil
	})
	require.ErrorContains(t, err, "decode")
	require.Zero(t, v)
}

func TestDoRefusesUnusableInput(t *testing.T) {
	s := newStore(t)
	runs := 0
	_, err := do(t, s, idempotency.Config{Lease: -1, Retain: -1, Wait: -1, MaxBytes: -1}, returns(&runs, ""))
	for _, field := range []string{"Lease", "Retain", "Wait", "MaxBytes"} {
		require.ErrorContains(t, err, field)
	}
	_, err = idempotency.Do(t.Context(), s, idempotency.Key{ID: "x"}, idempotency.Config{}, returns(&runs, ""))
	require.ErrorIs(t, err, idempotency.ErrInvalidKey)
	_, err = do(t, nil, idempotency.Config{}, returns(&runs, ""))
	require.Error(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errWork)
	_, err = idempotency.Do(ctx, s, theKey, idempotency.Config{}, returns(&runs, ""))
	require.ErrorIs(t, err, errWork, "the cause of the context")
	require.Zero(t, runs)
}

func TestDoWaitsForTheOwner(t *testing.T) {
	for name, test := range map[string]struct {
		owner func(context.Context) (string, error)
		want  string
		err   error
	}{
		"who completes": {func(context.Context) (string, error) { time.Sleep(time.Second); return "owner's", nil }, "owner's", nil},
		"who fails":     {func(context.Context) (string, error) { time.Sleep(time.Second); return "", errWork }, "waiter's", nil},
		"for too long":  {func(context.Context) (string, error) { time.Sleep(time.Hour); return "late", nil }, "", idempotency.ErrInFlight},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t)
				go func() { _, _ = do(t, s, idempotency.Config{}, test.owner) }()
				synctest.Wait()
				began := time.Now()
				runs := 0
				v, err := do(t, s, idempotency.Config{Wait: 5 * time.Second}, returns(&runs, "waiter's"))
				require.ErrorIs(t, err, test.err)
				require.Equal(t, test.want, v)
				if test.err != nil {
					require.Equal(t, 5*time.Second, time.Since(began))
				} else {
					require.Less(t, time.Since(began), 2*time.Second)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// Whose time is over while it waits is told what it waited for.
func TestDoWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		go func() {
			_, _ = do(t, s, idempotency.Config{}, func(context.Context) (string, error) { time.Sleep(time.Minute); return "", nil })
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errWork)
		defer cancel()
		began, runs, told := time.Now(), 0, 0
		c := idempotency.Config{Wait: time.Hour, OnEvent: func(_ context.Context, e idempotency.Event) {
			require.Equal(t, idempotency.InFlight, e.Status)
			told++
		}}
		_, err := idempotency.Do(ctx, s, theKey, c, returns(&runs, ""))
		require.ErrorIs(t, err, errWork)
		require.ErrorIs(t, err, idempotency.ErrInFlight)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, 1, told)
		require.Zero(t, runs)
		time.Sleep(time.Hour)
	})
}

// Many wait while one works; all see its result, because each goes back through Begin.
func TestDoManyWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		var runs atomic.Int32
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				v, err := do(t, s, idempotency.Config{Wait: time.Minute}, func(context.Context) (string, error) {
					time.Sleep(time.Second)
					runs.Add(1)
					return "once", nil
				})
				if err != nil || v != "once" {
					t.Errorf("got %q, %v, want once", v, err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, runs.Load())
	})
}

func TestDoKeepsWhatItIsToldTo(t *testing.T) {
	s := newStore(t)
	runs := 0
	c := idempotency.Config{Keep: func(err error) bool { return errors.Is(err, errWork) }}
	_, err := do(t, s, c, fails)
	require.Equal(t, errWork, err)
	_, err = do(t, s, c, returns(&runs, ""))
	var kept *idempotency.KeptError
	require.ErrorAs(t, err, &kept)
	require.Equal(t, errWork.Error(), kept.Text)
	require.Zero(t, runs)

	c.Keep = func(error) bool { panic("Keep") }
	_, err = idempotency.Do(t.Context(), s, idempotency.Key{Scope: "test", ID: "2"}, c, fails)
	require.Equal(t, errWork, err, "a Keep that panics keeps nothing")
}

type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("MarshalJSON") }

func TestDoNeverRunsAgainWhatCannotBeKept(t *testing.T) {
	tombstone := func(t *testing.T, s idempotency.Store, c idempotency.Config, v any) {
		t.Helper()
		run := func() (any, error) {
			return idempotency.Do(t.Context(), s, theKey, c, func(context.Context) (any, error) { return v, nil })
		}
		_, err := run()
		require.NoError(t, err, "the first caller has its value")
		v, err = run()
		require.ErrorIs(t, err, idempotency.ErrNotKept)
		require.Nil(t, v)
	}
	t.Run("no encoding", func(t *testing.T) { tombstone(t, newStore(t), idempotency.Config{}, make(chan int)) })
	t.Run("a panic while encoding", func(t *testing.T) { tombstone(t, newStore(t), idempotency.Config{}, explosive{}) })
	t.Run("over MaxBytes", func(t *testing.T) {
		tombstone(t, newStore(t), idempotency.Config{MaxBytes: 10}, strings.Repeat("x", 10))
	})
	t.Run("over what the store takes", func(t *testing.T) {
		s, err := memstore.New(memstore.Config{MaxBytes: 100})
		require.NoError(t, err)
		tombstone(t, s, idempotency.Config{}, strings.Repeat("x", 98))
	})
	t.Run("a value of another type", func(t *testing.T) {
		s, runs := newStore(t), 0
		_, err := do(t, s, idempotency.Config{}, returns(&runs, "text"))
		require.NoError(t, err)
		_, err = idempotency.Do(t.Context(), s, theKey, idempotency.Config{}, func(context.Context) (int, error) { runs++; return 1, nil })
		require.ErrorContains(t, err, "decode")
		require.Equal(t, 1, runs)
	})
}

// What ends after its effect, however it ends, must not have a second one.
func TestDoneIsThePointOfNoReturn(t *testing.T) {
	exit := func(context.Context) (string, error) { runtime.Goexit(); return "", nil }
	for name, test := range map[string]struct {
		done bool
		work func(context.Context) (string, error)
	}{
		"an error":                   {true, fails},
		"a panic":                    {true, func(context.Context) (string, error) { panic(errWork) }},
		"an exit":                    {true, exit},
		"an exit while encoding":     {false, func(context.Context) (string, error) { return "exit", nil }},
		"a panic in a context of it": {true, func(ctx context.Context) (string, error) { <-ctx.Done(); panic(context.Cause(ctx)) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() { _ = recover() }()
				ctx, cancel := context.WithCancel(t.Context())
				c := idempotency.Config{Codec: exiting{messaging.JSON}}
				_, err := idempotency.Do(ctx, s, theKey, c, func(ctx context.Context) (string, error) {
					if test.done {
						inner, stop := context.WithCancel(ctx)
						idempotency.Done(inner)
						stop()
					}
					cancel()
					return test.work(ctx)
				})
				require.Equal(t, errWork, err, "the caller has the error as it is")
			})
			wg.Wait()
			runs := 0
			_, err := do(t, s, idempotency.Config{}, returns(&runs, "again"))
			require.ErrorIs(t, err, idempotency.ErrNotKept)
			require.Zero(t, runs)
		})
	}
	idempotency.Done(t.Context()) // of nobody

	s, runs := newStore(t), 0
	work := func(ctx context.Context) (string, error) { idempotency.Done(ctx); return returns(&runs, "kept")(ctx) }
	for range 2 {
		v, err := do(t, s, idempotency.Config{}, work)
		require.NoError(t, err)
		require.Equal(t, "kept", v, "a value is kept as without Done")
	}
	require.Equal(t, 1, runs)
}

// exiting ends the goroutine while it encodes.
type exiting struct{ messaging.Codec }

func (exiting) Encode(any) ([]byte, error) { runtime.Goexit(); return nil, nil }

func TestDoExtendsTheLeaseOfLongWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		_, err := do(t, s, idempotency.Config{Lease: time.Second}, func(ctx context.Context) (string, error) {
			for range 50 {
				time.Sleep(100 * time.Millisecond)
				_, err := idempotency.Do(ctx, s, theKey, idempotency.Config{}, fails)
				require.ErrorIs(t, err, idempotency.ErrInFlight)
			}
			return "done", ctx.Err()
		})
		require.NoError(t, err)
	})
}

// Heartbeats that fail do not end the work: the next one comes in time, also after one whose answer was lost.
func TestDoSurvivesHeartbeatsThatFail(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"at once":        func(context.Context) error { return errStore },
		"without an end": func(ctx context.Context) error { <-ctx.Done(); return errStore },
		"by a panic":     func(context.Context) error { panic(errStore) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				beats := 0
				s := &idempotencytest.Faulty{Store: newStore(t), Before: func(ctx context.Context, op idempotencytest.Op) error {
					if op == idempotencytest.Extend {
						if beats++; beats%3 != 0 {
							return fail(ctx)
						}
					}
					return nil
				}}
				var told []idempotency.Event
				c := idempotency.Config{Lease: time.Second, OnEvent: func(_ context.Context, e idempotency.Event) { told = append(told, e) }}
				_, err := do(t, s, c, func(ctx context.Context) (string, error) {
					time.Sleep(10 * time.Second)
					return "", ctx.Err()
				})
				require.NoError(t, err)
				require.Equal(t, idempotency.StepExtend, told[1].Step)
				require.Equal(t, 1, told[1].Attempt)
				require.ErrorContains(t, told[1].Err, errStore.Error())
			})
		})
	}
}

func TestDoEndsTheWorkBeforeTheLeaseEnds(t *testing.T) {
	for name, extend := range map[string]func(context.Context) error{
		"a store that hangs":    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"a store that fails":    func(context.Context) error { return errStore },
		"a claim that was lost": func(context.Context) error { return idempotency.ErrLost },
		// A store that does not keep to its contract must not keep the work alive.
		"a store that ignores its context": func(context.Context) error { time.Sleep(time.Minute); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &idempotencytest.Faulty{Store: newStore(t), Before: func(ctx context.Context, op idempotencytest.Op) error {
					if op == idempotencytest.Extend {
						return extend(ctx)
					}
					return nil
				}}
				began := time.Now()
				_, err := do(t, s, idempotency.Config{Lease: 10 * time.Second}, func(ctx context.Context) (string, error) {
					<-ctx.Done()
					require.ErrorIs(t, context.Cause(ctx), idempotency.ErrLost)
					require.Less(t, time.Since(began), 10*time.Second)
					return "", ctx.Err()
				})
				require.ErrorIs(t, err, idempotency.ErrLost)
				require.ErrorIs(t, err, context.Canceled, "what the work returned")
			})
		})
	}
}

func TestDoTellsAnOwnerThatWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newStore(t)
		stalled := &idempotencytest.Faulty{Store: mem, Before: func(_ context.Context, op idempotencytest.Op) error {
			if op == idempotencytest.Extend {
				return errStore
			}
			return nil
		}}
		v, err := do(t, stalled, idempotency.Config{Lease: time.Second}, func(context.Context) (string, error) {
			time.Sleep(2 * time.Second) // deaf to its context
			runs := 0
			_, err := do(t, mem, idempotency.Config{}, func(ctx context.Context) (string, error) {
				ticket, _ := idempotency.FromContext(ctx)
				require.Equal(t, 2, ticket.Attempt)
				return returns(&runs, "the next owner's")(ctx)
			})
			require.NoError(t, err)
			return "the zombie's", nil
		})
		require.ErrorIs(t, err, idempotency.ErrLost)
		require.Equal(t, "the zombie's", v)
		v, err = do(t, mem, idempotency.Config{}, fails)
		require.NoError(t, err)
		require.Equal(t, "the next owner's", v)
	})
}

func TestDoKeepsTheBooksOfACallerThatWentAway(t *testing.T) {
	for name, fn := range map[string]func(context.Context) (string, error){
		"work that is done": func(context.Context) (string, error) { return "done", nil },
		"work that gave up": func(ctx context.Context) (string, error) { return "", ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			ctx, cancel := context.WithCancel(t.Context())
			_, _ = idempotency.Do(ctx, s, theKey, idempotency.Config{}, func(ctx context.Context) (string, error) {
				cancel()
				return fn(ctx)
			})
			runs := 0
			v, err := do(t, s, idempotency.Config{}, returns(&runs, "again"))
			require.NoError(t, err)
			require.Equal(t, map[string]string{"work that is done": "done", "work that gave up": "again"}[name], v)
		})
	}
}

// A caller who goes away while the key is being claimed leaves no claim behind, of work that never began.
func TestDoGivesBackAClaimThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newStore(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		slow := &idempotencytest.Faulty{Store: mem, After: func(ctx context.Context, op idempotencytest.Op) error {
			if op != idempotencytest.Begin {
				return nil
			}
			cancel(errWork)
			select {
			case <-time.After(900 * time.Millisecond):
				return nil
			case <-ctx.Done(): // the claim is there, its answer is lost
				return ctx.Err()
			}
		}}
		runs := 0
		_, err := idempotency.Do(ctx, slow, theKey, idempotency.Config{Park: true}, returns(&runs, "for nobody"))
		require.ErrorIs(t, err, errWork, "the cause of the context")
		require.Zero(t, runs)
		v, err := do(t, mem, idempotency.Config{Park: true}, returns(&runs, "done"))
		require.NoError(t, err)
		require.Equal(t, "done", v)
	})
}

// But nobody waits long for a store that does not answer.
func TestDoReturnsSoonAfterItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &idempotencytest.Faulty{Store: newStore(t), Before: func(ctx context.Context, _ idempotencytest.Op) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began, runs := time.Now(), 0
		_, err := idempotency.Do(ctx, s, theKey, idempotency.Config{}, returns(&runs, ""))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
		require.Zero(t, runs)
	})
}

func TestDoNeverGivesUpTheClaimOfWorkThatIsDone(t *testing.T) {
	t.Run("the store comes back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			s := &idempotencytest.Faulty{Store: newStore(t), Before: func(_ context.Context, op idempotencytest.Op) error {
				if tries++; op == idempotencytest.Complete && tries < 5 {
					return errStore
				}
				return nil
			}}
			runs := 0
			for range 2 {
				v, err := do(t, s, idempotency.Config{}, returns(&runs, "done"))
				require.NoError(t, err)
				require.Equal(t, "done", v)
			}
			require.Equal(t, 1, runs)
		})
	})
	t.Run("an answer is lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			s := &idempotencytest.Faulty{Store: newStore(t), After: func(_ context.Context, op idempotencytest.Op) error {
				if tries++; op == idempotencytest.Complete && tries < 4 {
					return errStore
				}
				return nil
			}}
			runs := 0
			_, err := do(t, s, idempotency.Config{}, returns(&runs, "done"))
			require.NoError(t, err)
		})
	})
	t.Run("the store stays away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			mem := newStore(t)
			s := &idempotencytest.Faulty{Store: mem, Before: func(ctx context.Context, op idempotencytest.Op) error {
				switch op {
				case idempotencytest.Complete:
					<-ctx.Done()
					return ctx.Err()
				case idempotencytest.Release:
					t.Error("the claim was given up")
				}
				return nil
			}}
			began, runs := time.Now(), 0
			v, err := do(t, s, idempotency.Config{}, returns(&runs, "done"))
			require.NoError(t, err)
			require.Equal(t, "done", v)
			require.LessOrEqual(t, time.Since(began), 5*time.Second)
			_, err = do(t, mem, idempotency.Config{}, returns(&runs, "again"))
			require.ErrorIs(t, err, idempotency.ErrInFlight)
			time.Sleep(30 * time.Second)
			_, err = do(t, mem, idempotency.Config{Park: true}, returns(&runs, "again"))
			require.ErrorIs(t, err, idempotency.ErrUnknown)
			require.Equal(t, 1, runs)
		})
	})
}

func TestDoDoesNotStartWithoutTheStore(t *testing.T) {
	s := &idempotencytest.Faulty{Store: newStore(t), Before: func(context.Context, idempotencytest.Op) error { return errStore }}
	runs := 0
	_, err := do(t, s, idempotency.Config{}, returns(&runs, ""))
	require.ErrorIs(t, err, errStore)
	require.Zero(t, runs)

	full, err := memstore.New(memstore.Config{MaxKeys: 1})
	require.NoError(t, err)
	_, err = full.Begin(t.Context(), idempotency.Key{Scope: "a", ID: "b"}, idempotency.BeginOptions{Lease: time.Minute})
	require.NoError(t, err)
	_, err = do(t, full, idempotency.Config{}, returns(&runs, ""))
	require.ErrorIs(t, err, idempotency.ErrFull)
	require.Zero(t, runs)
}

func TestDoLateCompletionIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &idempotencytest.Faulty{Store: newStore(t), Before: func(_ context.Context, op idempotencytest.Op) error {
			if op == idempotencytest.Extend {
				return errStore
			}
			return nil
		}}
		var last idempotency.Event
		c := idempotency.Config{Lease: time.Second, OnEvent: func(_ context.Context, e idempotency.Event) { last = e }}
		runs := 0
		_, err := do(t, s, c, func(ctx context.Context) (string, error) {
			time.Sleep(time.Minute)
			return returns(&runs, "late")(ctx)
		})
		require.NoError(t, err)
		require.Equal(t, idempotency.Event{Scope: "test", Step: idempotency.StepComplete, Attempt: 1, Late: true}, last)
		v, err := do(t, s, idempotency.Config{}, returns(&runs, "again"))
		require.NoError(t, err)
		require.Equal(t, "late", v)
	})
}

func TestFromContext(t *testing.T) {
	_, ok := idempotency.FromContext(t.Context())
	require.False(t, ok)
	s := newStore(t)
	_, err := do(t, s, idempotency.Config{}, func(ctx context.Context) (string, error) {
		outer, ok := idempotency.FromContext(ctx)
		require.True(t, ok)
		require.Equal(t, theKey, outer.Key)
		require.Equal(t, 1, outer.Attempt)
		inner := idempotency.Key{Scope: "test", ID: "inner"}
		return idempotency.Do(ctx, s, inner, idempotency.Config{}, func(ctx context.Context) (string, error) {
			ticket, _ := idempotency.FromContext(ctx)
			require.Equal(t, inner, ticket.Key)
			return "", nil
		})
	})
	require.NoError(t, err)
}

// The log and the events never carry what identifies the caller's operation, nor what it returned.
func TestNothingIsLeaked(t *testing.T) {
	var out bytes.Buffer
	c := idempotency.Config{
		Log:      slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnEvent:  func(context.Context, idempotency.Event) { panic("secret-hook") },
		MaxBytes: 1,
	}
	s := newStore(t)
	k := idempotency.Key{Scope: "test", ID: "secret-id"}
	for _, print := range []string{"secret-one", "secret-one", "secret-two"} {
		c.Fingerprint = []byte(print)
		_, _ = idempotency.Do(t.Context(), s, k, c, func(context.Context) (string, error) { return "secret-value", nil })
	}
	require.Contains(t, out.String(), "tombstone")
	require.Contains(t, out.String(), "mismatch")
	require.Contains(t, out.String(), "OnEvent panicked")
	require.NotContains(t, out.String(), "secret-")
}

// The identity of a key in stores outlives every release.
func TestKeySumIsFrozen(t *testing.T) {
	sum := idempotency.Key{Scope: "orders", ID: "42"}.Sum()
	require.Equal(t, "d6881d11d67e7a05d9497fdfe6ca051dc57b8b27667a3db488c7cc1696608837", hex.EncodeToString(sum[:]))
	require.NotEqual(t, idempotency.Key{Scope: "ab", ID: "c"}.Sum(), idempotency.Key{Scope: "a", ID: "bc"}.Sum())
}
