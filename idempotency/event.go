package idempotency

import (
	"context"
	"log/slog"
	"runtime/debug"
)

// An Event tells of one step. Steps that a counter wants are there; the ID of the key is not.
type Event struct {
	Scope string
	Step  Step
	// Status is the answer of StepBegin, unless there is an Err.
	Status Status
	// Attempt, with Owned and after, is Ticket.Attempt: above 1 it is a takeover.
	Attempt int
	// Kind is what StepComplete kept.
	Kind Kind
	// Late: StepComplete came after the lease had passed, and nobody had taken over.
	Late bool
	// Err is what the store answered: ErrLost, ErrFull, or what it could not do.
	Err error
}

// Step is the step that an Event tells of.
type Step int

// The steps. More may come.
const (
	StepBegin    Step = iota // every answer of Begin but those of a poll
	StepExtend               // a heartbeat that failed; those that succeed are not told
	StepComplete             // the result was kept, or with Err was not
	StepRelease              // the claim was given up, or with Err was not
)

func (s Step) String() string { return name(int(s), "begin", "extend", "complete", "release") }

// teller passes events on. The zero teller is silent.
type teller struct {
	hook func(ctx context.Context, e Event)
	log  *slog.Logger
}

func (t teller) tell(ctx context.Context, e Event) {
	if t.log != nil {
		t.write(ctx, e)
	}
	if t.hook == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil && t.log != nil {
			t.log.ErrorContext(ctx, "idempotency: OnEvent panicked", "stack", string(debug.Stack()))
		}
	}()
	t.hook(ctx, e)
}

// write logs the decisions that an operator would ask about: not the plain claim, completion or release.
func (t teller) write(ctx context.Context, e Event) {
	attrs := []any{"scope", e.Scope, "step", e.Step.String()}
	switch {
	case e.Err != nil:
		t.log.WarnContext(ctx, "idempotency: store", append(attrs, "error", e.Err)...)
	case e.Step == StepBegin && e.Status == Owned && e.Attempt > 1:
		t.log.WarnContext(ctx, "idempotency: took over", append(attrs, "attempt", e.Attempt)...)
	case e.Step == StepBegin && (e.Status == Mismatch || e.Status == Unknown):
		t.log.WarnContext(ctx, "idempotency: refused", append(attrs, "status", e.Status.String())...)
	case e.Step == StepBegin && e.Status != Owned:
		t.log.InfoContext(ctx, "idempotency: duplicate", append(attrs, "status", e.Status.String())...)
	case e.Step == StepComplete && (e.Kind == Tombstone || e.Late):
		t.log.WarnContext(ctx, "idempotency: completed", append(attrs, "kind", e.Kind.String(), "late", e.Late)...)
	}
}
