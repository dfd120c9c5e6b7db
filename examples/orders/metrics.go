package main

// What the library tells through its hooks, counted.

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"sync"
	"syscall"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// metrics counts what the library tells through its hooks. A service would put the counters of its own metrics library
// in the same places.
type metrics struct {
	log *slog.Logger

	mu            sync.Mutex
	retries       map[string]int // by place and cause
	suppressed    map[string]int // duplicates, by the layer that stopped them
	budgetDenied  int
	breakerOpened int
	breakerClosed int
	reconnects    int
}

func newMetrics(log *slog.Logger) *metrics {
	return &metrics{log: log, retries: map[string]int{}, suppressed: map[string]int{}}
}

// retried is for retry.Policy.OnRetry.
func (m *metrics) retried(place string) func(context.Context, retry.Event) {
	return func(_ context.Context, e retry.Event) { m.countRetry(place, cause(e.Err)) }
}

// gaveUp is for retry.Policy.OnGiveUp.
func (m *metrics) gaveUp(_ context.Context, e *retry.Error) {
	if e.Reason != retry.Exhausted {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.budgetDenied++
}

// handled is for messaging.ConsumerConfig.OnAttempt.
func (m *metrics) handled(_ context.Context, e messaging.HandleAttempt) {
	switch {
	case e.Again && e.Panic:
		m.countRetry(e.Message.Group, "panic")
	case e.Again:
		m.countRetry(e.Message.Group, cause(e.Err))
	}
}

// stateChanged is for breaker.Config.OnStateChange.
func (m *metrics) stateChanged(_ context.Context, e breaker.StateChange) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log.Info("breaker", "name", e.Name, "from", e.From.String(), "to", e.To.String())
	switch e.To {
	case breaker.Open:
		m.breakerOpened++
	case breaker.Closed:
		m.breakerClosed++
	case breaker.HalfOpen:
	}
}

// decided is for the OnEvent of httpguard and of idempotency.Consume.
func (m *metrics) decided(layer string) func(context.Context, idempotency.Event) {
	return func(_ context.Context, e idempotency.Event) {
		if e.Step == idempotency.StepBegin && e.Err == nil && (e.Status == idempotency.Replay || e.Status == idempotency.InFlight) {
			m.suppress(layer)
		}
	}
}

// reconnected is for nats.ReconnectHandler.
func (m *metrics) reconnected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reconnects++
}

func (m *metrics) suppress(layer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.suppressed[layer]++
}

func (m *metrics) countRetry(place, cause string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retries[place+": "+cause]++
}

// snapshot returns a copy that nobody writes to any more.
func (m *metrics) snapshot() *metrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &metrics{
		retries: maps.Clone(m.retries), suppressed: maps.Clone(m.suppressed),
		budgetDenied: m.budgetDenied, breakerOpened: m.breakerOpened, breakerClosed: m.breakerClosed, reconnects: m.reconnects,
	}
}

// cause names why an attempt failed, in few words so that it can be a label.
func cause(err error) string {
	if err == nil {
		return "no answer"
	}
	if errors.Is(err, breaker.ErrOpen) {
		return "breaker open"
	}
	if s, ok := errors.AsType[*client.StatusError](err); ok {
		return strconv.Itoa(s.Status)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	if errors.Is(err, context.Canceled) {
		return "cancelled"
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "timeout"
	}
	switch {
	case errors.Is(err, idempotency.ErrInFlight):
		return "in flight"
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrNoResponders):
		return "broker away"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection lost"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	}
	if _, ok := errors.AsType[*messaging.PublishError](err); ok {
		return "unconfirmed"
	}
	if s, ok := status.FromError(err); ok {
		return s.Code().String()
	}
	return "error"
}
