// Package memstore is the idempotency store in memory.
package memstore

import (
	"context"
	"time"

	"github.com/tandemgo/tandem/idempotency"
)

// Config configures a Store. The zero Config is right for one process.
type Config struct {
	MaxKeys  int   // Zero: 1 << 20
	MaxBytes int64 // of results and keys. Zero: 256 MiB
}

// A Store is an idempotency.Store. It starts no goroutine; the zero Store is not usable.
type Store struct{ c Config }

// New returns an empty Store.
func New(c Config) (*Store, error) { panic("unwritten") }

// Begin implements idempotency.Store.
func (s *Store) Begin(ctx context.Context, k idempotency.Key, o idempotency.BeginOptions) (idempotency.Claim, error) {
	panic("unwritten")
}

// Extend implements idempotency.Store.
func (s *Store) Extend(ctx context.Context, t idempotency.Ticket, lease time.Duration) error {
	panic("unwritten")
}

// Complete implements idempotency.Store.
func (s *Store) Complete(ctx context.Context, t idempotency.Ticket, r idempotency.Result, retain time.Duration) error {
	panic("unwritten")
}

// Release implements idempotency.Store.
func (s *Store) Release(ctx context.Context, t idempotency.Ticket) error { panic("unwritten") }

// Promises implements idempotency.Store.
func (s *Store) Promises() idempotency.Promises { panic("unwritten") }
