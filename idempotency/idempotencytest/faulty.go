package idempotencytest

import (
	"context"
	"time"

	"github.com/tandemgo/tandem/idempotency"
)

// Op is an operation of a Store.
type Op string

// The operations.
const (
	Begin    Op = "begin"
	Extend   Op = "extend"
	Complete Op = "complete"
	Release  Op = "release"
)

// Faulty is a Store that fails on demand: the server is down, the answer is lost. Its fields must not change while it is
// in use.
type Faulty struct {
	idempotency.Store
	// Before is called before each operation; an error is returned instead of doing it. It may wait for ctx. Nil: works.
	Before func(ctx context.Context, op Op) error
	// After is called after each operation that succeeded; an error is returned instead of its answer. Nil: works.
	After func(ctx context.Context, op Op) error
}

func (f *Faulty) before(ctx context.Context, op Op) error { return call(ctx, f.Before, op) }
func (f *Faulty) after(ctx context.Context, op Op) error  { return call(ctx, f.After, op) }

func call(ctx context.Context, hook func(context.Context, Op) error, op Op) error {
	if hook == nil {
		return nil
	}
	return hook(ctx, op)
}

// Begin implements idempotency.Store.
func (f *Faulty) Begin(ctx context.Context, k idempotency.Key, o idempotency.BeginOptions) (idempotency.Claim, error) {
	if err := f.before(ctx, Begin); err != nil {
		return idempotency.Claim{}, err
	}
	c, err := f.Store.Begin(ctx, k, o)
	if err == nil {
		err = f.after(ctx, Begin)
	}
	if err != nil {
		return idempotency.Claim{}, err
	}
	return c, nil
}

// Extend implements idempotency.Store.
func (f *Faulty) Extend(ctx context.Context, t idempotency.Ticket, lease time.Duration) (idempotency.Ticket, error) {
	if err := f.before(ctx, Extend); err != nil {
		return t, err
	}
	next, err := f.Store.Extend(ctx, t, lease)
	if err == nil {
		err = f.after(ctx, Extend)
	}
	if err != nil {
		return t, err
	}
	return next, nil
}

// Complete implements idempotency.Store.
func (f *Faulty) Complete(ctx context.Context, t idempotency.Ticket, r idempotency.Result, retain time.Duration) error {
	if err := f.before(ctx, Complete); err != nil {
		return err
	}
	if err := f.Store.Complete(ctx, t, r, retain); err != nil {
		return err
	}
	return f.after(ctx, Complete)
}

// Release implements idempotency.Store.
func (f *Faulty) Release(ctx context.Context, t idempotency.Ticket) error {
	if err := f.before(ctx, Release); err != nil {
		return err
	}
	if err := f.Store.Release(ctx, t); err != nil {
		return err
	}
	return f.after(ctx, Release)
}
