package tandem_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the README shows first is the body of an Example that runs, and it is short.
func TestReadmeShowsAnExecutedExample(t *testing.T) {
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(page), "```go\n")
	require.True(t, ok, "the README shows no Go")
	shown, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)

	require.Less(t, strings.Count(head, "\n"), 12, "the first Go comes within the first lines")
	require.Less(t, strings.Count(shown, "\n"), 12, "and is under 12 lines")
	require.NotEmpty(t, shown)

	example, err := os.ReadFile("client/example_test.go")
	require.NoError(t, err)
	indented := "\t" + strings.ReplaceAll(strings.TrimSuffix(shown, "\n"), "\n", "\n\t") + "\n"
	indented = strings.ReplaceAll(indented, "\n\t\n", "\n\n")
	require.Contains(t, string(example), indented, "the first Go of the README is not the Example of package client")
}
