package client

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/tandemgo/tandem/retry"
)

// observe tells the hook of the attempt that has just ended.
func (t *Transport) observe(c *exchange, res *http.Response, err error) {
	if t.onAttempt == nil || c.attempt == nil && !c.verdict.unsent { // the call was over before the attempt
		return
	}
	e := Attempt{Number: c.tries.Attempt(), Key: c.target.key, Err: err}
	if res != nil {
		e.Status = res.StatusCode
	}
	if c.attempt != nil {
		e.Duration = time.Since(c.attempt.started)
	}
	defer func() { _ = recover() }() // a hook watches the call; it does not decide it
	t.onAttempt(c.r.Context(), e)
}

func (t *Transport) logRetry(c *exchange) { t.logLine(c, slog.LevelInfo, "client: retry") }

func (t *Transport) logGiveUp(c *exchange) {
	if c.tries.Reason() == retry.Stopped && c.tries.Attempt() == 1 {
		return // there was never a question of another attempt
	}
	t.logLine(c, slog.LevelWarn, "client: gave up", slog.String("reason", c.tries.Reason().String()))
}

// logLine writes what was decided. Of the URL it tells the host alone: paths, queries and userinfo carry secrets.
func (t *Transport) logLine(c *exchange, level slog.Level, msg string, more ...slog.Attr) {
	ctx := c.r.Context()
	if t.log == nil || !t.log.Enabled(ctx, level) {
		return
	}
	attrs := append([]slog.Attr{
		slog.String("method", c.r.Method),
		slog.String("host", c.r.URL.Host),
		slog.Int("attempt", c.tries.Attempt()),
		slog.String("error", plain(c.verdict.err)),
	}, more...)
	t.log.LogAttrs(context.WithoutCancel(ctx), level, msg, attrs...)
}

// plain is the text of err without the URLs that net/http puts around the errors of its clients, of which there may be
// several.
func plain(err error) string {
	for {
		wrapped, ok := errors.AsType[*url.Error](err)
		if !ok || wrapped.Err == nil {
			return err.Error()
		}
		err = wrapped.Err
	}
}
