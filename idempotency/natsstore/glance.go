package natsstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// glanceAge is how long a glance serves: however many duplicates come, the server is asked once in this time. Measuring it is
// all that this process's clock is used for.
const glanceAge = time.Second

// A glance is what the server that leads the stream says of it. It is the one that stamps records.
type glance struct {
	server time.Time // its time
	heard  time.Time // ours, when its answer was here
	bytes  int64     // stored
	most   int64     // the limit of them; zero or less: none
	wrote  int64     // by us until then
}

// look asks the server, unless a glance is fresh that saw all but room of what was written since.
func (s *Store) look(ctx context.Context, room int64) (glance, error) {
	if g := s.seen.Load(); g != nil && time.Since(g.heard) < glanceAge && s.wrote.Load()-g.wrote <= room {
		return *g, nil
	}
	wrote := s.wrote.Load()
	answer, err := s.request(ctx, "$JS.API.STREAM.INFO."+s.stream, nil)
	if err != nil {
		return glance{}, err
	}
	var got struct {
		Error  *jetstream.APIError `json:"error"`
		Time   time.Time           `json:"ts"`
		Config struct {
			MaxBytes int64 `json:"max_bytes"`
		} `json:"config"`
		State struct {
			Bytes int64 `json:"bytes"`
		} `json:"state"`
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return glance{}, fmt.Errorf("natsstore: info: %w", err)
	}
	if got.Error != nil {
		return glance{}, translate(got.Error)
	}
	if got.Time.IsZero() {
		return glance{}, errors.New("natsstore: the server does not tell its time; it is too old")
	}
	g := glance{server: got.Time, heard: time.Now(), bytes: got.State.Bytes, most: got.Config.MaxBytes, wrote: wrote}
	s.seen.Store(&g)
	return g, nil
}

// now is the time of the server, or a moment before: it was that when the answer was sent, and we count from when it was
// here.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	g, err := s.look(ctx, math.MaxInt64)
	if err != nil {
		return time.Time{}, err
	}
	return g.server.Add(time.Since(g.heard)), nil
}

// reserved reports that the bucket is full but for the last share of it. A replicated stream at its limit takes nothing
// any more, not even what would make room: work that is done could not be recorded, and would run again.
func (s *Store) reserved(ctx context.Context, share int64) (bool, error) {
	if s.config.MaxBytes == 0 {
		return false, nil
	}
	g, err := s.look(ctx, s.config.MaxBytes/32)
	if err != nil {
		return false, err
	}
	return g.most > 0 && g.bytes > g.most-g.most/share, nil
}
