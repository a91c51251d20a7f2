package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/console/api"
)

// exit runs a client verb and returns its exit code with both outputs.
func (c *cluster) exit(args ...string) (code int, out, errs string) {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "ROTA_SERVER=http://"+c.listen)
	var o, e strings.Builder
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		code = ee.ExitCode()
	} else {
		require.NoError(c.t, err)
	}
	return code, o.String(), e.String()
}

const cliJobs = `
apiVersion: rota/v1
kind: Job
metadata: {name: hello, labels: {team: trade}}
spec:
  schedule: {every: 1s}
  shards: [east, west]
  run:
    shell: |
      echo "hello $ROTA_SHARD_PARAM $ROTA_SHARD/$ROTA_SHARDS $ROTA_TRIGGER $ROTA_PARAM_DATE"
      echo '{"message":"greeted","data":{"n":1}}' > "$ROTA_RESULT_FILE"
---
apiVersion: rota/v1
kind: Job
metadata: {name: report}
spec:
  after: [hello]
  run: {shell: "echo report"}
---
apiVersion: rota/v1
kind: Job
metadata: {name: by-hand}
spec:
  run: {shell: "echo started; exec sleep 60", timeout: 30s, kill_grace: 200ms}
`

func TestTheClientVerbs(t *testing.T) {
	c := newCluster(t)
	file := c.write("jobs.yaml", cliJobs)
	ok := func(args ...string) string {
		t.Helper()
		code, out, errs := c.exit(args...)
		require.Zero(t, code, "rota %s: %s", strings.Join(args, " "), errs)
		return out
	}
	fails := func(want int, part string, args ...string) {
		t.Helper()
		code, out, errs := c.exit(args...)
		require.Equal(t, want, code, "rota %s: %s%s", strings.Join(args, " "), out, errs)
		require.Contains(t, errs, part)
	}

	// Definitions.
	ok("validate", "-f", file)
	code, out, _ := c.exit("diff", "-f", file)
	require.Equal(t, 1, code)
	require.Contains(t, out, "+    - east")
	require.Contains(t, ok("apply", "-f", file, "--dry-run"), "created (dry run)")
	require.Contains(t, ok("apply", "-f", file), "job default/hello created")
	require.Contains(t, ok("apply", "-f", file), "job default/hello unchanged")
	require.Empty(t, ok("diff", "-f", file))
	bad := c.write("bad.yaml", strings.Replace(cliJobs, "every: 1s", "evry: 1s", 1))
	fails(1, `bad.yaml:6:14: spec.schedule: unknown field "evry"; did you mean "every"?`, "apply", "-f", bad)
	fails(1, "", "validate", "-f", bad)
	fails(2, "", "diff", "-f", bad)
	cyclic := c.write("cyclic.yaml", strings.Replace(cliJobs, "  schedule: {every: 1s}\n", "  after: [report]\n", 1))
	fails(1, "cycle", "apply", "-f", cyclic)
	fails(2, "--nope", "get", "jobs", "--nope")
	fails(2, "", "get", "job")
	fails(2, "unknown command", "gett")
	fails(3, "not found", "get", "job", "nope")
	fails(1, "no server answers", "get", "jobs", "--server", "http://127.0.0.1:1")
	past := c.write("past.yaml", "apiVersion: rota/v1\nkind: Job\nmetadata: {name: past}\nspec:\n  schedule: {at: 2020-01-01T00:00:00Z}\n  run: {shell: x}\n")
	fails(1, "has passed", "apply", "-f", past)
	events := c.write("on.yaml", "apiVersion: rota/v1\nkind: Job\nmetadata: {name: e}\nspec:\n  on: [a.b]\n  run: {shell: x}\n")
	fails(1, "does not deliver events yet", "apply", "-f", events)

	// Nobody can run it: explain says so.
	require.Contains(t, ok("explain", "hello"), "no executor is present")
	c.executor("x1", "--label", "zone=a")
	c.eventually(20*time.Second, "hello runs", func() bool {
		var runs api.List[api.Run]
		require.NoError(t, json.Unmarshal([]byte(ok("get", "runs", "--job", "hello", "--status", "succeeded", "-o", "json")), &runs))
		return len(runs.Items) == 2
	})
	require.Contains(t, ok("explain", "hello", "--shard", "1"), "nothing stands in its way")
	require.Contains(t, ok("get", "executors"), "x1")
	require.Contains(t, ok("get", "jobs"), "every 1s")
	require.Contains(t, ok("get", "jobs", "-l", "team=trade"), "hello")
	require.NotContains(t, ok("get", "jobs", "-l", "team=other"), "hello")
	require.Contains(t, ok("get", "namespaces"), "default")
	require.Contains(t, ok("next", "hello", "-n", "3"), "UTC")
	c.eventually(20*time.Second, "report runs after hello", func() bool {
		return strings.Contains(ok("get", "runs", "--job", "report"), "upstream")
	})

	// A run by hand, with parameters, for one shard.
	var list api.List[api.Run]
	require.NoError(t, json.Unmarshal([]byte(ok("run", "hello", "--shard", "1", "--param", "date=today; echo pwned", "--wait", "-o", "json")), &list))
	require.Len(t, list.Items, 1)
	r := list.Items[0]
	require.Equal(t, "succeeded", r.Phase)
	require.Equal(t, "greeted", r.Message)
	require.JSONEq(t, `{"n":1}`, string(r.Result))
	require.Equal(t, 0, *r.ExitCode)
	require.Positive(t, r.Token)
	fails(1, "no shard 7", "run", "hello", "--shard", "7")
	fails(2, "key=value", "run", "hello", "--param", "x")

	// Stopping one; disabling; logs; rerun.
	require.Contains(t, ok("run", "by-hand"), "by-hand_")
	var run api.Run
	c.eventually(10*time.Second, "it runs", func() bool {
		require.NoError(t, json.Unmarshal([]byte(ok("get", "runs", "--job", "by-hand", "-o", "json")), &list))
		if len(list.Items) == 0 {
			return false
		}
		run = list.Items[0]
		return run.Phase == "running"
	})
	require.Contains(t, ok("stop", run.ID, "--reason", "enough"), run.ID)
	c.eventually(10*time.Second, "it is stopped", func() bool {
		require.NoError(t, json.Unmarshal([]byte(ok("get", "run", run.ID, "-o", "json")), &run))
		return run.Phase == "stopped"
	})
	require.Equal(t, "started\n", ok("logs", run.ID))
	fails(4, "has ended", "stop", run.ID)
	require.Contains(t, ok("rerun", run.ID), "rerun")
	require.Contains(t, ok("stop", "by-hand"), "stop")
	ok("disable", "hello", "--reason", "maintenance")
	fails(2, "reason", "disable", "hello")
	require.Contains(t, ok("explain", "hello"), "the job is disabled: maintenance")
	require.Contains(t, ok("get", "job", "hello", "-o", "yaml"), "enabled: false")
	ok("enable", "hello")
	tick := time.Now().Add(3 * time.Second).Truncate(time.Second).UTC().Format(time.RFC3339)
	ok("wait", "hello", "--tick", tick)
	fails(124, "has not ended", "wait", "hello", "--tick", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "--timeout", "500ms")
	require.Contains(t, ok("explain", "hello", "--at", tick), "was due at")

	// Draining.
	require.Contains(t, ok("drain", "x1", "--wait", "--reason", "upgrade"), "0 shards")
	require.Contains(t, ok("explain", "hello"), "is drained: upgrade")
	require.Contains(t, ok("resume", "x1"), "ready")
	fails(3, "not found", "drain", "nobody")

	// The rest.
	var schema map[string]any
	require.NoError(t, json.Unmarshal([]byte(ok("schema")), &schema))
	require.Contains(t, ok("version"), "rota ")
	require.Contains(t, ok("completion", "bash"), "bash completion")
	one := c.write("one.yaml", strings.SplitN(cliJobs, "---", 2)[0])
	require.Contains(t, ok("apply", "-f", one, "--prune", "--dry-run"), "report deleted (dry run)")
	require.Contains(t, ok("apply", "-f", one, "--prune"), "report deleted")
	require.Contains(t, ok("delete", "hello"), "deleted")
	fails(3, "not found", "get", "job", "hello")

	// HTTP: conditions, problems, probes.
	base := "http://" + c.listen
	call := func(method, path string, body string, header ...string) (*http.Response, api.Problem) {
		req, err := http.NewRequest(method, base+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/yaml")
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		var p api.Problem
		_ = json.NewDecoder(resp.Body).Decode(&p)
		return resp, p
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/version", "/openapi.json"} {
		resp, _ := call("GET", path, "")
		require.Equal(t, 200, resp.StatusCode, path)
	}
	def := "apiVersion: rota/v1\nkind: Job\nmetadata: {name: h}\nspec: {run: {shell: x}}\n"
	resp, _ := call("PUT", "/api/v1/namespaces/default/jobs/h", def, "If-None-Match", "*")
	require.Equal(t, 200, resp.StatusCode)
	tag := resp.Header.Get("ETag")
	resp, p := call("PUT", "/api/v1/namespaces/default/jobs/h", def, "If-None-Match", "*")
	require.Equal(t, 412, resp.StatusCode)
	require.Equal(t, "precondition_failed", p.Code)
	require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
	resp, _ = call("PUT", "/api/v1/namespaces/default/jobs/h", strings.Replace(def, "shell: x", "shell: y", 1), "If-Match", tag)
	require.Equal(t, 200, resp.StatusCode)
	resp, _ = call("DELETE", "/api/v1/namespaces/default/jobs/h", "", "If-Match", tag)
	require.Equal(t, 412, resp.StatusCode)
	resp, p = call("PUT", "/api/v1/namespaces/default/jobs/h", "spec: [")
	require.Equal(t, 422, resp.StatusCode)
	require.Equal(t, "invalid", p.Code)
	resp, p = call("PUT", "/api/v1/namespaces/default/jobs/other", def)
	require.Equal(t, 422, resp.StatusCode)
	require.Contains(t, p.Errors[0].Message, "the path says")
	resp, p = call("GET", "/api/v1/namespaces/default/jobs/nope", "")
	require.Equal(t, 404, resp.StatusCode)
	require.Equal(t, "not_found", p.Code)
	resp, _ = call("GET", "/api/v1/nope", "")
	require.Equal(t, 404, resp.StatusCode)
	resp, _ = call("POST", "/api/v1/namespaces/default/jobs/h/run", "{}", "Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site", "Content-Type", "application/json")
	require.Equal(t, 403, resp.StatusCode)
	resp, _ = call("PUT", "/api/v1/namespaces/default/jobs/h", strings.Repeat("a", 9<<20))
	require.Contains(t, []int{413, 422, 400}, resp.StatusCode)

	// Refused outside loopback while there is no access control.
	code, _, errs := c.exit("server", "--etcd", "http://"+c.etcdAddr, "--listen", "0.0.0.0:0")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "refusing to listen")
}

