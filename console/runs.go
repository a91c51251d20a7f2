package console

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
)

func toRun(it store.RecordItem, r *jobs.Run, shards int) api.Run {
	out := api.Run{
		ID: r.ID, Namespace: it.Namespace, Job: it.Name, Shard: it.Shard, Shards: shards, Tick: api.MS(r.Tick), Trigger: string(r.Trigger),
		Attempt: r.Attempt, Phase: string(r.Phase), Reason: r.Reason, Executor: r.Holder.Executor, Token: r.Token,
		ArmedAt: api.MS(r.ArmedAt), StartedAt: api.MS(r.StartedAt), EndedAt: api.MS(r.EndedAt), ExitCode: r.ExitCode,
		Message: r.Message, Result: r.Result, Generation: r.Generation, Params: r.Params,
	}
	if r.Phase == jobs.Armed && r.Token == 0 {
		out.Token = it.Mod
	}
	if r.StartedAt > 0 {
		late := r.StartedAt - r.Due
		out.LatenessMS = &late
		if r.EndedAt > 0 {
			d := r.EndedAt - r.StartedAt
			out.DurationMS = &d
		}
	}
	return out
}

// shardsOf is how many shards a job has now.
func shardsOf(v *store.View, j store.JobItem) int {
	if j.Job.Spec.Shards.PerExecutor {
		return len(v.Owners(j.Namespace)[j.JobKey])
	}
	return j.Job.Spec.Shards.Count
}

func (c *Console) shards(ctx context.Context, p JobPath) ([]api.Shard, error) {
	k := store.JobKey{Namespace: p.NS, Name: p.Job}
	it, err := c.cfg.Store.ReadJob(ctx, k)
	if err != nil {
		return nil, err
	}
	recs, _, err := c.cfg.Store.ReadRecords(ctx, k, it.UID)
	if err != nil {
		return nil, err
	}
	v, err := c.cfg.Store.ReadView(ctx, p.NS)
	if err != nil {
		return nil, err
	}
	owners := v.Owners(p.NS)[k]
	byShard := map[int]store.RecordItem{}
	for _, r := range recs {
		byShard[r.Shard] = r
	}
	nums, err := c.numbers(ctx, it, nil)
	if err != nil {
		return nil, err
	}
	tl, err := it.Job.Timeline()
	if err != nil {
		return nil, err
	}
	now := time.Now().UnixMilli()
	out := make([]api.Shard, 0, len(nums))
	for _, n := range nums {
		s := api.Shard{Shard: n, Param: it.Job.Spec.Shards.Param(n), Executor: owners[n], Phase: "free"}
		if t, ok := tl.Next(now); ok && !t.Superseded {
			s.NextTick = api.MS(t.At + tl.Jitter(k.String(), n))
		}
		if s.Executor == "" {
			s.Reason = "no executor is assigned: ask explain"
		}
		if r, ok := byShard[n]; ok {
			run := r.Record.Run
			if run == nil {
				run = r.Record.Last
			} else {
				s.Holder = run.Holder.Executor
			}
			if run != nil {
				s.Phase, s.Tick, s.Token, s.Run = string(run.Phase), api.MS(run.Tick), run.Token, run.ID
				if run.Reason != "" {
					s.Reason = run.Reason
				}
				if run.Token == 0 && run.Phase == jobs.Armed {
					s.Token = r.Mod
				}
			}
			s.Settled = api.MS(r.Record.Settled())
		}
		out = append(out, s)
	}
	return out, nil
}

func (c *Console) listRuns(ctx context.Context, in *struct {
	NSPath
	Paging
	Job    string   `query:"job" maxLength:"63"`
	Status []string `query:"status" doc:"Phases; any may match."`
	Since  string   `query:"since" doc:"RFC 3339 or a duration such as 1h: runs armed since." maxLength:"64"`
}) (*body[api.List[api.Run]], error) {
	var since time.Time
	if in.Since != "" {
		if d, err := time.ParseDuration(in.Since); err == nil {
			since = time.Now().Add(-d)
		} else if since, err = time.Parse(time.RFC3339, in.Since); err != nil {
			return nil, problem(422, "invalid", fmt.Sprintf("since: %q is neither a duration nor an RFC 3339 instant", in.Since), "")
		}
	}
	v, err := c.cfg.Store.ReadView(ctx, in.NS)
	if err != nil {
		return nil, fail(err)
	}
	if in.Job != "" {
		if _, ok := v.Jobs[store.JobKey{Namespace: in.NS, Name: in.Job}]; !ok {
			return nil, fail(fmt.Errorf("job %s/%s: %w", in.NS, in.Job, store.ErrNotFound))
		}
	}
	recs, _, err := c.cfg.Store.ReadAllRecords(ctx, in.NS, in.Job)
	if err != nil {
		return nil, fail(err)
	}
	var out []api.Run
	for _, r := range recs {
		n := 0
		if j, ok := v.Jobs[r.JobKey]; ok && j.UID == r.UID {
			n = shardsOf(v, j)
		}
		for _, run := range []*jobs.Run{r.Record.Run, r.Record.Last} {
			if run == nil || len(in.Status) > 0 && !slices.Contains(in.Status, string(run.Phase)) || run.ArmedAt < since.UnixMilli() {
				continue
			}
			out = append(out, toRun(r, run, n))
		}
	}
	// Newest first: the key turns the order of instants around.
	key := func(r api.Run) string { return fmt.Sprintf("%016d/%s", int64(1e15)-r.ArmedAt.UnixMilli(), r.ID) }
	sort.Slice(out, func(i, j int) bool { return key(out[i]) < key(out[j]) })
	return page(out, &in.Paging, key, nil)
}

