package jobs_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/jobs"
)

const full = `apiVersion: rota/v1
kind: Job
metadata:
  namespace: orders
  name: order-auto-cancel
  labels: {team: trade, tier: critical}
  description: Cancels unpaid orders.
  owner: trade-oncall
spec:
  enabled: true
  schedule:
    cron: "*/5 * * * *"
    timezone: Asia/Shanghai
    jitter: 0s
    exclude:
      - dates: 2026-11-10/2026-11-12
      - times: 23:30/00:30
    misfire: once
    misfire_within: 1h
    overlap: skip
  shards: 8
  run:
    handler: order.auto-cancel
    params: {batch: "500"}
    env: {LOG_LEVEL: info}
    secrets: {DB_DSN: {env: ORDERS_DSN}}
    warn_after: 1m
    timeout: 5m
    kill_grace: 10s
    retry: {attempts: 3, backoff: 5s, max_backoff: 1m}
    on_lost: rerun
    concurrency: 16
    order: key
  placement: {weight: 1, require: {zone: a}, prefer: [exec-1, pool=pay], only_preferred: false}
  emits: [order.cancelled]
  alerts: {start_within: 30s, consecutive_failures: 3, no_success_within: 1h, severity: critical}
`

func parseOne(t *testing.T, text string) jobs.Job {
	t.Helper()
	docs, err := jobs.Parse("job.yaml", []byte(text))
	require.NoError(t, err)
	require.Len(t, docs.Jobs, 1)
	return docs.Jobs[0]
}

func minimal(lines string) string {
	return "apiVersion: rota/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  run: {shell: \"true\"}\n" + lines
}

func TestEveryFieldOfTheContractIsReadAndWrittenBack(t *testing.T) {
	j := parseOne(t, full)
	require.Equal(t, 8, j.Spec.Shards.Count)
	require.Equal(t, "exec-1", j.Spec.Placement.Prefer[0])
	require.Equal(t, jobs.Duration(5*time.Minute), j.Spec.Run.Timeout)
	b, err := j.YAML()
	require.NoError(t, err)
	again := parseOne(t, string(b))
	require.True(t, j.SameIntent(&again), "%s", b)
	raw, err := json.Marshal(&j)
	require.NoError(t, err)
	fromJSON := parseOne(t, string(raw))
	require.True(t, j.SameIntent(&fromJSON), "JSON is YAML too")
}

func TestShardsComeInThreeForms(t *testing.T) {
	require.Equal(t, jobs.Shards{Count: 1}, parseOne(t, minimal("")).Spec.Shards)
	require.Equal(t, jobs.Shards{Count: 2, Params: []string{"db0", "db1"}}, parseOne(t, minimal("  shards: [\"db0\", \"db1\"]\n")).Spec.Shards)
	require.Equal(t, jobs.Shards{PerExecutor: true}, parseOne(t, minimal("  shards: per-executor\n")).Spec.Shards)
}

func TestSeveralDocumentsAndKindsStandInOneFile(t *testing.T) {
	docs, err := jobs.Parse("f", []byte("# comment\n---\napiVersion: rota/v1\nkind: Namespace\nmetadata: {name: pay}\n---\n"+minimal("")+"---\n"+strings.Replace(minimal(""), "name: j", "name: k", 1)))
	require.NoError(t, err)
	require.Len(t, docs.Jobs, 2)
	require.Len(t, docs.Namespaces, 1)
}

