// Package natsstore is the idempotency store in a JetStream key-value bucket.
package natsstore

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/idempotency"
)

// Config configures a Store. The zero Config is right in production.
type Config struct {
	MaxBytes int64 // of the bucket, given to Provision. Zero: no limit
	Replicas int   // of the bucket, given to Provision. Zero: 1
}

// A Store is an idempotency.Store over one bucket. It never closes the connection.
type Store struct{ js jetstream.JetStream }

// New returns a Store over the bucket of that name, which Provision declares. It does no I/O.
func New(nc *nats.Conn, bucket string, c Config) (*Store, error) { panic("unwritten") }

// Provision declares the bucket, or reports how the one that exists differs.
func (s *Store) Provision(ctx context.Context) error { panic("unwritten") }

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
