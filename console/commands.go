package console

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
)

func commandID(key string) (string, error) {
	if key == "" {
		return strings.ToLower(rand.Text()[:16]), nil
	}
	if !store.ValidID(key) || len(key) > 64 {
		return "", problem(422, "invalid", "Idempotency-Key: use at most 64 letters, digits, '-', '_' and '.'", "")
	}
	return key, nil
}

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
