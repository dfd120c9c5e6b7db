package messaging

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The headers that a dead letter has beside those of its original.
const (
	headerDead         = "tandem-dead-"
	headerDeadReason   = "tandem-dead-reason"   // one of the reasons below
	headerDeadError    = "tandem-dead-error"    // what the last attempt failed with, 1 KiB at most
	headerDeadStack    = "tandem-dead-stack"    // of a panic, 4 KiB at most
	headerDeadAttempts = "tandem-dead-attempts" // how many were counted
	headerDeadTopic    = "tandem-dead-topic"    // where the original was
	headerDeadGroup    = "tandem-dead-group"    // who gave it up
	headerDeadFirst    = "tandem-dead-first"    // time of the first failure known, RFC 3339
	headerDeadLast     = "tandem-dead-last"     // time of the last one
	headerDeadDropped  = "tandem-dead-dropped"  // how many headers of the original no transport could carry
	headerDeadRedriven = "tandem-dead-redriven" // how often the message was sent back from a dead-letter topic
)

// The reasons of a dead letter.
const (
	deadRejected  = "rejected"  // the handler said that no retry helps
	deadAttempts  = "attempts"  // all attempts were made
	deadAge       = "age"       // older than MaxAge, and told to wait
	deadMalformed = "malformed" // it could not be read
	deadCrashed   = "crashed"   // delivered again and again without any verdict
	deadLast      = "last"      // the transport would not have delivered it again
)

const (
	maxDeadError = 1 << 10
	maxDeadStack = 4 << 10
)

// A burial is a dead letter on its way.
type burial struct {
	reason   string
	err      error
	attempts int
	last     time.Time
	tries    int  // publishes of it
	bare     bool // with its reasons it was too large for the transport, whatever our own count said
}

// DeadLetter tells of one message given up.
type DeadLetter struct {
	Message  *Message
	Topic    string // where it went
	Reason   string // rejected, attempts, age, malformed, crashed or last
	Attempts int
	Err      error
}

func (r *run) newBurial(f *flight, reason string, err error, now time.Time) *burial {
	return &burial{reason: reason, err: err, attempts: f.counted(), last: now}
}

var errCrashed = errors.New("messaging: delivered again and again without a verdict: it may end the process that handles it")

// deadOnArrival says why a delivery is not handled at all.
func (r *run) deadOnArrival(f *flight, malformed error) *burial {
	if malformed != nil {
		return r.newBurial(f, deadMalformed, malformed, f.arrived)
	}
	if r.c.features.Attempts == AttemptsNone {
		return nil
	}
	attempt, most := f.message.Attempt-f.waits, r.c.config.Retry.MaxAttempts
	if (attempt-1)/poisonSlack >= most || f.last && attempt > most { // not poisonSlack*most, which may overflow
		return r.newBurial(f, deadCrashed, errCrashed, f.arrived)
	}
	return nil
}

// bury publishes the dead letter of f and writes what is to be done then. Only after it is stored the original is settled;
// until then it sleeps and is tried again. A consumer without dead letters refuses the message instead.
func (r *run) bury(f *flight, d *decision) {
	c, b := &r.c.config, f.dead
	if r.isLost(f) {
		*d = decision{action: Release} // its next owner decides
		return
	}
	if c.Dead == nil {
		if c.Log != nil {
			c.Log.LogAttrs(r.base, slog.LevelError, "messaging: given up, without a dead letter",
				slog.String("topic", r.c.topic), slog.String("group", c.Group), slog.String("id", f.message.ID),
				slog.String("reason", b.reason), slog.Any("error", b.err))
		}
		*d = decision{action: Refuse, cause: b.err}
		return
	}
	b.tries++
	*d = decision{action: Retry, delay: r.delay(b.tries), cause: b.err}
	if err := r.publishDead(f); err != nil {
		r.logError(r.base, "messaging: a dead letter is not stored", err)
		_, tooLarge := errors.AsType[*TooLargeError](err)
		if tooLarge && !b.bare {
			b.bare, d.delay = true, leastDelay
		} else if isPermanentPublish(err) {
			b.tries = max(b.tries, 8) // wait long: somebody has to make the topic
			d.delay = r.delay(b.tries)
		}
		return
	}
	*d = decision{action: Done}
	r.mu.Lock()
	r.stats.Dead++
	r.mu.Unlock()
	if c.Log != nil {
		c.Log.LogAttrs(r.base, slog.LevelError, "messaging: dead letter", slog.String("topic", r.c.topic),
			slog.String("group", c.Group), slog.String("id", f.message.ID), slog.String("to", c.DeadLetter),
			slog.String("reason", b.reason), slog.Int("attempts", b.attempts), slog.Any("error", b.err))
	}
	if c.OnDead != nil {
		e := DeadLetter{Message: f.message, Topic: c.DeadLetter, Reason: b.reason, Attempts: b.attempts, Err: b.err}
		contain(c.Log, func() { c.OnDead(r.base, e) })
	}
}

