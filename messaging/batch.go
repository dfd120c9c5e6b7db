package messaging

import (
	"errors"
	"slices"

	"github.com/tandemgo/tandem/retry"
)

// errKeyBlocked is what a message fails with that was not sent because an earlier one of its key failed.
var errKeyBlocked = errors.New("messaging: an earlier message of the same key is not stored")

// A batch is the messages of one Publish and what became of each.
type batch struct {
	messages []*Message
	pending  []int // to be sent, in order
	again    []int // the other half of pending, swapped at each attempt
	failures map[int]*Failure
	keys     map[laneKey]struct{} // of which a message failed for good
}

// A laneKey is what order is kept by.
type laneKey struct{ topic, key string }

func (b *batch) fail(index int, unknown bool, err error) {
	f := b.failure(index)
	f.Err = err
	f.Unknown = f.Unknown || unknown
	m := b.messages[index]
	if m == nil || m.Key == "" {
		return
	}
	if b.keys == nil {
		b.keys = make(map[laneKey]struct{})
	}
	b.keys[laneKey{m.Topic, m.Key}] = struct{}{}
}

func (b *batch) failure(index int) *Failure {
	f := b.failures[index]
	if f == nil {
		if b.failures == nil {
			b.failures = make(map[int]*Failure)
		}
		f = &Failure{Index: index}
		b.failures[index] = f
	}
	return f
}

// blocked reports whether an earlier message of m's key failed for good.
func (b *batch) blocked(m *Message) bool {
	if len(b.keys) == 0 || m.Key == "" {
		return false
	}
	_, ok := b.keys[laneKey{m.Topic, m.Key}]
	return ok
}

// takeTopic splits the messages of the first one's topic off. The usual batch has one topic and is not copied.
func (b *batch) takeTopic(pending []int) (group, rest []int) {
	topic := b.messages[pending[0]].Topic
	other := slices.IndexFunc(pending, func(i int) bool { return b.messages[i].Topic != topic })
	if other < 0 {
		return pending, nil
	}
	for _, i := range pending {
		if b.messages[i].Topic == topic {
			group = append(group, i)
		} else {
			rest = append(rest, i)
		}
	}
	return group, rest
}

// record enters the outcome of one Send of group and appends to again what another attempt may mend. Once unknown, a
// message stays so until a later attempt stores it: "not stored" said of the second copy says nothing about the first.
func (b *batch) record(again, group []int, err error) []int {
	if err == nil {
		for _, index := range group {
			delete(b.failures, index) // of an earlier attempt
		}
		return again
	}
	failed := make(map[int]Failure, len(group))
	if pe, ok := errors.AsType[*PublishError](err); ok {
		for _, f := range pe.Failed {
			if f.Index < 0 || f.Index >= len(group) {
				continue
			}
			if f.Err == nil {
				f.Err = err
			}
			failed[f.Index] = f
		}
	}
	if len(failed) == 0 { // it names nobody: it stands for all of them
		unknown := !isFinal(err) && !retry.Judge(err).Refused
		for i := range group {
			failed[i] = Failure{Index: i, Unknown: unknown, Err: err}
		}
	}
	for i, index := range group {
		f, bad := failed[i]
		switch {
		case !bad:
			delete(b.failures, index)
		case b.blocked(b.messages[index]):
			b.fail(index, f.Unknown, errKeyBlocked)
		case isFinal(f.Err) && !errors.Is(f.Err, errKeyBlocked):
			b.fail(index, f.Unknown, f.Err)
		default:
			known := b.failure(index)
			known.Err, known.Unknown = f.Err, known.Unknown || f.Unknown
			again = append(again, index)
		}
	}
	return again
}

// giveUp leaves what is pending as failed, each with an error that knows the attempts.
func (b *batch) giveUp(t *retry.Tries) {
	for _, index := range b.pending {
		f := b.failure(index)
		f.Err = t.Wrap(f.Err)
	}
}

// err is what Publish returns.
func (b *batch) err() error {
	if len(b.failures) == 0 {
		return nil
	}
	e := &PublishError{Failed: make([]Failure, 0, len(b.failures))}
	for _, f := range b.failures {
		e.Failed = append(e.Failed, *f)
	}
	slices.SortFunc(e.Failed, func(x, y Failure) int { return x.Index - y.Index })
	return e
}
