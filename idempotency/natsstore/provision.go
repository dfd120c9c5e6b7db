package natsstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Provision declares the bucket. Where it exists with other settings nothing is changed, and the error lists every
// difference that matters. It is for deploy time and for tests, not for the way of a request.
func (s *Store) Provision(ctx context.Context) error {
	ctx, cancel, err := s.online(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: s.bucket, Description: "idempotency records", History: 1, Storage: jetstream.FileStorage,
		MaxBytes: s.config.MaxBytes, Replicas: s.config.Replicas,
		LimitMarkerTTL: time.Second, // what switches per-message TTL on; the markers themselves are of no use here
	})
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
		return fmt.Errorf("natsstore: provision %q: %w", s.bucket, err)
	}
	stream, err := s.js.Stream(ctx, s.stream)
	if err != nil {
		return fmt.Errorf("natsstore: provision %q: %w", s.bucket, err)
	}
	return s.differences(stream.CachedInfo().Config)
}

// differences are those that break a promise, not those of taste.
func (s *Store) differences(c jetstream.StreamConfig) error {
	var faults []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("natsstore: bucket %q: "+format, append([]any{s.bucket}, args...)...))
		}
	}
	want(slices.Equal(c.Subjects, []string{"$KV." + s.bucket + ".>"}), "subjects are %q", c.Subjects)
	want(c.AllowMsgTTL, "per-message TTL is off: records would live for ever")
	want(c.AllowDirect, "direct get is off")
	want(c.MaxMsgsPerSubject == 1, "history is %d, want 1", c.MaxMsgsPerSubject)
	want(c.MaxAge == 0, "TTL is %v, want none: it would end claims and results early", c.MaxAge)
	want(c.MaxMsgs <= 0, "it holds at most %d messages, want no limit", c.MaxMsgs)
	want(c.Discard == jetstream.DiscardNew, "when full it forgets old records, want it to refuse new ones")
	want(!c.DiscardNewPerSubject, "it refuses a second one at a key: no claim could be completed")
	want(!c.NoAck, "it acknowledges nothing")
	want(c.MaxMsgSize <= 0 || c.MaxMsgSize >= headroom, "it takes records of %d bytes at most, want %d", c.MaxMsgSize, headroom)
	want(c.Retention == jetstream.LimitsPolicy, "retention is %v, want limits", c.Retention)
	want(c.Storage == jetstream.FileStorage, "storage is %v, want file: records would not survive a restart", c.Storage)
	want(c.Mirror == nil && len(c.Sources) == 0, "it copies another stream")
	want(s.config.Replicas == 0 || c.Replicas == s.config.Replicas, "replicas are %d, want %d", c.Replicas, s.config.Replicas)
	want(s.config.MaxBytes == 0 || c.MaxBytes == s.config.MaxBytes, "it holds %d bytes, want %d", c.MaxBytes, s.config.MaxBytes)
	return errors.Join(faults...)
}
