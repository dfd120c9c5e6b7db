package natsbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/retry"
)

// deadSuffix names the topic of dead letters that Provision declares beside each topic.
const deadSuffix = ".dead"

// API levels of the server that brought what a stream may allow.
const (
	levelMsgTTL       = 1 // 2.11
	levelMsgSchedules = 2 // 2.12
)

// Provision declares topics, each with its dead-letter topic: one stream a topic, kept in files. A topic that exists
// with other settings stays as it is and is an error that names every difference. The error joins those of all topics.
func (b *Bus) Provision(ctx context.Context, t ...messaging.TopicSpec) error {
	level, err := b.apiLevel(ctx)
	if err != nil {
		return fmt.Errorf("natsbus: provision: %w", err)
	}
	var faults []error
	for _, spec := range t {
		if err := b.provision(ctx, spec, level); err != nil {
			faults = append(faults, fmt.Errorf("natsbus: provision %q: %w", spec.Name, err))
		}
		if strings.HasSuffix(spec.Name, deadSuffix) || checkTopic(spec.Name) != nil {
			continue
		}
		dead := spec
		dead.Name += deadSuffix
		if err := b.provision(ctx, dead, level); err != nil {
			faults = append(faults, fmt.Errorf("natsbus: provision %q: %w", dead.Name, err))
		}
	}
	return errors.Join(faults...)
}

func (b *Bus) apiLevel(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	info, err := b.js.AccountInfo(ctx)
	if err != nil {
		return 0, err
	}
	return info.API.Level, nil
}

// provision declares one topic.
func (b *Bus) provision(ctx context.Context, t messaging.TopicSpec, level int) error {
	if err := checkTopic(t.Name); err != nil {
		return retry.Permanent(err)
	}
	if t.MaxAge < 0 || t.MaxBytes < 0 || t.Replicas < 0 {
		return retry.Permanent(fmt.Errorf("%w: negative limit", messaging.ErrInvalid))
	}
	if t.Partitions > 1 {
		return retry.Permanent(fmt.Errorf("%w: partitions over JetStream", messaging.ErrUnsupported))
	}
	want := b.streamConfig(t, level)
	if want.MaxAge < dedupeWindow {
		return retry.Permanent(fmt.Errorf("%w: max age of %v, below the dedupe window of %v", messaging.ErrUnsupported, want.MaxAge, dedupeWindow))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	// Looked up first: creating a stream that exists answers only "in use", and not with what.
	have, err := b.js.Stream(ctx, want.Name)
	created := false
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		have, err = b.js.CreateStream(ctx, want)
		created = err == nil
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody was faster
			have, err = b.js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return err
	}
	// Also what was just created: an older server drops the settings that it does not know without a word.
	if diff := diffStream(have.CachedInfo().Config, want, created); len(diff) > 0 {
		return retry.Permanent(fmt.Errorf("stream %s has other settings: %s", want.Name, strings.Join(diff, "; ")))
	}
	return nil
}

func (b *Bus) streamConfig(t messaging.TopicSpec, level int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:       b.stream(t.Name),
		Subjects:   []string{b.subject(t.Name)},
		Storage:    jetstream.FileStorage,
		Retention:  jetstream.LimitsPolicy,
		Discard:    jetstream.DiscardOld,
		MaxAge:     b.c.MaxAge,
		MaxBytes:   b.c.MaxBytes,
		Replicas:   b.c.Replicas,
		MaxMsgs:    -1,
		Duplicates: dedupeWindow,
		// For what is to come: neither changes anything for messages that do not ask for it, and schedules cannot be
		// switched on later without touching the stream.
		AllowMsgTTL:       level >= levelMsgTTL,
		AllowMsgSchedules: level >= levelMsgSchedules,
	}
	if t.MaxAge > 0 {
		c.MaxAge = t.MaxAge
	}
	if t.MaxBytes > 0 {
		c.MaxBytes = t.MaxBytes
	}
	if t.Replicas > 0 {
		c.Replicas = t.Replicas
	}
	return c
}

// diffStream names every setting in which have is not what want asks for. What a stream allows beyond that is asked for
// when it is created; one from before a server's upgrade may lack it as long as nothing here uses it.
func diffStream(have, want jetstream.StreamConfig, created bool) []string {
	var d diffs
	d.add("subjects", slices.Equal(have.Subjects, want.Subjects), have.Subjects, want.Subjects)
	d.add("storage", have.Storage == want.Storage, have.Storage, want.Storage)
	d.add("retention", have.Retention == want.Retention, have.Retention, want.Retention)
	d.add("discard", have.Discard == want.Discard, have.Discard, want.Discard)
	d.add("max age", have.MaxAge == want.MaxAge, have.MaxAge, want.MaxAge)
	d.add("max bytes", have.MaxBytes == want.MaxBytes, have.MaxBytes, want.MaxBytes)
	d.add("max messages", have.MaxMsgs <= 0, have.MaxMsgs, want.MaxMsgs)
	d.add("max messages per subject", have.MaxMsgsPerSubject <= 0, have.MaxMsgsPerSubject, -1)
	d.add("replicas", have.Replicas == want.Replicas, have.Replicas, want.Replicas)
	d.add("duplicate window", have.Duplicates == want.Duplicates, have.Duplicates, want.Duplicates)
	d.add("max message size", have.MaxMsgSize <= 0, have.MaxMsgSize, "none")
	d.add("max consumers", have.MaxConsumers <= 0, have.MaxConsumers, "none")
	d.add("mirror", have.Mirror == nil, "set", "none")
	d.add("sources", len(have.Sources) == 0, len(have.Sources), "none")
	d.add("subject transform", have.SubjectTransform == nil, "set", "none") // no consumer would match
	limits := have.ConsumerLimits
	d.add("consumers' max ack pending", limits.MaxAckPending <= 0 || limits.MaxAckPending >= minAckPending, limits.MaxAckPending, fmt.Sprintf("at least %d", minAckPending))
	d.add("consumers' inactive threshold", limits.InactiveThreshold == 0, limits.InactiveThreshold, "none") // durables would end
	d.add("no ack", !have.NoAck, have.NoAck, false)
	d.add("sealed", !have.Sealed, have.Sealed, false)
	if created {
		d.add("allow message ttl", have.AllowMsgTTL == want.AllowMsgTTL, have.AllowMsgTTL, want.AllowMsgTTL)
		d.add("allow message schedules", have.AllowMsgSchedules == want.AllowMsgSchedules, have.AllowMsgSchedules, want.AllowMsgSchedules)
	}
	return d
}

// diffs collects "name: is x, wanted y".
type diffs []string

func (d *diffs) add(name string, same bool, have, want any) {
	if !same {
		*d = append(*d, fmt.Sprintf("%s is %v, wanted %v", name, have, want))
	}
}
