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
	j := jobs.New(namespace, "order-auto-cancel").Every(time.Second).InShards(shards).Handle(Handler)
	j.Metadata.Description = "Cancels orders that are unpaid 30 minutes after they were placed."
	j.Spec.Run.Timeout = jobs.Duration(30 * time.Second)
	j.Spec.Run.Retry = &jobs.Retry{Attempts: 3, Backoff: jobs.Duration(200 * time.Millisecond)}
	return j
}
