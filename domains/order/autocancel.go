package order

import (
	"context"
	"errors"
	"time"

	"github.com/rota-dev/rota/executor"
	"github.com/rota-dev/rota/jobs"
)

// Handler is the name of the handler.
const Handler = "order.auto-cancel"

// AutoCancel returns the handler of the job order-auto-cancel. It is idempotent.
func AutoCancel(s *Shop) executor.Handler {
	return func(ctx context.Context, run *executor.Run) error {
		n, err := s.CancelUnpaid(ctx, run.Shard, run.Token)
		if errors.Is(err, ErrStale) {
			return executor.Fail(err)
		}
		if err != nil {
			return err
		}
		run.Result(map[string]int64{"cancelled": n})
		return nil
	}
}

// Job is the definition of order-auto-cancel: every second, over all shards.
func Job(namespace string, shards int) jobs.Job {
	return jobs.Job{
		APIVersion: jobs.APIVersion, Kind: "Job",
		Metadata: jobs.Metadata{Namespace: namespace, Name: "order-auto-cancel", Description: "Cancels orders that are unpaid 30 minutes after they were placed."},
		Spec: jobs.Spec{
			Schedule: &jobs.Schedule{Every: jobs.Duration(time.Second)},
			Shards:   jobs.Shards{Count: shards},
			Run:      jobs.RunSpec{Handler: Handler, Timeout: jobs.Duration(30 * time.Second), Retry: &jobs.Retry{Attempts: 3, Backoff: jobs.Duration(200 * time.Millisecond)}},
		},
	}
}
