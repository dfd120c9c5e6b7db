package tandem_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	root     = "github.com/tandemgo/tandem/"
	backoff  = "github.com/cenkalti/backoff/v4"
	breakers = "github.com/sony/gobreaker/v2"
	testify  = "github.com/stretchr/testify"
	server   = "github.com/nats-io/nats-server/v2"
)

// What the client libraries bring along.
var (
	core = []string{backoff, breakers}
	nats = []string{
		"github.com/klauspost/compress", "github.com/nats-io/nats.go", "github.com/nats-io/nkeys", "github.com/nats-io/nuid",
		"golang.org/x/crypto", "golang.org/x/sys",
	}
	grpc = []string{
		"golang.org/x/net", "golang.org/x/sys", "golang.org/x/text", "google.golang.org/genproto/googleapis/rpc",
		"google.golang.org/grpc", "google.golang.org/protobuf",
	}
)

// layers holds every package of the module with the modules that importing it compiles: exactly these, standard library
// aside. A package imports packages of the layers above its own line, never of its own layer or below.
var layers = [][]struct {
	path    string
	modules []string
}{
	{
		{"internal/call", nil},
		{"internal/keyed", nil},
	},
	{
		{"retry", []string{backoff}},
		{"breaker", []string{breakers}},
	},
	{
		{"client", core}, // all that an HTTP-only service compiles
		{"client/grpcclient", slices.Concat(core, grpc)},
		{"messaging", core},
	},
	{
		{"messaging/membus", core},
		{"messaging/natsbus", slices.Concat(core, nats)},
		{"messaging/messagingtest", core},
		{"idempotency", core},
	},
	{
		{"idempotency/memstore", core},
		{"idempotency/natsstore", slices.Concat(core, nats)},
		{"idempotency/httpguard", core},
		{"idempotency/idempotencytest", core},
	},
	{
		{"", nil}, // the map
	},
}

// The boundaries of the packages are those of the table, in both directions: nothing more is compiled, and nothing that
// the table names has become idle.
func TestEachPackageCompilesOnlyItsModules(t *testing.T) {
	packages := list(t, "-deps")
	for _, layer := range layers {
		for _, row := range layer {
			path, want := name(row.path), slices.Sorted(slices.Values(row.modules))
			assert.Contains(t, packages, path)
			assert.Equal(t, want, modulesOf(packages, path), "modules compiled by importing %s", path)
		}
	}
}

func TestImportsGoDownwards(t *testing.T) {
	depth := map[string]int{}
	for i, layer := range layers {
		for _, row := range layer {
			depth[row.path] = i
		}
	}
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 { // tests of documents
			continue
		}
		from := relative(p.ImportPath)
		at, known := depth[from]
		assert.True(t, known, "package %s has no line in the table: decide where it belongs", from)
		for _, imported := range p.Imports {
			if to := relative(imported); to != imported {
				assert.Less(t, depth[to], at, "%s imports %s", from, to)
			}
		}
	}
}

func TestTestLibrariesStayInTests(t *testing.T) {
	for _, p := range list(t) {
		for _, imported := range p.Imports {
			require.False(t, strings.HasPrefix(imported, testify), "%s imports %s outside of its tests", p.ImportPath, imported)
		}
	}
	for _, p := range list(t, "-deps", "-test") { // test servers have a module of their own, for the tests too
		require.NotEqual(t, server, p.Module.Path, p.ImportPath)
	}
	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	require.NotContains(t, string(mod), server)
}

type listed struct {
	ImportPath string
	Standard   bool
	GoFiles    []string
	Imports    []string
	Module     struct{ Path string }
}

// list runs go list over the root module as a consumer sees it: without the workspace.
func list(t *testing.T, flags ...string) map[string]listed {
	t.Helper()
	args := slices.Concat([]string{"list", "-json=ImportPath,Standard,GoFiles,Imports,Module"}, flags, []string{"./..."})
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	packages := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		packages[p.ImportPath] = p
	}
}

// modulesOf returns the foreign modules of everything that the package imports, however far away.
func modulesOf(packages map[string]listed, path string) []string {
	var modules []string
	seen := map[string]bool{}
	var visit func(path string)
	visit = func(path string) {
		p := packages[path]
		if seen[path] || p.Standard {
			return
		}
		seen[path] = true
		if m := p.Module.Path; m != "" && m+"/" != root && !slices.Contains(modules, m) {
			modules = append(modules, m)
		}
		for _, i := range p.Imports {
			visit(i)
		}
	}
	visit(path)
	slices.Sort(modules)
	return modules
}

// name is the import path of a package of ours.
func name(path string) string { return strings.TrimSuffix(root+path, "/") }

// relative shortens the path of a package of ours; others stay as they are.
func relative(path string) string {
	if path+"/" == root {
		return ""
	}
	return strings.TrimPrefix(path, root)
}
