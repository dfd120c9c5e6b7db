package natsstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandemgo/tandem/idempotency"
)

const (
	requestTimeout = 5 * time.Second // of one request, where the context does not end before
	kvOperation    = "KV-Operation"

	// What the server answers to a publish whose expected revision is not the last one: the second where the conflict is
	// with a message that its replicas have not agreed on yet.
	codeWrongSequence         = 10071
	codeWrongSequenceInFlight = 10164

	codeAccountFull  = 10002
	codeInsufficient = 10023
	codeNoMemory     = 10028
	codeNoStorage    = 10047
	codeTooLarge     = 10054
	codeStoreFailed  = 10077 // the limits of the stream
)

// errOffline answers at once: the client would buffer the publish and send it, and with it the claim, long after the
// caller has been told that it failed.
var errOffline = errors.New("natsstore: not connected")

// put writes r at its key, if expect is the last revision there; 0 is none.
func (s *Store) put(ctx context.Context, subject string, r record, expect uint64) (uint64, error) {
	return s.putFor(ctx, subject, r, expect, r.ttl())
}

func (s *Store) putFor(ctx context.Context, subject string, r record, expect uint64, ttl time.Duration) (uint64, error) {
	data, err := r.encode()
	if err != nil {
		return 0, fmt.Errorf("natsstore: encode: %w", err)
	}
	if most := s.maxMessage() - 1024; len(data) > most {
		return 0, fmt.Errorf("natsstore: %w: record of %d bytes, at most %d", idempotency.ErrFull, len(data), most)
	}
	return s.publish(ctx, &nats.Msg{Subject: subject, Data: data}, expect, ttl)
}

// publish is the compare-and-set of the store. KeyValue.Update is the same without the time to live, which would make
// every record live for ever.
func (s *Store) publish(ctx context.Context, m *nats.Msg, expect uint64, ttl time.Duration) (uint64, error) {
	ctx, cancel, err := s.online(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	s.wrote.Add(int64(len(m.Data)) + 256) // with subject and headers
	ack, err := s.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(expect), jetstream.WithMsgTTL(ttl))
	if err != nil {
		return 0, translate(err)
	}
	return ack.Sequence, nil
}

func (s *Store) online(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if ctx.Err() != nil {
		return ctx, nil, fmt.Errorf("natsstore: %w", context.Cause(ctx))
	}
	if !s.nc.IsConnected() {
		return ctx, nil, errOffline
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	return ctx, cancel, nil
}

func translate(err error) error {
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("natsstore: %w: %w", idempotency.ErrFull, err)
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeAccountFull, codeInsufficient, codeNoMemory, codeNoStorage, codeTooLarge, codeStoreFailed:
			return fmt.Errorf("natsstore: %w: %w", idempotency.ErrFull, err)
		}
	}
	return fmt.Errorf("natsstore: %w", err)
}

// unanswered reports whether a publish may have been stored though nobody said so, and somebody still wants to know.
func unanswered(ctx context.Context, err error) bool {
	return ctx.Err() == nil && (errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded))
}

func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeWrongSequence || api.ErrorCode == codeWrongSequenceInFlight)
}

// An entry is what stands at a key. The zero entry is nothing; one that is not present but has a revision is a marker
// of something that was deleted or has expired.
type entry struct {
	present  bool
	revision uint64
	at       time.Time // the server's, when it was written
	record   record
}

// last reads what stands at a key from any replica, which may be behind.
func (s *Store) last(ctx context.Context, subject string) (entry, error) {
	answer, err := s.request(ctx, "$JS.API.DIRECT.GET."+s.stream+"."+subject, nil)
	if err != nil {
		return entry{}, err
	}
	switch status := answer.Header.Get("Status"); status {
	case "":
	case "404":
		return entry{}, nil
	default:
		return entry{}, fmt.Errorf("natsstore: get: status %s %s", status, answer.Header.Get("Description"))
	}
	revision, err := strconv.ParseUint(answer.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return entry{}, fmt.Errorf("natsstore: get: no sequence: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, answer.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return entry{}, fmt.Errorf("natsstore: get: no time: %w", err)
	}
	return newEntry(revision, at, answer.Header, answer.Data)
}

// lastOfLeader reads what stands at a key from the server that decides about publishes.
func (s *Store) lastOfLeader(ctx context.Context, subject string) (entry, error) {
	query, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return entry{}, fmt.Errorf("natsstore: get: %w", err)
	}
	answer, err := s.request(ctx, "$JS.API.STREAM.MSG.GET."+s.stream, query)
	if err != nil {
		return entry{}, err
	}
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return entry{}, fmt.Errorf("natsstore: get: %w", err)
	}
	if got.Error != nil {
		if got.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return entry{}, nil
		}
		return entry{}, translate(got.Error)
	}
	var header nats.Header
	if len(got.Message.Header) > 0 {
		if header, err = nats.DecodeHeadersMsg(got.Message.Header); err != nil {
			return entry{}, fmt.Errorf("natsstore: get: %w", err)
		}
	}
	return newEntry(got.Message.Sequence, got.Message.Time, header, got.Message.Data)
}

func newEntry(revision uint64, at time.Time, h nats.Header, data []byte) (entry, error) {
	e := entry{revision: revision, at: at}
	if h.Get(kvOperation) != "" || h.Get(jetstream.MarkerReasonHeader) != "" {
		return e, nil
	}
	var err error
	e.record, err = decode(data)
	e.present = true
	return e, err
}

func (s *Store) request(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	ctx, cancel, err := s.online(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	answer, err := s.nc.RequestWithContext(ctx, subject, data)
	if err != nil {
		return nil, fmt.Errorf("natsstore: %w", err)
	}
	return answer, nil
}