// findRun finds a run as the current or the last one of its shard.
func (c *Console) findRun(ctx context.Context, ns, id string) (store.JobItem, api.Run, error) {
	job, uid, shard, err := jobs.ParseRunID(id)
	if err != nil {
		return store.JobItem{}, api.Run{}, fmt.Errorf("%w: %w", err, store.ErrNotFound)
	}
	k := store.JobKey{Namespace: ns, Name: job}
	it, err := c.cfg.Store.ReadJob(ctx, k)
	if err != nil {
		return it, api.Run{}, err
	}
	rec, err := c.cfg.Store.ReadRecord(ctx, store.ShardKey{JobKey: k, UID: uid, Shard: shard})
	if err != nil {
		return it, api.Run{}, err
	}
	for _, r := range []*jobs.Run{rec.Record.Run, rec.Record.Last} {
		if r != nil && r.ID == id {
			nums, err := c.numbers(ctx, it, nil)
			return it, toRun(rec, r, len(nums)), err
		}
	}
	cmds, err := c.cfg.Store.ReadCommands(ctx, k)
	if err != nil {
		return it, api.Run{}, err
	}
	for _, cmd := range cmds {
		if cmd.Shard == shard && cmd.Command.Settled == "" && jobs.RunID(job, uid, shard, cmd.Command.Tick, cmd.ID) == id {
			r := jobs.Run{ID: id, Tick: cmd.Command.Tick, Trigger: cmd.Command.Trigger, Phase: "pending", Reason: "waits for the shard's owner", Params: cmd.Command.Params}
			return it, toRun(rec, &r, it.Job.Spec.Shards.Count), nil
		}
	}
	return it, api.Run{}, fmt.Errorf("run %s is neither the current nor the last one of its shard (older ones need the history, which this version does not keep): %w", id, store.ErrNotFound)
}

func (c *Console) runLog(ctx context.Context, in *struct {
	RunPath
	Attempt int `query:"attempt" minimum:"0"`
}) (*struct {
	ContentType string `header:"Content-Type"`
	Phase       string `header:"Rota-Phase"`
	Source      string `header:"Rota-Log"`
	Body        []byte
}, error) {
	_, r, err := c.findRun(ctx, in.NS, in.ID)
	if err != nil {
		return nil, fail(err)
	}
	out := &struct {
		ContentType string `header:"Content-Type"`
		Phase       string `header:"Rota-Phase"`
		Source      string `header:"Rota-Log"`
		Body        []byte
	}{ContentType: "text/plain; charset=utf-8", Phase: r.Phase, Source: "full"}
	attempt := in.Attempt
	if attempt == 0 {
		attempt = r.Attempt
	}
	if c.cfg.ReadLog != nil {
		b, err := c.cfg.ReadLog(r.ID, attempt)
		if err == nil {
			out.Body = b
			return out, nil
		}
		if !os.IsNotExist(err) {
			c.cfg.Log.Warn("reading a log", "run", r.ID, "error", err)
		}
	}
	out.Source = "tail"
	job, uid, shard, _ := jobs.ParseRunID(in.ID)
	rec, err := c.cfg.Store.ReadRecord(ctx, store.ShardKey{JobKey: store.JobKey{Namespace: in.NS, Name: job}, UID: uid, Shard: shard})
	if err != nil {
		return nil, fail(err)
	}
	for _, run := range []*jobs.Run{rec.Record.Run, rec.Record.Last} {
		if run != nil && run.ID == in.ID {
			out.Body = []byte(run.Output)
		}
	}
	return out, nil
}
