// Package docs_test keeps the documents of this project true: the sketches in design.md compile.
package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every fenced go block of design.md is a whole file of a package of its own. The blocks are laid over the module where
// nothing is on disk, and built against the packages as they are: a sketch that a changed signature has outrun fails here,
// with its line in design.md.
func TestSketchesCompile(t *testing.T) {
	started := time.Now()
	text, err := os.ReadFile("design.md")
	require.NoError(t, err)
	sketches := goBlocks(t, string(text))
	require.NotEmpty(t, sketches)

	dir, err := filepath.Abs(".")
	require.NoError(t, err)
	temp := t.TempDir()
	replace := map[string]string{}
	build := []string{"build", "-overlay", filepath.Join(temp, "overlay.json")}
	for _, s := range sketches {
		file := filepath.Join(temp, s.name+".go")
		source := fmt.Sprintf("//line design.md:%d\n%s", s.line, s.text)
		require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
		replace[filepath.Join(dir, "sketch", s.name, s.name+".go")] = file
		build = append(build, "./sketch/"+s.name)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(temp, "overlay.json"), overlay, 0o600))

	cmd := exec.CommandContext(t.Context(), "go", build...)
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%d sketches in %v", len(sketches), time.Since(started).Round(time.Millisecond))
}

type sketch struct {
	name string // of its package
	line int    // of its first line in the document
	text string
}

var packageClause = regexp.MustCompile(`(?m)^package ([a-z]+)$`)

// goBlocks returns the fenced go blocks of a markdown text.
func goBlocks(t *testing.T, text string) []sketch {
	t.Helper()
	var found []sketch
	seen := map[string]bool{}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if line != "```go" {
			continue
		}
		first := i + 1
		length := slices.Index(lines[first:], "```")
		require.NotEqual(t, -1, length, "design.md:%d: the block has no end", first)
		block := strings.Join(lines[first:first+length], "\n") + "\n"
		clause := packageClause.FindStringSubmatch(block)
		require.NotNil(t, clause, "design.md:%d: a go block is a whole file; mark anything less as text", first)
		require.False(t, seen[clause[1]], "design.md:%d: a second package %s", first, clause[1])
		seen[clause[1]] = true
		found = append(found, sketch{name: clause[1], line: first + 1, text: block})
	}
	return found
}
