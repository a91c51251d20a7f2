package executortest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/executor"
	"github.com/rota-dev/rota/executor/executortest"
	"github.com/rota-dev/rota/jobs"
)

func TestOutcomesAreThoseOfTheExecutor(t *testing.T) {
	out := executortest.Run(t, func(_ context.Context, r *executor.Run) error {
		r.Result(r.Shard)
		return nil
	}, executortest.Case{Shard: 3, Shards: 8})
	require.Equal(t, jobs.Succeeded, out.Phase)
	require.Equal(t, "3", string(out.Result))

	out = executortest.Run(t, func(context.Context, *executor.Run) error { return executor.Retry(errors.New("later"), time.Minute) }, executortest.Case{})
	require.Equal(t, jobs.Failed, out.Phase)
	require.True(t, out.Again)
	require.Equal(t, time.Minute, out.After)

	out = executortest.Run(t, func(context.Context, *executor.Run) error { panic("no") }, executortest.Case{})
	require.Contains(t, out.Reason, "panic: no")
}

func TestTimeoutsTakeNoTimeUnderAVirtualClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := executortest.Run(t, func(ctx context.Context, _ *executor.Run) error {
			<-ctx.Done()
			return ctx.Err()
		}, executortest.Case{Timeout: time.Hour})
		require.Equal(t, jobs.Failed, out.Phase)
		require.Equal(t, "timeout", out.Reason)
	})
}
