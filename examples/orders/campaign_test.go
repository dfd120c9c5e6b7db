package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCampaign runs full seeds one after the other, as many as TANDEM_CAMPAIGN says, and prints the table of
// docs/campaign.md; see the Makefile.
func TestCampaign(t *testing.T) {
	seeds, err := strconv.Atoi(os.Getenv("TANDEM_CAMPAIGN"))
	if err != nil || seeds < 1 {
		t.Skip("a long campaign: set TANDEM_CAMPAIGN to a number of seeds, or run make campaign")
	}
	fmt.Print("\n", campaignRow(columns(func(c column) string { return c.name })), campaignRow(columns(func(column) string { return "---:" })))
	defer fmt.Println()
	for seed := range uint64(seeds) {
		c, _, err := parse([]string{"-seed", strconv.FormatUint(seed+1, 10)}, io.Discard)
		require.NoError(t, err)
		r, start := &result{config: c}, time.Now()
		r.err = r.run()
		if r.report != nil {
			took := time.Since(start)
			fmt.Print(campaignRow(columns(func(c column) string { return fmt.Sprint(c.value(r, took)) })))
		}
		require.NoError(t, r.err)
		require.NoError(t, r.faulty(allKinds), "seed %d", r.seed)
		require.Positive(t, r.breakerClosed, "seed %d: no breaker closed again", r.seed)
	}
}

// A column of the table.
type column struct {
	name  string
	value func(r *result, took time.Duration) any
}

// columns returns one cell of each column.
func columns(cell func(column) string) (cells []string) {
	for _, c := range []column{
		{"seed", func(r *result, _ time.Duration) any { return r.seed }},
		{"accepted", func(r *result, _ time.Duration) any { return r.Accepted }},
		{"rejected", func(r *result, _ time.Duration) any { return r.Rejected }},
		{"charged", func(r *result, _ time.Duration) any { return r.PaymentsCharged }},
		{"lost", func(r *result, _ time.Duration) any { return r.Lost }},
		{"doubled", func(r *result, _ time.Duration) any { return r.Doubled }},
		{"undecided", func(r *result, _ time.Duration) any { return r.Undecided }},
		{"faults injected", func(r *result, _ time.Duration) any { return sum(r.Faults) }},
		{"duplicates suppressed", func(r *result, _ time.Duration) any { return r.DuplicatesSuppressed.Total }},
		{"retries", func(r *result, _ time.Duration) any { return sum(r.Retries) }},
		{"budget denied", func(r *result, _ time.Duration) any { return r.BudgetDenied }},
		{"breaker opened", func(r *result, _ time.Duration) any { return r.BreakerOpened }},
		{"redelivered", func(r *result, _ time.Duration) any { return r.Redelivered }},
		{"p50 ms", func(r *result, _ time.Duration) any { return int(r.LatencyP50) }},
		{"p99 ms", func(r *result, _ time.Duration) any { return int(r.LatencyP99) }},
		{"seconds", func(_ *result, took time.Duration) any { return fmt.Sprintf("%.1f", took.Seconds()) }},
	} {
		cells = append(cells, cell(c))
	}
	return cells
}

func campaignRow(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
