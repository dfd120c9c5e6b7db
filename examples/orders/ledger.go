package main

// What each party writes down, and the report reads.

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A line of a ledger. Every party writes its own file; the report is made from these files alone.
type line struct {
	At    time.Time `json:"at"`
	Event event     `json:"event"`
	Order string    `json:"order,omitempty"`
	Key   string    `json:"key,omitempty"`
	Cents int64     `json:"cents,omitempty"`
	Items []item    `json:"items,omitempty"`
	To    string    `json:"to,omitempty"` // whom a mail goes to
	// Known marks a call whose key the party had seen: it was answered and had no effect.
	Known bool `json:"known,omitempty"`
	// Status is what an HTTP call was answered with; zero when no answer came.
	Status int `json:"status,omitempty"`
	// Millis is how long a shopper waited for a definite answer.
	Millis float64 `json:"millis,omitempty"`
}

// An event is what a line tells of.
type event string

const (
	called   event = "call"     // somebody asked for something
	clicked  event = "click"    // the same, the second of two clicks of a shopper
	effected event = "effect"   // it happened: money, mail, stock, or a line in the analysis
	ordered  event = "order"    // a shopper began an order
	accepted event = "accepted" // a shopper was told: done
	rejected event = "rejected" // a shopper was told: declined
	looked   event = "look"     // a shopper looked what became of an order
)

// The ledgers, by the party that writes them.
const (
	shoppersLedger  = "shoppers"
	paymentsLedger  = "payments"
	mailLedger      = "mail"
	stockLedger     = "stock"
	analyticsLedger = "analytics"
)

// A ledger is a file that is only ever appended to. Any number of goroutines may write at once.
type ledger struct {
	mu   sync.Mutex
	file *os.File // one Write per line
}

func ledgerPath(dir, name string) string { return filepath.Join(dir, name+".jsonl") }

func openLedger(dir, name string) (*ledger, error) {
	f, err := os.OpenFile(ledgerPath(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger of %s: %w", name, err)
	}
	return &ledger{file: f}, nil
}

// write appends lines in one write: all of them are in the file, or none.
func (l *ledger) write(lines ...line) error {
	var b []byte
	for _, e := range lines {
		if e.At.IsZero() {
			e.At = time.Now()
		}
		j, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b = append(append(b, j...), '\n')
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.file.Write(b)
	return err
}

func (l *ledger) close() error { return l.file.Close() }

// readLedger returns the lines of one ledger; none if the party has written nothing yet.
func readLedger(dir, name string) ([]line, error) {
	f, err := os.Open(ledgerPath(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var all []line
	for s := bufio.NewScanner(f); ; {
		if !s.Scan() {
			return all, s.Err()
		}
		var e line
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("ledger of %s, line %d: %w", name, len(all)+1, err)
		}
		all = append(all, e)
	}
}
