// Package internal_test enforces the architecture: who may import whom, and that every package says what it is.
package internal_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/rota-dev/rota/"

type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
	Name       string
}

func packages(t *testing.T) map[string]pkg {
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,Deps,Name", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	require.NoError(t, err)
	all := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		require.NoError(t, d.Decode(&p))
		all[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	require.Greater(t, len(all), 15)
	return all
}

func TestImportsPointDown(t *testing.T) {
	all := packages(t)
	for _, rule := range []struct {
		who    string   // the package and all below it
		never  []string // neither directly nor through others
		reason string
	}{
		{"cron", []string{"jobs", "store", "executor", "scheduler", "console"}, "an expression knows nothing of jobs"},
		{"jobs", []string{"store", "lease", "executor", "scheduler", "console", "shards"}, "definitions are pure vocabulary"},
		{"shards", []string{"store", "lease", "executor", "scheduler", "console"}, "the planner is pure"},
		{"lease", []string{"executor", "scheduler", "console", "jobs"}, "a lease does not know what it is for"},
		{"store", []string{"executor", "scheduler", "console", "lease"}, "the store serves the actors"},
		{"executor", []string{"scheduler", "console", "internal/app", "github.com/gin-gonic/gin", "modernc.org/sqlite", "go.etcd.io/etcd/server/v3"}, "actors never import one another; users embed the executor"},
		{"scheduler", []string{"executor", "console", "internal/app", "github.com/gin-gonic/gin"}, "actors never import one another"},
		{"console", []string{"executor", "scheduler", "internal/app", "go.etcd.io/etcd/server/v3"}, "actors never import one another"},
		{"executor/engine", []string{"store/etcdkv", "os/exec", "net/http"}, "the engine is pure"},
	} {
		for path, p := range all {
			if path != rule.who && !strings.HasPrefix(path, rule.who+"/") {
				continue
			}
			for _, dep := range p.Deps {
				short := strings.TrimPrefix(dep, module)
				for _, n := range rule.never {
					if rule.who == "executor" && n == "scheduler" && path != "executor" {
						continue
					}
					require.False(t, short == n || strings.HasPrefix(short, n+"/"), "%s reaches %s: %s", path, short, rule.reason)
				}
			}
		}
	}
}

func TestOnlyTheirAdaptersKnowEtcdAndGin(t *testing.T) {
	for path, p := range packages(t) {
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "go.etcd.io/") {
				require.Contains(t, []string{"store/etcdkv", "internal/etcdembed"}, path, "imports %s", imp)
			}
			if strings.HasPrefix(imp, "github.com/gin-gonic/") || strings.HasPrefix(imp, "github.com/danielgtaylor/huma") {
				require.Equal(t, "console", path, "imports %s", imp)
			}
		}
	}
}

func TestPureCoresDoNoIO(t *testing.T) {
	all := packages(t)
	for _, path := range []string{"cron", "jobs", "shards", "executor/engine"} {
		for _, imp := range all[path].Imports {
			require.False(t, slices.Contains([]string{"os", "net", "net/http", "os/exec", "sync", "context", "math/rand", "math/rand/v2"}, imp), "%s imports %s", path, imp)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for path, p := range packages(t) {
		if path == "internal" || strings.HasSuffix(p.Name, "_test") {
			continue
		}
		require.NotEmpty(t, p.Doc, "package %s has no doc", path)
	}
}
