// Package executortest runs a handler as the executor would, without a cluster.
//
// Inside testing/synctest the clock is virtual: a handler that waits an hour takes no time.
//
//	synctest.Test(t, func(t *testing.T) {
//		out := executortest.Run(t, handler, executortest.Case{Shard: 3, Shards: 8, Timeout: time.Minute})
//		require.Equal(t, jobs.Succeeded, out.Phase)
//	})
package executortest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/rota-dev/rota/executor"
	"github.com/rota-dev/rota/executor/engine"
	"github.com/rota-dev/rota/jobs"
)

// Case is one run to be. The zero value is attempt 1 of shard 0 of 1, by schedule, for the present second, with token 1.
type Case struct {
	Job, Namespace string
	Shard, Shards  int
	Param          string
	Params         map[string]string
	Tick           time.Time
	Trigger        jobs.Trigger
	Attempt        int
	Token          int64
	Timeout        time.Duration // 0: none
}

// Outcome is what the executor would record.
type Outcome = engine.Outcome

// Run calls the handler once. A panic is an outcome, as in production.
func Run(t testing.TB, h executor.Handler, c Case) Outcome {
	t.Helper()
	run := &executor.Run{
		ID: "test_1_0_0", Namespace: or(c.Namespace, "test"), Job: or(c.Job, "test"), Shard: c.Shard, Shards: max(c.Shards, c.Shard+1),
		Param: c.Param, Params: c.Params, Tick: c.Tick, Trigger: c.Trigger, Attempt: max(c.Attempt, 1), Token: max(c.Token, 1),
		Executor: "test", Log: slog.New(slog.DiscardHandler),
	}
	if run.Tick.IsZero() {
		run.Tick = time.Now().UTC().Truncate(time.Second)
	}
	if run.Trigger == "" {
		run.Trigger = jobs.BySchedule
	}
	ctx := t.Context()
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, errors.New(string(engine.CauseTimeout)))
		defer cancel()
	}
	return executor.Call(ctx, h, run)
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
