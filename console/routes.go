package console

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/cron"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
)

type (
	// NSPath and the following are the parameters that routes share; huma needs them exported.
	NSPath struct {
		NS string `path:"ns" maxLength:"63"`
	}
	// JobPath names a job.
	JobPath struct {
		NSPath
		Job string `path:"job" maxLength:"63"`
	}
	// RunPath names a run.
	RunPath struct {
		NSPath
		ID string `path:"id" maxLength:"255"`
	}
	// Paging cuts lists.
	Paging struct {
		Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		PageToken string `query:"page_token" maxLength:"512"`
	}
	body[T any] struct{ Body T }
)

func (c *Console) register(h huma.API) {
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, MaxBodyBytes: maxBody, Errors: []int{404, 422, 503}}
	}
	const ns, job, run = "/api/v1/namespaces/{ns}", "/api/v1/namespaces/{ns}/jobs/{job}", "/api/v1/namespaces/{ns}/runs/{id}"

	huma.Register(h, op("version", "GET", "/version", "Version of the server"), func(context.Context, *struct{}) (*body[api.Version], error) {
		return &body[api.Version]{version(c.cfg.Version)}, nil
	})
	huma.Register(h, op("list-namespaces", "GET", "/api/v1/namespaces", "List namespaces"), func(ctx context.Context, in *Paging) (*body[api.List[api.Namespace]], error) {
		items, err := c.namespaces(ctx)
		return page(items, in, func(n api.Namespace) string { return n.Name }, err)
	})
	huma.Register(h, op("put-namespace", "PUT", ns, "Create or change a namespace"), c.putNamespace)
	huma.Register(h, op("get-namespace", "GET", ns, "One namespace"), func(ctx context.Context, in *NSPath) (*body[api.Namespace], error) {
		items, err := c.namespaces(ctx)
		for _, n := range items {
			if n.Name == in.NS {
				return &body[api.Namespace]{n}, nil
			}
		}
		return nil, fail(orNotFound(err, "namespace "+in.NS))
	})
	huma.Register(h, op("delete-namespace", "DELETE", ns, "Delete an empty namespace"), c.deleteNamespace)

	huma.Register(h, op("list-jobs", "GET", ns+"/jobs", "List jobs"), func(ctx context.Context, in *struct {
		NSPath
		Paging
		Query string   `query:"q" doc:"Part of the name." maxLength:"63"`
		Label []string `query:"label" doc:"key=value; all must match."`
	}) (*body[api.List[api.Job]], error) {
		items, err := c.listJobs(ctx, in.NS, in.Query, in.Label)
		return page(items, &in.Paging, func(j api.Job) string { return j.Name }, err)
	})
	put := op("put-job", "PUT", job, "Create or change a job; the body is YAML or JSON")
	put.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {}, "application/yaml": {}}}
	huma.Register(h, put, c.putJob)
	huma.Register(h, op("get-job", "GET", job, "A job's definition"), c.getJob)
	huma.Register(h, op("delete-job", "DELETE", job, "Delete a job"), c.deleteJob)
	huma.Register(h, op("run-job", "POST", job+"/run", "Run now"), c.runJob)
	huma.Register(h, op("stop-job", "POST", job+"/stop", "Stop what runs"), c.stopJob)
	huma.Register(h, op("enable-job", "POST", job+"/enable", "Put the schedule in force"), func(ctx context.Context, in *struct {
		JobPath
		Body *api.ReasonRequest
	}) (*body[api.Applied], error) {
		return c.setEnabled(ctx, in.JobPath, true, "")
	})
	huma.Register(h, op("disable-job", "POST", job+"/disable", "Suspend the schedule"), func(ctx context.Context, in *struct {
		JobPath
		Body *api.ReasonRequest
	}) (*body[api.Applied], error) {
		reason := ""
		if in.Body != nil {
			reason = in.Body.Reason
		}
		return c.setEnabled(ctx, in.JobPath, false, reason)
	})
	huma.Register(h, op("list-shards", "GET", job+"/shards", "State of each shard"), func(ctx context.Context, in *struct {
		JobPath
		Paging
	}) (*body[api.List[api.Shard]], error) {
		items, err := c.shards(ctx, in.JobPath)
		return page(items, &in.Paging, func(s api.Shard) string { return fmt.Sprintf("%06d", s.Shard) }, err)
	})
	huma.Register(h, op("next-ticks", "GET", job+"/next", "The ticks to come"), c.next)
	huma.Register(h, op("explain", "GET", job+"/explain", "Why it did not run, where it runs"), c.explain)

	huma.Register(h, op("list-runs", "GET", ns+"/runs", "Current and last run of each shard"), c.listRuns)
	huma.Register(h, op("get-run", "GET", run, "One run"), func(ctx context.Context, in *RunPath) (*body[api.Run], error) {
		_, r, err := c.findRun(ctx, in.NS, in.ID)
		if err != nil {
			return nil, fail(err)
		}
		return &body[api.Run]{r}, nil
	})
	huma.Register(h, op("get-run-log", "GET", run+"/log", "Output of a run"), c.runLog)
	huma.Register(h, op("stop-run", "POST", run+"/stop", "Stop one run"), c.stopRun)
	huma.Register(h, op("rerun", "POST", run+"/rerun", "Run the same shard for the same tick again"), c.rerun)

	huma.Register(h, op("list-executors", "GET", ns+"/executors", "List executors"), func(ctx context.Context, in *struct {
		NSPath
		Paging
	}) (*body[api.List[api.Executor]], error) {
		items, err := c.executors(ctx, in.NS)
		return page(items, &in.Paging, func(x api.Executor) string { return x.ID }, err)
	})
	huma.Register(h, op("drain-executor", "POST", ns+"/executors/{id}/drain", "Move an executor's shards away and keep them away"), c.drain)
	huma.Register(h, op("resume-executor", "POST", ns+"/executors/{id}/resume", "Let a drained executor take shards again"), c.resume)
}

