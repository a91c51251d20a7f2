package console

import (
	"context"
	"fmt"
	"sort"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/jobs"
)

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

// trigger is what starts a job, in a few words.
// precondition checks If-Match and If-None-Match against the current revision (0: absent).
// notPast refuses a new one-shot whose instant has passed: it would never run.
// supported refuses what this version cannot do, and cycles.
// commandID takes the client's idempotency key, so that a repeated request is one command.
// numbers checks the requested shards against those that exist.
