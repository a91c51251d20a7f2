package console

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/store"
)

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
	live, doubles := v.Live(ns)
	out := []api.Executor{}
	for _, x := range live {
		p := x.Presence
		e := api.Executor{
			ID: x.ID, Namespace: ns, Incarnation: x.Incarnation, State: p.State, Reason: reasons[x.ID], Labels: p.Labels, Capacity: p.Capacity,
			Slots: p.Slots, Shards: owned[x.ID], Running: v.Pulses[store.IncarnationKey{Namespace: ns, ID: x.ID, Incarnation: x.Incarnation}].Pulse.Running, Handlers: p.Handlers, Shell: p.Shell, Version: p.Version, Host: p.Host,
			StartedAt: api.MS(p.Started.UnixMilli()), ClockOffsetMS: offsets[x.Incarnation],
		}
		if e.Reason == "" && slices.Contains(doubles, x.ID) {
			e.Reason = "several processes are present under this id: just restarted, or configured twice"
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
