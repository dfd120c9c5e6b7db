package grpcclient

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/tandemgo/tandem/breaker"
)

// unary is a grpc.UnaryClientInterceptor.
func (p *policy) unary(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	w := &wire{}
	c := exchange{policy: p}
	c.begin(ctx, &w.bounded, method, cc, p.Timeout)
	if err := c.over(); err != nil {
		return err
	}
	for {
		v, ok := c.attempt(w, req, reply, invoke, opts) //nolint:contextcheck // a breaker is told no context
		if ok {
			return nil
		}
		if !c.again(v) {
			return c.fail(v, nil)
		}
		if err := c.wait(); err != nil {
			return c.fail(v, err)
		}
		reset(reply)
		forget(opts)
		w = &wire{} // whoever kept the options of the attempt before cannot reach this one
	}
}

// attempt makes one attempt: breaker, attempt timeout, wire.
func (c *exchange) attempt(w *wire, req, reply any, invoke grpc.UnaryInvoker, opts []grpc.CallOption) (v verdict, ok bool) {
	permit, err := c.breaker.Allow()
	if err != nil {
		return c.refused(err), false
	}
	v.breaker = breaker.Ignored // what a panic leaves: it says nothing about the server
	defer func() { permit.Done(v.breaker) }()

	ctx := c.tries.Context()
	limit, timer := c.limit()
	var deadline time.Time
	if timer {
		deadline = c.start.Add(limit)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	err = invoke(c.outgoing(ctx), c.method, req, reply, c.cc, w.options(opts, c.cc)...)
	if err == nil {
		v.breaker = breaker.Success
		c.tell(nil)
		return v, true
	}
	now := time.Now()
	v = c.judge(failure{
		err: err, trailer: w.sent(), unbegun: w.unbegun(), took: now.Sub(c.start),
		// By the clock, too: the server's timer, set by ours, may be the first to fire.
		timedOut: timer && timedOut(err) && (errors.Is(ctx.Err(), context.DeadlineExceeded) || !now.Before(deadline)),
	})
	c.tell(v.Err)
	return v, false
}

// reset empties a reply that an attempt may have left half filled. One that is no protobuf message is its codec's
// business.
func reset(reply any) {
	switch m := reply.(type) {
	case proto.Message:
		proto.Reset(m)
	case protoadapt.MessageV1:
		m.Reset()
	}
}

// forget empties what the caller's options collected from an attempt before.
func forget(opts []grpc.CallOption) {
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = nil
		case grpc.TrailerCallOption:
			*o.TrailerAddr = nil
		case grpc.PeerCallOption:
			*o.PeerAddr = peer.Peer{}
		}
	}
}
