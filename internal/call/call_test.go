package call_test

import (
	"context"
	"math"
	"math/big"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/internal/call"
)

func TestMarksAreTakenOnce(t *testing.T) {
	ctx := t.Context()
	same, m := call.TakeMarks(ctx)
	require.Equal(t, ctx, same, "a context without marks stays as it is")
	require.Equal(t, call.Marks{}, m)

	policy := new(int)
	ctx = call.WithMarks(ctx, call.Marks{Idempotent: true, Policy: policy})
	require.True(t, call.PeekMarks(ctx).Idempotent)
	below, m := call.TakeMarks(ctx)
	require.Equal(t, call.Marks{Idempotent: true, Policy: policy}, m)
	require.Equal(t, call.Marks{}, call.PeekMarks(below))
	require.True(t, call.PeekMarks(ctx).Idempotent, "the caller's own context keeps them")
}

func TestNothingCrossesAnInboundCall(t *testing.T) {
	ctx := call.WithMarks(call.WithAttempt(t.Context(), 3), call.Marks{Idempotent: true})
	for _, attempt := range []int{0, 1, 2} {
		handler, in := call.WithInbound(ctx, attempt)
		require.Equal(t, call.Marks{}, call.PeekMarks(handler))
		require.Zero(t, call.Attempt(handler), "the attempt of the caller is not one of the handler's")
		require.Same(t, in, call.InboundFrom(handler))
		require.Equal(t, attempt == 2, in.Retried())
		require.Equal(t, attempt == 0, in == nil)
	}
	retried, _ := call.WithInbound(ctx, 2)
	message, _ := call.WithInbound(retried, 0)
	require.Nil(t, call.InboundFrom(message), "nobody waits for a message")
}

func TestGiveUp(t *testing.T) {
	require.Nil(t, call.InboundFrom(t.Context()))
	nobody := call.InboundFrom(t.Context())
	nobody.GiveUp()
	require.False(t, nobody.GaveUp())
	require.False(t, nobody.Retried())

	ctx, in := call.WithInbound(t.Context(), 1)
	require.False(t, in.GaveUp())
	call.InboundFrom(context.WithoutCancel(ctx)).GiveUp()
	require.True(t, in.GaveUp())
}

func TestLookingCostsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		ctx, _ := call.TakeMarks(ctx)
		_ = call.Attempt(ctx)
		_ = call.InboundFrom(ctx).Retried()
	}))
}

func TestTimeout(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"1":                       time.Millisecond,
		"1500":                    1500 * time.Millisecond,
		"9223372036854":           9223372036854 * time.Millisecond,
		"9223372036855":           9223372036854 * time.Millisecond,
		strings.Repeat("9", 1000): 9223372036854 * time.Millisecond,
	} {
		got, ok := call.ParseTimeout(s)
		require.True(t, ok, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "0", "01", "-1", "+1", " 1", "1 ", "1.5", "1e3", "1ms", "0x1", "１", "1,2", "1\n"} {
		_, ok := call.ParseTimeout(s)
		require.False(t, ok, "%q", s)
	}
	for d, want := range map[time.Duration]string{
		-time.Hour: "1", 0: "1", 1: "1", 1999 * time.Microsecond: "1", 2 * time.Millisecond: "2",
		call.NoTimeout: "9223372036854",
	} {
		require.Equal(t, want, call.FormatTimeout(d), d)
	}
}

