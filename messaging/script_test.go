package messaging_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tandemgo/tandem/messaging"
)

// A script is a transport that delivers what it is told, and notes the verdicts.
type script struct {
	features messaging.Features
	open     func() error
	sender   *scripted
	queue    chan messaging.Delivery
	fail     chan error                    // what Receive fails with
	settle   func(v *messaging.Settlement) // nil: nothing but to note it
	close    func()
	nothing  atomic.Bool // Receive answers with nothing

	withdrawn atomic.Int32 // calls of Receive that ended with their context

	mu   sync.Mutex
	said []messaging.Settlement
}

func newScript(f messaging.Features) *script {
	return &script{features: f, sender: &scripted{}, queue: make(chan messaging.Delivery, 100), fail: make(chan error, 1)}
}

func (s *script) Features() messaging.Features { return s.features }

func (s *script) Send(ctx context.Context, m []*messaging.Message) error {
	return s.sender.Send(ctx, m)
}

func (s *script) Open(context.Context, messaging.Spec) (messaging.Subscription, error) {
	if s.open != nil {
		if err := s.open(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *script) deliver(d ...messaging.Delivery) {
	for _, d := range d {
		s.queue <- d
	}
}

func (s *script) Receive(ctx context.Context, into []messaging.Delivery) (int, error) {
	if ctx.Err() != nil {
		s.withdrawn.Add(1)
		return 0, context.Cause(ctx)
	}
	if s.nothing.Load() {
		return 0, nil
	}
	select {
	case into[0] = <-s.queue:
		return 1, nil
	case err := <-s.fail:
		return 0, err
	case <-ctx.Done():
		s.withdrawn.Add(1)
		return 0, context.Cause(ctx)
	}
}

func (s *script) Settle(_ context.Context, v []messaging.Settlement) error {
	if s.settle != nil {
		for i := range v {
			s.settle(&v[i])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, v...)
	return nil
}

func (s *script) Close(context.Context) error {
	if s.close != nil {
		s.close()
	}
	return nil
}

func (s *script) settled() []messaging.Settlement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]messaging.Settlement(nil), s.said...)
}

func (s *script) verdicts() []string {
	var v []string
	for _, s := range s.settled() {
		v = append(v, fmt.Sprint(s.Ref, " ", s.Action))
	}
	return v
}
