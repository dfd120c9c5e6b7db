package tandem_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the README shows first is the body of an Example that runs, and it is short.
func TestReadmeShowsAnExecutedExample(t *testing.T) {
	shown := readmeBlocks(t)[0]
	require.Less(t, shown.line, 12, "the first Go comes within the first lines")
	require.Less(t, strings.Count(shown.text, "\n"), 12, "and is under 12 lines")

	example, err := os.ReadFile("client/example_test.go")
	require.NoError(t, err)
	indented := "\t" + strings.ReplaceAll(strings.TrimSuffix(shown.text, "\n"), "\n", "\n\t") + "\n"
	indented = strings.ReplaceAll(indented, "\n\t\n", "\n\n")
	require.Contains(t, string(example), indented, "the first Go of the README is not the Example of package client")
}

// readmeNames is what the README leaves to the reader: the imports, and the names that come from elsewhere.
const readmeNames = `package readme

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/tandemgo/tandem/breaker"
	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/client/grpcclient"
	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/httpguard"
	"github.com/tandemgo/tandem/idempotency/memstore"
	"github.com/tandemgo/tandem/messaging"
	"github.com/tandemgo/tandem/messaging/membus"
	"github.com/tandemgo/tandem/retry"
)

type Order struct{ User string }

var (
	ctx      context.Context
	server   *httptest.Server
	policy   retry.Policy
	breakers *breaker.Group
	bus      *membus.Bus
	pub      *messaging.Publisher
	order    Order
	sendMail func(context.Context, Order) error
	store    *memstore.Store
	tenantOf func(*http.Request) (string, error)
	mux      *http.ServeMux
	create   http.Handler
)
`

// Every Go block of the README compiles as it is shown.
func TestReadmeCompiles(t *testing.T) {
	var source strings.Builder
	source.WriteString(readmeNames)
	for i, b := range readmeBlocks(t) {
		fmt.Fprintf(&source, "func block%d() {\n//line README.md:%d\n%s}\n", i, b.line, b.text)
	}
	temp := t.TempDir()
	file := filepath.Join(temp, "readme.go")
	require.NoError(t, os.WriteFile(file, []byte(source.String()), 0o600))
	root, err := filepath.Abs(".")
	require.NoError(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "readme", "readme.go"): file,
	}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(temp, "overlay.json"), overlay, 0o600))

	cmd := exec.CommandContext(t.Context(), "go", "build", "-gcflags=-e", "-overlay", filepath.Join(temp, "overlay.json"), "./readme")
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	out, _ := cmd.CombinedOutput() // what is wrong stands in it
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "#") || strings.Contains(line, "declared and not used") {
			continue // a snippet ends before its values are used
		}
		t.Error(strings.TrimSpace(line))
	}
}

type block struct {
	line int // of its first line
	text string
}

func readmeBlocks(t *testing.T) (blocks []block) {
	t.Helper()
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	rest, line := string(page), 1
	for {
		before, after, found := strings.Cut(rest, "```go\n")
		if !found {
			require.NotEmpty(t, blocks, "the README shows no Go")
			return blocks
		}
		line += strings.Count(before, "\n") + 1
		text, end, found := strings.Cut(after, "```")
		require.True(t, found, "README.md:%d: the block has no end", line)
		blocks = append(blocks, block{line, text})
		line += strings.Count(text, "\n")
		rest = end
	}
}