// X15: what runs ends, what is idle is handed over at once, nothing is lost.
func TestSIGTERMDrainsCleanly(t *testing.T) {
	c := newCluster(t)
	out := filepath.Join(c.dir, "out")
	c.executor("x1")
	c.rota("apply", "-f", c.write("j.yaml", fmt.Sprintf(`
apiVersion: rota/v1
kind: Job
metadata: {name: long}
spec:
  schedule: {every: 2s, misfire: all}
  run: {shell: "echo start $ROTA_TICK_MS $ROTA_EXECUTOR >> %[1]s; sleep 1.2; echo end $ROTA_TICK_MS $ROTA_EXECUTOR >> %[1]s"}
`, out)))
	lines := func() []string {
		b, _ := os.ReadFile(out)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	c.eventually(20*time.Second, "a run is going", func() bool { l := lines(); return strings.HasPrefix(l[len(l)-1], "start") })
	c.executor("x2")
	c.eventually(20*time.Second, "x2 is there", func() bool { return strings.Contains(c.rota("get", "executors"), "x2") })
	c.eventually(20*time.Second, "a run is going", func() bool { l := lines(); return strings.HasPrefix(l[len(l)-1], "start") })
	c.executors["x1"].signal(syscall.SIGTERM)
	require.NoError(t, c.executors["x1"].waitExit(15*time.Second))
	n := len(lines())
	c.eventually(15*time.Second, "x2 goes on", func() bool { return len(lines()) >= n+4 })
	open := ""
	last := int64(0)
	for _, l := range lines() {
		f := strings.Fields(l)
		if f[0] == "start" {
			require.Empty(t, open, "no overlap")
			open = f[1]
			var tick int64
			_, err := fmt.Sscan(f[1], &tick)
			require.NoError(t, err)
			if last > 0 {
				require.Equal(t, last+2000, tick, "no tick is lost")
			}
			last = tick
		} else {
			require.Equal(t, open, f[1], "every run ended by itself")
			open = ""
		}
	}
}

// The demo, killed half-way and started again, ends in the same numbers.
func TestTheDemoSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	orders := filepath.Join(dir, "orders.csv")
	var b strings.Builder
	b.WriteString("order_id,placed_at,paid_at\n")
	paid, cancelled := 0, 0
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3000 {
		placed := at.Add(time.Duration(i) * time.Minute)
		when := ""
		switch i % 7 {
		case 0, 1, 2:
			when, paid = placed.Add(time.Duration(i%30)*time.Minute).Format(time.RFC3339), paid+1
		case 3:
			when, paid = placed.Add(30*time.Minute).Format(time.RFC3339), paid+1 // exactly in time
		case 4:
			when, cancelled = placed.Add(30*time.Minute+time.Second).Format(time.RFC3339), cancelled+1
		default:
			cancelled++
		}
		fmt.Fprintf(&b, "o%d,%s,%s\n", i, placed.Format(time.RFC3339), when)
	}
	require.NoError(t, os.WriteFile(orders, []byte(b.String()), 0o600))
	args := []string{"demo", "--once", "-o", "json", "--orders", orders, "--data-dir", filepath.Join(dir, "data"), "--speed", "20000"}
	first := exec.Command(binary, args...)
	first.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, first.Start())
	time.Sleep(5 * time.Second) // half of the nine that it takes
	require.NoError(t, first.Process.Kill())
	_ = first.Wait()
	var errs strings.Builder
	second := exec.Command(binary, args...)
	second.Stderr = &errs
	out, err := second.Output()
	require.NoError(t, err, errs.String())
	require.Contains(t, errs.String(), "resuming")
	var got struct {
		Orders, Paid, Cancelled int
		Shards                  []struct{ Shard, Paid, Cancelled int }
	}
	require.NoError(t, json.Unmarshal(out, &got))
	require.Equal(t, 3000, got.Orders)
	require.Equal(t, paid, got.Paid)
	require.Equal(t, cancelled, got.Cancelled)
	require.Len(t, got.Shards, 8)
	for _, s := range got.Shards {
		paid, cancelled = paid-s.Paid, cancelled-s.Cancelled
	}
	require.Zero(t, paid)
	require.Zero(t, cancelled)
}
