package retry_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandemgo/tandem/retry"
)

// FuzzWait checks what holds of every wait, whatever the policy, the wish and the deadline.
func FuzzWait(f *testing.F) {
	f.Add(int64(0), int64(0), int64(0), int64(0), int64(0), uint8(3), false)
	f.Add(int64(time.Second), int64(0), int64(time.Minute), int64(time.Hour), int64(0), uint8(9), false)
	f.Add(int64(1), int64(1), int64(math.MaxInt64), int64(0), int64(math.MaxInt64), uint8(255), false)
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(0), uint8(70), true)
	f.Add(int64(math.MaxInt64/2+1), int64(math.MaxInt64), int64(-1), int64(time.Millisecond), int64(1), uint8(70), true)
	f.Fuzz(func(t *testing.T, base, most, hint, deadline, maxHint int64, attempts uint8, refused bool) {
		p := retry.Policy{
			MaxAttempts: int(attempts), BaseDelay: time.Duration(base), MaxDelay: time.Duration(most), MaxHint: time.Duration(maxHint),
		}
		if p.Validate() != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			if deadline > 0 {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(deadline))
			}
			defer cancel()
			wish := time.Duration(hint)
			o := retry.Outcome{Err: errUpstream, Hint: wish, Hinted: wish >= 0, Refused: refused}
			limit := p.Or(retry.Policy{MaxAttempts: 3, BaseDelay: 50 * time.Millisecond, MaxDelay: 2 * time.Second, MaxHint: 30 * time.Second})

			var told time.Duration
			p.OnRetry = func(_ context.Context, e retry.Event) {
				told = e.Delay
				cancel()
			}
			tries := p.Start(ctx)
			if !tries.Again(o) {
				return
			}
			if err := tries.Wait(); err == nil {
				t.Fatal("the context has ended")
			}
			switch {
			case limit.MaxAttempts < 2:
				t.Fatalf("a retry where %d attempts are allowed", limit.MaxAttempts)
			case told < 0:
				t.Fatalf("a wait of %v", told)
			case deadline > 0 && told >= time.Duration(deadline):
				t.Fatalf("a wait of %v into a deadline of %v", told, time.Duration(deadline))
			case wish > 0 && told < wish:
				t.Fatalf("a wait of %v, earlier than %v", told, wish)
			case wish > 0 && float64(told) > float64(wish)*1.1+1:
				t.Fatalf("a wait of %v, much later than %v", told, wish)
			case wish > 0 && deadline <= 0 && !refused && wish > limit.MaxHint:
				t.Fatalf("a wish of %v obeyed over %v", wish, limit.MaxHint)
			case wish > 0 && refused && wish > limit.MaxDelay:
				t.Fatalf("an open breaker waited for %v over %v", wish, limit.MaxDelay)
			case wish <= 0 && told > min(limit.BaseDelay, limit.MaxDelay):
				t.Fatalf("a wait of %v over a ceiling of %v", told, limit.BaseDelay)
			}
		})
	})
}