// publishDead publishes the dead letter while the run may wait for handlers. One of a message that nobody delivers again
// has the grace after that, too.
func (r *run) publishDead(f *flight) error {
	ctx := r.base
	if f.last && ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), drainGrace)
		defer cancel()
	}
	return r.c.config.Dead.Publish(ctx, r.deadLetter(f))
}

func isPermanentPublish(err error) bool {
	pe, ok := errors.AsType[*PublishError](err)
	return ok && len(pe.Failed) == 1 && isFinal(pe.Failed[0].Err)
}

// deadLetter returns the copy: body and headers of the original as they came, and why it was given up. It keeps the ID;
// DedupeID tells it from its original.
func (r *run) deadLetter(f *flight) *Message {
	b, original := f.dead, f.message
	m := &Message{
		ID: original.ID, Topic: r.c.config.DeadLetter, Key: clean(original.Key, maxString),
		Type: clean(original.Type, maxString), Source: clean(original.Source, maxString), Body: original.Body, Time: original.Time,
		Header: make(Header, len(original.Header)+9),
	}
	if checkValue(m.ID) != nil || len(m.ID) > maxString {
		m.ID = ""
	}
	if !canTravel(m.Time) {
		m.Time = time.Time{}
	}
	if m.ID == "" && original.Cursor != "" { // of a foreign producer: a second copy must have the same
		m.ID = clean(original.Topic+"/"+string(original.Cursor), maxString)
	}
	dropped := 0
	for k, v := range original.Header {
		if checkHeader(k, v) != nil {
			dropped++
			continue
		}
		m.Header[k] = v
	}
	first := f.first
	if first.IsZero() {
		first = b.last
	}
	why := []struct{ key, value string }{ // the most telling first
		{headerDeadReason, b.reason},
		{headerDeadTopic, r.c.topic},
		{headerDeadGroup, r.c.config.Group},
		{headerDeadAttempts, strconv.Itoa(b.attempts)},
		{headerDeadLast, b.last.UTC().Format(time.RFC3339Nano)},
		{headerDeadFirst, first.UTC().Format(time.RFC3339Nano)},
		{headerDeadError, clean(b.err.Error(), maxDeadError)},
		{headerDeadStack, stackOf(b.err)},
		{headerDeadDropped, ""},
	}
	if dropped > 0 {
		why[len(why)-1].value = strconv.Itoa(dropped)
	}
	limit := r.c.config.Dead.Features().MaxBytes
	for _, w := range why {
		delete(m.Header, w.key) // of an earlier death
		if w.value == "" {
			continue
		}
		if b.bare {
			continue
		}
		m.Header[w.key] = w.value
		if limit > 0 && m.size() > limit { // the message itself goes first
			delete(m.Header, w.key)
		}
	}
	return m
}

func stackOf(err error) string {
	p, ok := errors.AsType[*panicError](err)
	if !ok {
		return ""
	}
	return clean(string(p.stack), maxDeadStack)
}

// clean makes text a value that every transport can carry: control characters become spaces, what is no UTF-8 goes, and
// it ends after most bytes.
func clean(text string, most int) string {
	if len(text) <= most && checkValue(text) == nil {
		return text
	}
	if len(text) > most {
		text = text[:most]
		for len(text) > 0 && !utf8.ValidString(text[max(0, len(text)-utf8.UTFMax):]) && !utf8.RuneStart(text[len(text)-1]) {
			text = text[:len(text)-1]
		}
	}
	text = strings.ToValidUTF8(text, "?")
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, text)
	text = strings.TrimSpace(text)
	for len(text) > most { // what was no UTF-8 may have grown
		_, n := utf8.DecodeLastRuneInString(text)
		text = strings.TrimSpace(text[:len(text)-n])
	}
	return text
}
