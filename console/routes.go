package console

import (
	"context"
	"fmt"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rota-dev/rota/console/api"
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