func TestParseAttempt(t *testing.T) {
	for s, want := range map[string]int{"1": 1, "2": 2, "2147483647": math.MaxInt32, "99999999999999999999": math.MaxInt32} {
		got, ok := call.ParseAttempt(s)
		require.True(t, ok, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "0", "-2", "02", "two"} {
		_, ok := call.ParseAttempt(s)
		require.False(t, ok, "%q", s)
	}
}

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestRetryAfter(t *testing.T) {
	const most = 9223372036 * time.Second
	for name, c := range map[string]struct {
		value, date string
		want        time.Duration
		none        bool
	}{
		"seconds":               {value: "120", want: 2 * time.Minute},
		"zero":                  {value: "0"},
		"zeros":                 {value: "000"},
		"leading zeros":         {value: "007", want: 7 * time.Second},
		"spaces around":         {value: " 7\t", want: 7 * time.Second},
		"the most there is":     {value: "9223372036", want: most},
		"overflow":              {value: "9223372037", want: most},
		"overflow of int64":     {value: "99999999999999999999", want: most},
		"any number of digits":  {value: strings.Repeat("9", 500), want: most},
		"nothing":               {none: true},
		"negative":              {value: "-1", none: true},
		"signed":                {value: "+1", none: true},
		"a fraction":            {value: "1.5", none: true},
		"with a unit":           {value: "1s", none: true},
		"two in one":            {value: "1, 2", none: true},
		"text":                  {value: "soon", none: true},
		"IMF-fixdate":           {value: "Sun, 22 Nov 2026 12:01:30 GMT", want: 90 * time.Second},
		"RFC 850":               {value: "Sunday, 22-Nov-26 12:01:30 GMT", want: 90 * time.Second},
		"asctime":               {value: "Sun Nov 22 12:01:30 2026", want: 90 * time.Second},
		"a date in the past":    {value: "Sun, 22 Nov 2026 11:00:00 GMT"},
		"a server clock ahead":  {value: "Sun, 22 Nov 2026 14:00:10 GMT", date: "Sun, 22 Nov 2026 14:00:00 GMT", want: 10 * time.Second},
		"a server clock behind": {value: "Sun, 22 Nov 2026 10:00:10 GMT", date: "Sun, 22 Nov 2026 10:00:00 GMT", want: 10 * time.Second},
		"a date of no use":      {value: "Sun, 22 Nov 2026 12:00:10 GMT", date: "today", want: 10 * time.Second},
		"a date ages away":      {value: "Fri, 31 Dec 9999 23:59:59 GMT", want: math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			h.Set("Retry-After", c.value)
			if c.date != "" {
				h.Set("Date", c.date)
			}
			got, ok := call.RetryAfter(h, now)
			require.Equal(t, !c.none, ok)
			require.Equal(t, c.want, got)
		})
	}
	_, ok := call.RetryAfter(http.Header{}, now)
	require.False(t, ok)
	_, ok = call.RetryAfter(http.Header{"Retry-After": {"1", "2"}}, now)
	require.False(t, ok, "which of them?")
}

var count = regexp.MustCompile(`\A[1-9][0-9]*\z`)

// saturated is what a count of units must come to, by arithmetic without bounds.
func saturated(s string, unit time.Duration) time.Duration {
	n, _ := new(big.Int).SetString(s, 10)
	most := big.NewInt(math.MaxInt64 / int64(unit))
	if n.Cmp(most) > 0 {
		n = most
	}
	return time.Duration(n.Int64()) * unit
}

func FuzzParseTimeout(f *testing.F) {
	for _, s := range []string{"", "0", "1", "250", "01", "-1", "9223372036854", "9223372036855", "99999999999999999999", "1 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := call.ParseTimeout(s)
		if ok != count.MatchString(s) {
			t.Fatalf("ParseTimeout(%q): ok is %v", s, ok)
		}
		if !ok {
			if d != 0 {
				t.Fatalf("ParseTimeout(%q) = %v and not ok", s, d)
			}
			return
		}
		if want := saturated(s, time.Millisecond); d != want {
			t.Fatalf("ParseTimeout(%q) = %v, want %v", s, d, want)
		}
		if back, ok := call.ParseTimeout(call.FormatTimeout(d)); !ok || back != d {
			t.Fatalf("%v does not survive the wire: %v", d, back)
		}
	})
}

func FuzzParseAttempt(f *testing.F) {
	for _, s := range []string{"", "0", "1", "2", "02", "-1", "2147483647", "2147483648", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := call.ParseAttempt(s)
		if ok != count.MatchString(s) {
			t.Fatalf("ParseAttempt(%q): ok is %v", s, ok)
		}
		if !ok {
			return
		}
		want, err := strconv.Atoi(s)
		if err != nil || want > math.MaxInt32 {
			want = math.MaxInt32
		}
		if n != want {
			t.Fatalf("ParseAttempt(%q) = %d, want %d", s, n, want)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{
		"", "0", "00", "7", "007", "-1", "9223372036", "9223372037", "99999999999999999999", "1.5", "soon",
		"Sun, 22 Nov 2026 12:01:30 GMT", "Sunday, 22-Nov-26 12:01:30 GMT", "Sun Nov 22 12:01:30 2026",
		"Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT",
	} {
		f.Add(s, "")
		f.Add(s, "Sun, 22 Nov 2026 12:00:00 GMT")
		f.Add(s, "Mon, 01 Jan 0001 00:00:00 GMT")
	}
	digits := regexp.MustCompile(`\A[0-9]+\z`)
	f.Fuzz(func(t *testing.T, value, date string) {
		h := http.Header{"Retry-After": {value}, "Date": {date}}
		d, ok := call.RetryAfter(h, now)
		if d < 0 || !ok && d != 0 {
			t.Fatalf("RetryAfter(%q, %q) = %v, %v", value, date, d, ok)
		}
		if digits.MatchString(value) {
			if want := saturated(value, time.Second); !ok || d != want {
				t.Fatalf("RetryAfter(%q) = %v, %v, want %v", value, d, ok, want)
			}
		}
	})
}
