package messaging

import (
	"slices"
	"time"
)

// Start is a place to begin at. The zero Start is the default of the consumer.
type Start struct {
	kind    startKind
	time    time.Time
	cursors []Cursor
}

type startKind int

const (
	startDefault startKind = iota
	startEarliest
	startLatest
	startTime
	startAfter
)

// Earliest begins at the oldest message that is kept.
func Earliest() Start { return Start{kind: startEarliest} }

// Latest begins with what is published from now on.
func Latest() Start { return Start{kind: startLatest} }

// FromTime begins with the first message published at t or later.
func FromTime(t time.Time) Start { return Start{kind: startTime, time: t} }

// After begins with the message that follows c. Of a topic with several logs, such as partitions, it takes a cursor of
// each: of those of one Lane the last counts, and a log without one begins at its oldest message.
func After(c ...Cursor) Start { return Start{kind: startAfter, cursors: slices.Clone(c)} }

// IsEarliest reports whether s is Earliest; for adapters.
func (s Start) IsEarliest() bool { return s.kind == startEarliest }

// IsLatest reports whether s is Latest; for adapters.
func (s Start) IsLatest() bool { return s.kind == startLatest }

// Time returns the time of FromTime; for adapters.
func (s Start) Time() (time.Time, bool) { return s.time, s.kind == startTime }

// Cursors returns the cursors of After, nil unless it is one; for adapters.
func (s Start) Cursors() []Cursor { return slices.Clone(s.cursors) }
