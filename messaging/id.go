package messaging

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"sync"
	"time"
)

const uuidLen = 36

// An idSource mints UUIDs of version 7 (RFC 9562, 5.7), with the fraction of the millisecond in rand_a (6.2, method 3).
type idSource struct {
	mu     sync.Mutex
	random [512]byte // from crypto/rand, each byte used once
	left   int
}

// next appends an ID to text and returns it.
func (s *idSource) next(now time.Time, text *strings.Builder) string {
	var u [16]byte
	s.take(u[8:])
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	fraction := now.Nanosecond() % int(time.Millisecond) * 4096 / int(time.Millisecond)
	u[6] = 0x70 | byte(fraction>>8)
	u[7] = byte(fraction)
	u[8] = 0x80 | u[8]&0x3f

	var b [uuidLen]byte
	hex.Encode(b[0:8], u[0:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:36], u[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	start := text.Len()
	text.Write(b[:])
	return text.String()[start:]
}

// take fills b with random bytes; asking the system for each ID would cost more than the rest of it.
func (s *idSource) take(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left < len(b) {
		_, _ = rand.Read(s.random[:]) // never fails, says its documentation
		s.left = len(s.random)
	}
	at := len(s.random) - s.left
	copy(b, s.random[at:])
	clear(s.random[at : at+len(b)])
	s.left -= len(b)
}
