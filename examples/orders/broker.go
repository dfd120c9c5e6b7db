package main

// The broker: a nats-server in this process, or the user's own behind a proxy that can cut connections.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/retry"
)

// A broker is where NATS is to be found, and how it goes away and comes back.
type broker interface {
	URL() string
	// Down takes it away now, and brings it back after d, before it returns.
	Down(d time.Duration) error
	Close()
}

// embedded is a nats-server in this process, with JetStream on disk.
type embedded struct {
	options natsserver.Options

	mu     sync.Mutex
	server *natsserver.Server
}

func startEmbedded(dir string) (*embedded, error) {
	b := &embedded{options: natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT,
		JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true,
	}}
	if err := b.start(); err != nil {
		return nil, err
	}
	b.options.Port = b.server.Addr().(*net.TCPAddr).Port // when it comes back, it is where it was
	return b, nil
}

func (b *embedded) start() error {
	// The port may be taken for a moment by an outgoing connection of this very process.
	for deadline := time.Now().Add(10 * time.Second); ; {
		options := b.options
		s, err := natsserver.NewServer(&options)
		if err != nil {
			return fmt.Errorf("nats-server: %w", err)
		}
		s.Start()
		if s.ReadyForConnections(2 * time.Second) {
			b.server = s
			return nil
		}
		s.Shutdown()
		s.WaitForShutdown()
		if time.Now().After(deadline) {
			return errors.New("nats-server: not ready after 10 s")
		}
	}
}

func (b *embedded) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", b.options.Port) }

func (b *embedded) Down(d time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server.Shutdown()
	b.server.WaitForShutdown()
	time.Sleep(d)
	return b.start()
}

func (b *embedded) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// proxied is a server of the user's own, reached through a proxy in this process that can cut connections.
type proxied struct {
	listener net.Listener
	target   string
	userinfo *url.Userinfo
	work     sync.WaitGroup

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

func startProxied(ctx context.Context, raw string) (*proxied, error) {
	if !strings.Contains(raw, "://") {
		raw = "nats://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("-nats: not a URL") // its text may hold a password
	}
	if u.Scheme != "nats" || u.Host == "" {
		return nil, errors.New("-nats: want nats://[user:password@]host[:port], without TLS")
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "4222")
	}
	// Whoever is not there is told here: behind the proxy it would look like a connection that is closed at once.
	c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("-nats: %w", err)
	}
	_ = c.Close()
	l, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxied{listener: l, target: host, userinfo: u.User, conns: map[net.Conn]bool{}}
	p.work.Go(p.accept)
	return p, nil
}

func (p *proxied) URL() string {
	return (&url.URL{Scheme: "nats", User: p.userinfo, Host: p.listener.Addr().String()}).String()
}

func (p *proxied) accept() {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.forward(in) })
	}
}

// forward carries bytes both ways until either side ends.
func (p *proxied) forward(in net.Conn) {
	defer p.drop(in)
	if !p.keep(in) {
		return
	}
	out, err := (&net.Dialer{Timeout: 2 * time.Second}).Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.drop(out)
	if !p.keep(out) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(in, out)
		p.drop(in)
	})
	_, _ = io.Copy(out, in)
	p.drop(out)
	back.Wait()
}

// keep remembers a connection so that it can be cut; false while the proxy is down.
func (p *proxied) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxied) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *proxied) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxied) Down(d time.Duration) error {
	p.cut()
	time.Sleep(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
	return nil
}

func (p *proxied) Close() {
	p.cut()
	_ = p.listener.Close()
	p.work.Wait()
}

// cleanUp removes from a server of the user's own what this run has made there. The connection may just be coming back.
func cleanUp(ctx context.Context, js jetstream.JetStream, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	p := retry.Policy{MaxAttempts: 20, BaseDelay: 50 * time.Millisecond, MaxDelay: 500 * time.Millisecond, Budget: retry.Unlimited}
	return p.Do(ctx, func(ctx context.Context) error { return deleteStreams(ctx, js, prefix) })
}

func deleteStreams(ctx context.Context, js jetstream.JetStream, prefix string) error {
	var faults []error
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		if strings.HasPrefix(name, prefix) || strings.HasPrefix(name, "KV_"+prefix) {
			faults = append(faults, js.DeleteStream(ctx, name))
		}
	}
	return errors.Join(append(faults, names.Err())...)
}
