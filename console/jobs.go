package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/cron"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
)

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
		j.Spec.Enabled, j.Spec.DisabledReason = nil, reason // enabled is what a definition says by saying nothing
		if !on {
			j.Spec.Enabled = &on
		}
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

// ExecutorPath names an executor.
