package conformance

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/messaging/natsbus"
)

var update = flag.Bool("update", false, "write the table of guarantees into the README")

const (
	readme     = "../../README.md"
	tableBegin = "<!-- guarantees: generated from Features, checked by a test -->\n"
	tableEnd   = "<!-- /guarantees -->"
)

// The table of guarantees in the README says what the adapters say of themselves, and messagingtest proves it of them:
// it cannot drift.
func TestReadmeGuarantees(t *testing.T) {
	page, err := os.ReadFile(readme)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(page), tableBegin)
	require.True(t, ok, "the README has lost its table of guarantees")
	have, after, ok := strings.Cut(rest, tableEnd)
	require.True(t, ok, "the table of guarantees has no end")

	want := guarantees(t)
	if *update {
		require.NoError(t, os.WriteFile(readme, []byte(before+tableBegin+want+tableEnd+after), 0o644))
		return
	}
	require.Equal(t, want, have, "run: go test ./internal/conformance -run TestReadmeGuarantees -update")
}

// guarantees renders the Features of every adapter side by side.
func guarantees(t *testing.T) string {
	bus, err := membus.New(membus.Config{})
	require.NoError(t, err)
	nc := startNATS(t, false).conn()
	jetstream, err := natsbus.New(nc, natsbus.Config{})
	require.NoError(t, err)
	core, err := natsbus.NewCore(nc, natsbus.CoreConfig{})
	require.NoError(t, err)
	all := []messaging.Features{bus.Features(), jetstream.Features(), core.Features()}

	var b strings.Builder
	b.WriteString("| | `membus` | `natsbus`, JetStream | `natsbus`, core |\n| --- | --- | --- | --- |\n")
	for _, row := range []struct {
		name string
		cell func(messaging.Features) string
	}{
		{"`Publish` returning nil means", func(f messaging.Features) string {
			return [...]string{
				messaging.ConfirmNone: "handed to a connection", messaging.ConfirmMemory: "stored in this process",
				messaging.ConfirmBroker: "stored by the broker", messaging.ConfirmTx: "in your transaction",
				messaging.ConfirmPeer: "handled by the receiver",
			}[f.Confirm]
		}},
		{"delivery", func(f messaging.Features) string {
			switch {
			case f.Redelivery == 0:
				return "**at most once**"
			case f.Confirm == messaging.ConfirmMemory:
				return "at least once, while the process lives"
			default:
				return "at least once"
			}
		}},
		{"groups compete inside, are independent outside", func(f messaging.Features) string { return yes(f.Groups) }},
		{"a group keeps its place while nobody is connected", func(f messaging.Features) string { return yes(f.Durable) }},
		{"order", func(f messaging.Features) string {
			return [...]string{
				messaging.OrderNone: "-", messaging.OrderReader: "for readers without a group",
				messaging.OrderGroup: "per key, also across the members of a group",
			}[f.Order]
		}},
		{"replay from", func(f messaging.Features) string {
			return [...]string{
				messaging.ReplayNone: "-", messaging.ReplayEarliest: "the start",
				messaging.ReplayTime: "the start, a time", messaging.ReplayCursor: "the start, a time, a cursor",
			}[f.Replay]
		}},
		{"attempts are counted by", func(f messaging.Features) string {
			return [...]string{
				messaging.AttemptsNone: "nobody", messaging.AttemptsProcess: "this process",
				messaging.AttemptsBroker: "the transport, also over a crash of the consumer",
			}[f.Attempts]
		}},
		{"longest delay of a retry that the transport holds", func(f messaging.Features) string { return span(f.Delay) }},
		{"longest `NotBefore`", func(f messaging.Features) string { return span(f.Schedule) }},
		{"a second publish of one ID is dropped within", func(f messaging.Features) string { return span(f.Dedupe) }},
		{"lease, extended while the handler works", func(f messaging.Features) string { return yes(f.Lease && f.Extend) }},
		{"request and reply", func(f messaging.Features) string { return yes(f.Request) }},
		{"largest message, headers included", func(f messaging.Features) string { return fmt.Sprintf("%d KiB", f.MaxBytes>>10) }},
	} {
		fmt.Fprintf(&b, "| %s |", row.name)
		for _, f := range all {
			fmt.Fprintf(&b, " %s |", row.cell(f))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "-"
}

func span(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d == messaging.NoTimeout:
		return "any"
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	default:
		return strings.TrimSuffix(strings.TrimSuffix(d.String(), "0s"), "0m")
	}
}