// I1, I4: every mistake has its place and says what to do.
func TestMistakesAreReportedWithTheirPlace(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", minimal("  shedule: {every: 5s}\n"), `f:6:3: spec: unknown field "shedule"; did you mean "schedule"?`},
		{"unknown nested", minimal("  schedule: {evry: 5s}\n"), `f:6:14: spec.schedule: unknown field "evry"; did you mean "every"?`},
		{"unknown at the top", minimal("") + "sepc: 1\n", `unknown field "sepc"; did you mean "spec"?`},
		{"second document", minimal("") + "---\n" + minimal("  shards: 0\n"), "f:12:11: spec.shards: 0 is out of range"},
		{"cron", minimal("  schedule: {cron: \"0 0 30 2 *\"}\n"), "f:6:20: spec.schedule.cron: cron \"0 0 30 2 *\": matches no date"},
		{"zone", minimal("  schedule: {every: 5s, timezone: Mars/Olympus}\n"), "spec.schedule.timezone: unknown time zone"},
		{"two schedules", minimal("  schedule: {every: 5s, cron: \"* * * * *\"}\n"), "exactly one of cron, every, at"},
		{"no unit", minimal("  schedule: {every: 5}\n"), "write a unit"},
		{"negative duration", minimal("  schedule: {every: -5s}\n"), "must be between"},
		{"huge duration", minimal("  schedule: {every: 1000000h}\n"), "must be between"},
		{"enum", minimal("  schedule: {every: 5s, misfire: al}\n"), `"al" is not one of once, all, none; did you mean "all"?`},
		{"NO is no bool", minimal("  enabled: NO\n"), "f:6:12"},
		{"shards 1e9", minimal("  shards: 1000000000\n"), "out of range"},
		{"shards negative", minimal("  shards: -1\n"), "out of range"},
		{"shards word", minimal("  shards: many\n"), "neither a number"},
		{"shards empty list", minimal("  shards: []\n"), "empty"},
		{"shards 1e400", minimal("  shards: 1e400\n"), "f:"},
		{"name", strings.Replace(minimal(""), "name: j", "name: ../etc", 1), "f:3:18: metadata.name: \"../etc\" is not a valid name"},
		{"name with slash", strings.Replace(minimal(""), "name: j", "name: a/b", 1), "not a valid name"},
		{"empty name", strings.Replace(minimal(""), "name: j", "name: ''", 1), "metadata.name: is required"},
		{"long name", strings.Replace(minimal(""), "name: j", "name: "+strings.Repeat("x", 300), 1), "300 characters long"},
		{"reserved namespace", strings.Replace(minimal(""), "name: j", "name: j, namespace: scheduler", 1), "reserved"},
		{"two targets", minimal("") + "", ""},
		{"two triggers", minimal("  after: [a]\n  schedule: {every: 5s}\n"), "a job has one trigger"},
		{"after itself", minimal("  after: [j]\n"), "cannot run after itself"},
		{"duplicate key", minimal("  shards: 1\n  shards: 2\n"), "already defined"},
		{"tab", "apiVersion: rota/v1\n\tkind: Job\n", "f:2:1: a tab cannot indent YAML"},
		{"tag", minimal("  shards: !!binary aGk=\n"), "tags such as !!binary are not supported"},
		{"NUL", "apiVersion: rota/v1\x00", "NUL"},
		{"not UTF-8", "apiVersion: \xff", "UTF-8"},
		{"kind", strings.Replace(minimal(""), "kind: Job", "kind: Pod", 1), `"Pod" is not supported`},
		{"empty", "# nothing\n", "holds no document"},
		{"warn after timeout", "apiVersion: rota/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  run: {shell: x, timeout: 5s, warn_after: 6s}\n", "would never warn"},
		{"reserved env", "apiVersion: rota/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  run: {shell: x, env: {ROTA_TICK: y}}\n", "set by Rota"},
		{"window", minimal("  schedule: {every: 5s, exclude: [{times: 25:00/26:00}]}\n"), "write 23:30/00:30"},
		{"struct expected", minimal("  schedule: every 5s\n"), "fields are expected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" {
				return
			}
			_, err := jobs.Parse("f", []byte(c.text))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestAllMistakesAreReportedTogether(t *testing.T) {
	_, err := jobs.Parse("f", []byte(minimal("  shards: 0\n  schedule: {every: 1ns, misfire: never}\n  placement: {weight: -1}\n")))
	var errs jobs.FieldErrors
	require.ErrorAs(t, err, &errs)
	require.Len(t, errs, 4, "%v", err)
}

// I1: hostile documents are refused quickly.
func TestHostileDocumentsAreRefusedQuickly(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'k'; i++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", i-1), 9), ","))
	}
	for name, text := range map[string]string{
		"bomb":        bomb,
		"deep flow":   strings.Repeat("[", 10_000),
		"deep maps":   strings.Repeat("{a: ", 10_000),
		"deep dashes": strings.Repeat("- ", 10_000) + "x",
		"deep indent": func() string {
			var b strings.Builder
			for i := range 2000 {
				b.WriteString(strings.Repeat(" ", i) + "a:\n")
			}
			return b.String()
		}(),
		"huge":          strings.Repeat("a", 100<<20),
		"huge document": "a: " + strings.Repeat("b", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := jobs.Parse("f", []byte(text))
			require.Error(t, err)
			require.Less(t, time.Since(start), 3*time.Second)
		})
	}
}

func TestByteOrderMarksAndCarriageReturnsDoNotMatter(t *testing.T) {
	parseOne(t, "\xef\xbb\xbf"+strings.ReplaceAll(minimal("  shards: 3\n"), "\n", "\r\n"))
}

// I3
func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(minimal("  shards: [a, b]\n")))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Add([]byte("<<: *x\nspec: |\n  - x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		hang := time.AfterFunc(5*time.Second, func() { panic(fmt.Sprintf("hangs on %q", b)) })
		defer hang.Stop()
		docs, err := jobs.Parse("f", b)
		if err != nil {
			return
		}
		for _, j := range docs.Jobs {
			_, err := j.Timeline()
			require.NoError(t, err, "what is valid can be compiled")
			out, err := j.YAML()
			require.NoError(t, err)
			again, err := jobs.Parse("f", out)
			require.NoError(t, err, "what was written can be read: %s", out)
			require.True(t, j.SameIntent(&again.Jobs[0]))
		}
	})
}

func TestTheSchemaAcceptsWhatIsValidAndNothingElse(t *testing.T) {
	b, err := jobs.Schema()
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("job.json", doc))
	s, err := c.Compile("job.json")
	require.NoError(t, err)
	j := parseOne(t, full)
	raw, err := json.Marshal(&j)
	require.NoError(t, err)
	var v any
	require.NoError(t, json.Unmarshal(raw, &v))
	require.NoError(t, s.Validate(v))
	v.(map[string]any)["spec"].(map[string]any)["shedule"] = 1
	require.Error(t, s.Validate(v))
}

// I5
func TestCyclesAreFoundAndDiamondsAreNone(t *testing.T) {
	require.Nil(t, jobs.Cycle(map[string][]string{"d": {"b", "c"}, "b": {"a"}, "c": {"a"}}))
	require.Equal(t, []string{"a", "b", "c", "a"}, jobs.Cycle(map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}))
}