func orNotFound(err error, what string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", what, store.ErrNotFound)
}

// page cuts a list sorted by key. The token is the last key served.
func page[T any](items []T, in *Paging, key func(T) string, err error) (*body[api.List[T]], error) {
	if err != nil {
		return nil, fail(err)
	}
	out := api.List[T]{Items: []T{}}
	for _, it := range items {
		if in.PageToken != "" && key(it) <= in.PageToken {
			continue
		}
		if len(out.Items) == in.Limit {
			out.NextPageToken = key(out.Items[in.Limit-1])
			break
		}
		out.Items = append(out.Items, it)
	}
	return &body[api.List[T]]{out}, nil
}

func (c *Console) namespaces(ctx context.Context) ([]api.Namespace, error) {
	items, err := c.cfg.Store.ReadNamespaces(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Namespace, 0, len(items))
	for _, it := range items {
		n := api.Namespace{Name: it.Name, Description: it.Namespace.Metadata.Description, Labels: it.Namespace.Metadata.Labels}
		js, err := c.cfg.Store.ReadJobs(ctx, it.Name)
		if err != nil {
			return nil, err
		}
		xs, err := c.cfg.Store.ReadExecutors(ctx, it.Name)
		if err != nil {
			return nil, err
		}
		n.Jobs, n.Executors = len(js), len(xs)
		out = append(out, n)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func (c *Console) putNamespace(ctx context.Context, in *struct {
	NSPath
	Body *struct {
		Description string            `json:"description,omitempty" maxLength:"4096"`
		Labels      map[string]string `json:"labels,omitempty"`
	}
}) (*body[api.Namespace], error) {
	if msg := jobs.ValidNamespace(in.NS); msg != "" {
		return nil, fail(jobs.FieldErrors{{Path: "metadata.name", Message: msg}})
	}
	ns := jobs.Namespace{APIVersion: jobs.APIVersion, Kind: "Namespace", Metadata: jobs.Metadata{Name: in.NS}}
	if in.Body != nil {
		ns.Metadata.Description, ns.Metadata.Labels = in.Body.Description, in.Body.Labels
	}
	if err := c.cfg.Store.PutNamespace(ctx, ns); err != nil {
		return nil, fail(err)
	}
	return &body[api.Namespace]{api.Namespace{Name: in.NS, Description: ns.Metadata.Description, Labels: ns.Metadata.Labels}}, nil
}

func (c *Console) deleteNamespace(ctx context.Context, in *NSPath) (*struct{}, error) {
	js, err := c.cfg.Store.ReadJobs(ctx, in.NS)
	if err != nil {
		return nil, fail(err)
	}
	if len(js) > 0 {
		return nil, problem(409, "conflict", fmt.Sprintf("namespace %s still has %d jobs", in.NS, len(js)), "Delete them first.")
	}
	return nil, fail(c.cfg.Store.DeleteNamespace(ctx, in.NS))
}

func (c *Console) listJobs(ctx context.Context, ns, query string, labels []string) ([]api.Job, error) {
	v, err := c.cfg.Store.ReadView(ctx, ns)
	if err != nil {
		return nil, err
	}
	owners := v.Owners(ns)
	now := time.Now().UnixMilli()
	out := []api.Job{}
	for k, it := range v.Jobs {
		if !strings.Contains(k.Name, query) || !matches(it.Job.Metadata.Labels, labels) {
			continue
		}
		out = append(out, summary(it, len(owners[k]), now))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func matches(have map[string]string, want []string) bool {
	for _, w := range want {
		k, v, _ := strings.Cut(w, "=")
		if have[k] != v {
			return false
		}
	}
	return true
}

func summary(it store.JobItem, owned int, now int64) api.Job {
	j := it.Job
	out := api.Job{
		Namespace: it.Namespace, Name: it.Name, Enabled: j.Enabled(), Reason: j.Spec.DisabledReason, Trigger: trigger(j),
		Kind: j.Spec.Run.Kind(), Shards: j.Spec.Shards.Count, Owned: owned, Labels: j.Metadata.Labels, Description: j.Metadata.Description,
		Owner: j.Metadata.Owner, Version: it.Mod, UID: it.UID,
	}
	if j.Spec.Shards.PerExecutor {
		out.Shards = "per-executor"
	}
	if s := j.Spec.Schedule; s != nil {
		out.Timezone = s.Timezone
	}
	if tl, err := j.Timeline(); err == nil {
		if t, ok := tl.Next(now); ok && !t.Superseded {
			out.NextTick = api.MS(t.At)
		}
	}
	return out
}

// trigger is what starts a job, in a few words.
func trigger(j *jobs.Job) string {
	switch s := j.Spec.Schedule; {
	case s != nil && s.Cron != "":
		return s.Cron
	case s != nil && s.Every > 0:
		return "every " + s.Every.String()
	case s != nil && s.At != nil:
		return "at " + s.At.Format(time.RFC3339)
	case len(j.Spec.After) > 0:
		return "after " + strings.Join(j.Spec.After, ", ")
	case len(j.Spec.On) > 0:
		return "on " + strings.Join(j.Spec.On, ", ")
	case j.Spec.Timeout != nil:
		return "timeout of " + j.Spec.Timeout.Start
	}
	return "by hand"
}

type jobOut struct {
	ETag         string `header:"ETag"`
	CacheControl string `header:"Cache-Control"`
	Body         json.RawMessage
}

func (c *Console) getJob(ctx context.Context, in *JobPath) (*jobOut, error) {
	it, err := c.cfg.Store.ReadJob(ctx, store.JobKey{Namespace: in.NS, Name: in.Job})
	if err != nil {
		return nil, fail(err)
	}
	b, err := json.Marshal(it.Job)
	return &jobOut{ETag: etag(it.Mod), CacheControl: "no-cache", Body: b}, fail(err)
}

func etag(mod int64) string { return `"` + strconv.FormatInt(mod, 10) + `"` }

// precondition checks If-Match and If-None-Match against the current revision (0: absent).
func precondition(ifMatch, ifNone string, mod int64) error {
	if ifMatch != "" && (mod == 0 || ifMatch != "*" && ifMatch != etag(mod)) {
		return problem(412, "precondition_failed", fmt.Sprintf("the definition is at version %d, not at %s", mod, ifMatch), "Somebody changed it meanwhile: read it again.")
	}
	if ifNone == "*" && mod != 0 {
		return problem(412, "precondition_failed", "the job exists already", "")
	}
	return nil
}

func (c *Console) putJob(ctx context.Context, in *struct {
	JobPath
	IfMatch     string `header:"If-Match"`
	IfNoneMatch string `header:"If-None-Match"`
	DryRun      bool   `query:"dry_run"`
	RawBody     []byte
}) (*struct {
	ETag string `header:"ETag"`
	Body api.Applied
}, error) {
	docs, err := jobs.Parse("", in.RawBody)
	if err != nil {
		return nil, fail(err)
	}
	if len(docs.Jobs) != 1 {
		return nil, fail(jobs.FieldErrors{{Path: "kind", Message: "one Job is expected"}})
	}
	j := docs.Jobs[0]
	if j.Metadata.Namespace == "" {
		j.Metadata.Namespace = in.NS
	}
	if j.Metadata.Namespace != in.NS || j.Metadata.Name != in.Job {
		return nil, fail(jobs.FieldErrors{{Path: "metadata", Message: fmt.Sprintf("the document is %s/%s, the path says %s/%s", j.Metadata.Namespace, j.Metadata.Name, in.NS, in.Job)}})
	}
	if err := c.supported(ctx, &j); err != nil {
		return nil, fail(err)
	}
	out := &struct {
		ETag string `header:"ETag"`
		Body api.Applied
	}{Body: api.Applied{Namespace: in.NS, Name: in.Job, DryRun: in.DryRun}}
	for try := 0; ; try++ {
		cur, err := c.cfg.Store.ReadJob(ctx, store.JobKey{Namespace: in.NS, Name: in.Job})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, fail(err)
		}
		if err := precondition(in.IfMatch, in.IfNoneMatch, cur.Mod); err != nil {
			return nil, err
		}
		out.Body.Result, out.Body.Version = "created", cur.Mod
		if cur.Job != nil {
			out.Body.Result = "updated"
			if cur.Job.SameIntent(&j) {
				out.Body.Result = "unchanged"
			}
		}
		if err := notPast(&j, cur.Job); err != nil {
			return nil, fail(err)
		}
		if in.DryRun || out.Body.Result == "unchanged" {
			out.ETag = etag(cur.Mod)
			return out, nil
		}
		if err := c.cfg.Store.EnsureNamespace(ctx, in.NS); err != nil {
			return nil, fail(err)
		}
		j.Stamp(cur.Job, time.Now())
		mod, err := c.cfg.Store.PutJob(ctx, &j, cur.Mod)
		if errors.Is(err, store.ErrConflict) && in.IfMatch == "" && try < 5 {
			continue
		}
		if err != nil {
			return nil, fail(err)
		}
		c.cfg.Log.Info("definition written", "namespace", in.NS, "job", in.Job, "result", out.Body.Result, "version", mod)
		out.Body.Version, out.ETag = mod, etag(mod)
		return out, nil
	}
}

// notPast refuses a new one-shot whose instant has passed: it would never run.
func notPast(j, cur *jobs.Job) error {
	s := j.Spec.Schedule
	if s == nil || s.At == nil || s.At.After(time.Now()) {
		return nil
	}
	if cur != nil && cur.Spec.Schedule != nil && cur.Spec.Schedule.At != nil && cur.Spec.Schedule.At.Equal(*s.At) {
		return nil
	}
	return jobs.FieldErrors{{Path: "spec.schedule.at", Message: s.At.Format(time.RFC3339) + " has passed: the job would never run"}}
}

// supported refuses what this version cannot do, and cycles.
func (c *Console) supported(ctx context.Context, j *jobs.Job) error {
	if len(j.Spec.On) > 0 || j.Spec.Timeout != nil {
		return problem(422, "unsupported", "this version does not deliver events yet: on and timeout cannot be used", "")
	}
	if j.Spec.Run.HTTP != nil {
		return problem(422, "unsupported", "this version does not call webhooks yet: use run.handler or run.shell", "")
	}
	if len(j.Spec.After) == 0 {
		return nil
	}
	all, err := c.cfg.Store.ReadJobs(ctx, j.Metadata.Namespace)
	if err != nil {
		return err
	}
	after := map[string][]string{j.Metadata.Name: j.Spec.After}
	for _, o := range all {
		if o.Name != j.Metadata.Name {
			after[o.Name] = o.Job.Spec.After
		}
		if slices.Contains(j.Spec.After, o.Name) && o.Job.Spec.Shards.PerExecutor {
			return jobs.FieldErrors{{Path: "spec.after", Message: fmt.Sprintf("%s runs per executor: the number of its shards varies, so it has no end to wait for", o.Name)}}
		}
	}
	if cycle := jobs.Cycle(after); cycle != nil {
		return jobs.FieldErrors{{Path: "spec.after", Message: "cycle: " + strings.Join(cycle, " -> ")}}
	}
	return nil
}

func (c *Console) deleteJob(ctx context.Context, in *struct {
	JobPath
	IfMatch string `header:"If-Match"`
}) (*body[api.Applied], error) {
	k := store.JobKey{Namespace: in.NS, Name: in.Job}
	it, err := c.cfg.Store.ReadJob(ctx, k)
	if err != nil {
		return nil, fail(err)
	}
	if err := precondition(in.IfMatch, "", it.Mod); err != nil {
		return nil, err
	}
	if err := c.cfg.Store.DeleteJob(ctx, k, it.Mod); err != nil {
		return nil, fail(err)
	}
	c.cfg.Log.Info("definition deleted", "namespace", in.NS, "job", in.Job)
	return &body[api.Applied]{api.Applied{Namespace: in.NS, Name: in.Job, Result: "deleted", Version: it.Mod}}, nil
}

func (c *Console) setEnabled(ctx context.Context, p JobPath, on bool, reason string) (*body[api.Applied], error) {
	k := store.JobKey{Namespace: p.NS, Name: p.Job}
	for try := 0; ; try++ {
		it, err := c.cfg.Store.ReadJob(ctx, k)
		if err != nil {
			return nil, fail(err)
		}
		out := api.Applied{Namespace: p.NS, Name: p.Job, Result: "unchanged", Version: it.Mod}
		if it.Job.Enabled() == on && it.Job.Spec.DisabledReason == reason {
			return &body[api.Applied]{out}, nil
		}
		j := *it.Job
		j.Spec.Enabled, j.Spec.DisabledReason = &on, reason
		j.Stamp(it.Job, time.Now())
		mod, err := c.cfg.Store.PutJob(ctx, &j, it.Mod)
		if errors.Is(err, store.ErrConflict) && try < 5 {
			continue
		}
		if err != nil {
			return nil, fail(err)
		}
		out.Result, out.Version = "updated", mod
		c.cfg.Log.Info("schedule switched", "namespace", p.NS, "job", p.Job, "enabled", on, "reason", reason)
		return &body[api.Applied]{out}, nil
	}
}

// commandID takes the client's idempotency key, so that a repeated request is one command.
func commandID(key string) (string, error) {
	if key == "" {
		return strings.ToLower(rand.Text()[:16]), nil
	}
	if !store.ValidID(key) || len(key) > 64 {
		return "", problem(422, "invalid", "Idempotency-Key: use at most 64 letters, digits, '-', '_' and '.'", "")
	}
	return key, nil
}

// numbers checks the requested shards against those that exist.
func (c *Console) numbers(ctx context.Context, it store.JobItem, asked []int) ([]int, error) {
	all := []int{}
	if it.Job.Spec.Shards.PerExecutor {
		v, err := c.cfg.Store.ReadView(ctx, it.Namespace)
		if err != nil {
			return nil, err
		}
		for n := range v.Owners(it.Namespace)[it.JobKey] {
			all = append(all, n)
		}
		slices.Sort(all)
	} else {
		for n := range it.Job.Spec.Shards.Count {
			all = append(all, n)
		}
	}
	if len(asked) == 0 {
		return all, nil
	}
	slices.Sort(asked)
	for _, n := range asked {
		if _, ok := slices.BinarySearch(all, n); !ok {
			return nil, problem(422, "invalid", fmt.Sprintf("job %s has no shard %d", it.Name, n), fmt.Sprintf("It has %d shards, counted from 0.", len(all)))
		}
	}
	return slices.Compact(asked), nil
}

func (c *Console) runJob(ctx context.Context, in *struct {
	JobPath
	Key  string `header:"Idempotency-Key"`
	Body *api.RunRequest
}) (*body[api.Started], error) {
	it, err := c.cfg.Store.ReadJob(ctx, store.JobKey{Namespace: in.NS, Name: in.Job})
	if err != nil {
		return nil, fail(err)
	}
	var req api.RunRequest
	if in.Body != nil {
		req = *in.Body
	}
	probe := *it.Job
	probe.Spec.Run.Params = req.Params
	if errs := probe.Validate(); len(errs) > 0 {
		return nil, fail(errs)
	}
	shards, err := c.numbers(ctx, it, req.Shards)
	if err != nil {
		return nil, fail(err)
	}
	id, err := commandID(in.Key)
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	cmd := store.Command{Verb: store.VerbRun, Trigger: jobs.ByHand, Tick: now, At: now, Params: req.Params, Reason: req.Reason}
	return c.command(ctx, it, shards, id, cmd)
}

func (c *Console) command(ctx context.Context, it store.JobItem, shards []int, id string, cmd store.Command) (*body[api.Started], error) {
	if err := c.cfg.Store.PutCommands(ctx, it.JobKey, shards, id, cmd); err != nil {
		return nil, fail(err)
	}
	c.cfg.Log.Info("command", "namespace", it.Namespace, "job", it.Name, "verb", cmd.Verb, "trigger", cmd.Trigger, "id", id, "shards", len(shards), "reason", cmd.Reason)
	out := api.Started{Command: id, Runs: []string{}}
	for _, n := range shards {
		if cmd.Verb == store.VerbRun {
			out.Runs = append(out.Runs, jobs.RunID(it.Name, it.UID, n, cmd.Tick, id))
		} else if cmd.Run != "" {
			out.Runs = append(out.Runs, cmd.Run)
		}
	}
	return &body[api.Started]{out}, nil
}

func (c *Console) stopJob(ctx context.Context, in *struct {
	JobPath
	Key  string `header:"Idempotency-Key"`
	Body *api.ReasonRequest
}) (*body[api.Started], error) {
	it, err := c.cfg.Store.ReadJob(ctx, store.JobKey{Namespace: in.NS, Name: in.Job})
	if err != nil {
		return nil, fail(err)
	}
	recs, _, err := c.cfg.Store.ReadRecords(ctx, it.JobKey, it.UID)
	if err != nil {
		return nil, fail(err)
	}
	// Only what runs now is stopped, by its id: a run that starts meanwhile is another one.
	id, err := commandID(in.Key)
	if err != nil {
		return nil, err
	}
	all := api.Started{Command: id, Runs: []string{}}
	for _, r := range recs {
		if run := r.Record.Run; run != nil && run.Phase == jobs.Running || run != nil && run.Due <= time.Now().UnixMilli() {
			out, err := c.command(ctx, it, []int{r.Shard}, id, stopCommand(run.ID, in.Body))
			if err != nil {
				return nil, err
			}
			all.Runs = append(all.Runs, out.Body.Runs...)
		}
	}
	return &body[api.Started]{all}, nil
}

func stopCommand(run string, r *api.ReasonRequest) store.Command {
	cmd := store.Command{Verb: store.VerbStop, Run: run, At: time.Now().UnixMilli()}
	if r != nil {
		cmd.Reason = r.Reason
	}
	return cmd
}

func (c *Console) stopRun(ctx context.Context, in *struct {
	RunPath
	Key  string `header:"Idempotency-Key"`
	Body *api.ReasonRequest
}) (*body[api.Started], error) {
	it, r, err := c.findRun(ctx, in.NS, in.ID)
	if err != nil {
		return nil, fail(err)
	}
	if jobs.Phase(r.Phase).Ended() {
		return nil, problem(409, "conflict", fmt.Sprintf("run %s has ended (%s)", r.ID, r.Phase), "")
	}
	id, err := commandID(in.Key)
	if err != nil {
		return nil, err
	}
	return c.command(ctx, it, []int{r.Shard}, id, stopCommand(r.ID, in.Body))
}

func (c *Console) rerun(ctx context.Context, in *struct {
	RunPath
	Key  string `header:"Idempotency-Key"`
	Body *api.ReasonRequest
}) (*body[api.Started], error) {
	it, r, err := c.findRun(ctx, in.NS, in.ID)
	if err != nil {
		return nil, fail(err)
	}
	if !jobs.Phase(r.Phase).Ended() {
		return nil, problem(409, "conflict", fmt.Sprintf("run %s has not ended (%s)", r.ID, r.Phase), "Stop it first, or wait.")
	}
	id, err := commandID(in.Key)
	if err != nil {
		return nil, err
	}
	return c.command(ctx, it, []int{r.Shard}, id, store.Command{
		Verb: store.VerbRun, Trigger: jobs.ByRerun, Tick: r.Tick.UnixMilli(), At: time.Now().UnixMilli(), Params: r.Params,
	})
}

func (c *Console) next(ctx context.Context, in *struct {
	JobPath
	N     int    `query:"n" minimum:"1" maximum:"1000" default:"10"`
	After string `query:"after" doc:"RFC 3339; default now." maxLength:"64"`
}) (*body[api.Next], error) {
	it, err := c.cfg.Store.ReadJob(ctx, store.JobKey{Namespace: in.NS, Name: in.Job})
	if err != nil {
		return nil, fail(err)
	}
	at := time.Now()
	if in.After != "" {
		if at, err = time.Parse(time.RFC3339, in.After); err != nil {
			return nil, problem(422, "invalid", "after: "+err.Error(), "")
		}
	}
	return &body[api.Next]{nextTicks(it.Job, at, in.N)}, nil
}

func nextTicks(j *jobs.Job, at time.Time, n int) api.Next {
	out := api.Next{Timezone: "UTC", Items: []api.NextTick{}}
	if s := j.Spec.Schedule; s != nil && s.Timezone != "" {
		out.Timezone = s.Timezone
	}
	loc, err := cron.Zone(out.Timezone)
	if err != nil {
		loc = time.UTC
	}
	tl, err := j.Timeline()
	if err != nil {
		return out
	}
	for ms := at.UnixMilli(); len(out.Items) < n; {
		t, ok := tl.Next(ms)
		if !ok {
			break
		}
		if ms = t.At; !t.Superseded {
			out.Items = append(out.Items, api.NextTick{Tick: api.MS(t.At), Local: time.UnixMilli(t.At).In(loc).Format("Mon 2006-01-02 15:04:05 -07:00"), Excluded: t.Excluded})
		}
	}
	return out
}

func (c *Console) executors(ctx context.Context, ns string) ([]api.Executor, error) {
	v, err := c.cfg.Store.ReadView(ctx, ns)
	if err != nil {
		return nil, err
	}
	owned := map[string]int{}
	for _, a := range v.Assignments {
		owned[a.Executor] += len(a.Assignment.Shards)
	}
	c.mu.Lock()
	reasons := map[string]string{}
	for _, x := range v.Candidates(c.advice, ns) {
		reasons[x.ID] = x.Drained
	}
	offsets := map[string]int64{}
	for k := range v.Executors {
		off, _, _ := c.advice.Offset(k)
		offsets[k.Incarnation] = off.Milliseconds()
	}
	c.mu.Unlock()
	live, _ := v.Live(ns)
	out := []api.Executor{}
	for _, x := range live {
		p := x.Presence
		e := api.Executor{
			ID: x.ID, Namespace: ns, Incarnation: x.Incarnation, State: p.State, Reason: reasons[x.ID], Labels: p.Labels, Capacity: p.Capacity,
			Slots: p.Slots, Shards: owned[x.ID], Running: p.Running, Handlers: p.Handlers, Shell: p.Shell, Version: p.Version, Host: p.Host,
			StartedAt: api.MS(p.Started.UnixMilli()), ClockOffsetMS: offsets[x.Incarnation],
		}
		if _, drained := v.Drains[store.ExecutorKey{Namespace: ns, ID: x.ID}]; drained {
			e.State = store.Draining
		}
		if e.Labels == nil {
			e.Labels = map[string]string{}
		}
		if e.Handlers == nil {
			e.Handlers = []string{}
		}
		delete(owned, x.ID)
		out = append(out, e)
	}
	for id, n := range owned {
		out = append(out, api.Executor{ID: id, Namespace: ns, State: "lost", Reason: "is not present; its shards wait for an eligible executor", Shards: n, Labels: map[string]string{}, Handlers: []string{}})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, nil
}

// ExecutorPath names an executor.
type ExecutorPath struct {
	NSPath
	ID string `path:"id" maxLength:"128"`
}

func (c *Console) executor(ctx context.Context, ns, id string) (api.Executor, error) {
	items, err := c.executors(ctx, ns)
	for _, x := range items {
		if x.ID == id {
			return x, nil
		}
	}
	return api.Executor{}, fail(orNotFound(err, "executor "+id))
}

func (c *Console) drain(ctx context.Context, in *struct {
	ExecutorPath
	Body *api.ReasonRequest
}) (*body[api.Executor], error) {
	if _, err := c.executor(ctx, in.NS, in.ID); err != nil {
		return nil, err
	}
	d := store.Drain{At: time.Now().UTC()}
	if in.Body != nil {
		d.Reason = in.Body.Reason
	}
	if err := c.cfg.Store.PutDrain(ctx, in.NS, in.ID, d); err != nil {
		return nil, fail(err)
	}
	c.cfg.Log.Info("drained", "namespace", in.NS, "executor", in.ID, "reason", d.Reason)
	x, err := c.executor(ctx, in.NS, in.ID)
	return &body[api.Executor]{x}, err
}

func (c *Console) resume(ctx context.Context, in *ExecutorPath) (*body[api.Executor], error) {
	ds, err := c.cfg.Store.ReadDrains(ctx, in.NS)
	if err != nil {
		return nil, fail(err)
	}
	if !slices.ContainsFunc(ds, func(d store.DrainItem) bool { return d.Executor == in.ID }) {
		if _, err := c.executor(ctx, in.NS, in.ID); err != nil {
			return nil, err
		}
	}
	if err := c.cfg.Store.DeleteDrain(ctx, in.NS, in.ID); err != nil {
		return nil, fail(err)
	}
	c.cfg.Log.Info("resumed", "namespace", in.NS, "executor", in.ID)
	x, err := c.executor(ctx, in.NS, in.ID)
	if err != nil {
		x = api.Executor{ID: in.ID, Namespace: in.NS, State: "lost", Labels: map[string]string{}, Handlers: []string{}}
	}
	return &body[api.Executor]{x}, nil
}
