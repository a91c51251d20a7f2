package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/console/client"
	"github.com/rota-dev/rota/jobs"
)

// act posts a command under a fresh idempotency key, so that a retried request is one command.
func (c *conn) act(ctx context.Context, path []string, body any) (out api.Started, err error) {
	key := strings.ToLower(rand.Text()[:16])
	_, err = c.Do(ctx, client.Request{Method: "POST", Path: path, Body: body, Header: map[string]string{"Idempotency-Key": key}}, &out)
	return out, err
}

func (c *conn) printStarted(verb string, out api.Started) error {
	return c.print(out, func(w io.Writer) {
		if len(out.Runs) == 0 {
			row(w, "nothing to "+verb)
		}
		for _, r := range out.Runs {
			row(w, verb, r)
		}
	})
}

func runCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "run JOB", Short: "Run a job now", Args: args(cobra.ExactArgs(1)),
		Example: "  rota run order-auto-cancel\n  rota run settlement --shard 0,3 --param date=2026-12-01 --wait",
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			f := cmd.Flags()
			req := api.RunRequest{}
			req.Shards, _ = f.GetIntSlice("shard")
			list, _ := f.GetStringArray("param")
			if req.Params, err = pairs(list, "param"); err != nil {
				return err
			}
			out, err := c.act(cmd.Context(), c.path("jobs", a[0], "run"), req)
			if err != nil {
				return err
			}
			if wait, _ := f.GetBool("wait"); !wait {
				return c.printStarted("run", out)
			}
			limit, _ := f.GetDuration("timeout")
			return c.waitRuns(cmd.Context(), out.Runs, limit)
		},
	})
	f := cmd.Flags()
	f.IntSlice("shard", nil, "these shards only, such as 0,3")
	f.StringArray("param", nil, "k=v, added to the job's params; repeatable")
	f.Bool("wait", false, "wait for the end; exit 1 unless all succeed")
	f.Duration("timeout", 10*time.Minute, "with --wait: give up after this time (exit 124)")
	return cmd
}

// waitRuns polls until all runs have ended and prints them.
func (c *conn) waitRuns(ctx context.Context, ids []string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var ended []api.Run
	for _, id := range ids {
		for {
			r, err := c.run(ctx, id)
			if err != nil && ctx.Err() == nil {
				return err
			}
			if err == nil && jobs.Phase(r.Phase).Ended() {
				ended = append(ended, r)
				break
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return &exitWith{err: fmt.Errorf("run %s is %s; gave up after %v (rota explain %s says why)", id, r.Phase, limit, r.Job), code: exitTimeout}
			}
		}
	}
	failed := 0
	for _, r := range ended {
		if r.Phase != string(jobs.Succeeded) && r.Phase != string(jobs.Skipped) {
			failed++
		}
	}
	err := c.print(list(ended), func(w io.Writer) {
		row(w, "RUN", "SHARD", "PHASE", "EXECUTOR", "TOOK", "REASON", "MESSAGE")
		for _, r := range ended {
			row(w, r.ID, r.Shard, r.Phase, r.Executor, millis(r.DurationMS), r.Reason, r.Message)
		}
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d runs did not succeed", failed, len(ended))
	}
	return err
}

func stopCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "stop JOB|RUN", Short: "Stop what runs now, of a job or one run", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			reason, _ := cmd.Flags().GetString("reason")
			path := c.path("jobs", a[0], "stop")
			if _, _, _, err := jobs.ParseRunID(a[0]); err == nil {
				path = c.path("runs", a[0], "stop")
			}
			out, err := c.act(cmd.Context(), path, api.ReasonRequest{Reason: reason})
			if err != nil {
				return err
			}
			return c.printStarted("stop", out)
		},
	})
	cmd.Flags().String("reason", "", "why")
	return cmd
}

func rerunCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "rerun RUN", Short: "Run the same shard for the same tick again", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			out, err := c.act(cmd.Context(), c.path("runs", a[0], "rerun"), api.ReasonRequest{})
			if err != nil {
				return err
			}
			return c.printStarted("rerun", out)
		},
	})
	return cmd
}

func drainCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "drain EXECUTOR", Short: "Move an executor's shards away and keep them away", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			reason, _ := cmd.Flags().GetString("reason")
			var x api.Executor
			if _, err := c.Do(cmd.Context(), client.Request{Method: "POST", Path: c.path("executors", a[0], "drain"), Body: api.ReasonRequest{Reason: reason}}, &x); err != nil {
				return err
			}
			wait, _ := cmd.Flags().GetBool("wait")
			limit, _ := cmd.Flags().GetDuration("timeout")
			for deadline := time.Now().Add(limit); wait && x.State != "lost" && (x.Shards > 0 || x.Running > 0); {
				if time.Now().After(deadline) {
					return &exitWith{err: fmt.Errorf("executor %s still has %d shards and %d running after %v", a[0], x.Shards, x.Running, limit), code: exitTimeout}
				}
				time.Sleep(250 * time.Millisecond)
				items, err := client.All[api.Executor](cmd.Context(), &c.Client, client.Request{Method: "GET", Path: c.path("executors")}, 0)
				if err != nil {
					return err
				}
				x.Shards, x.Running = 0, 0
				for _, o := range items {
					if o.ID == a[0] {
						x = o
					}
				}
			}
			return c.print(x, func(w io.Writer) {
				row(w, fmt.Sprintf("executor %s drained: %d shards, %d running", x.ID, x.Shards, x.Running))
			})
		},
	})
	cmd.Flags().String("reason", "", "why, for those who wonder later")
	cmd.Flags().Bool("wait", false, "wait until it has no shards and nothing runs")
	cmd.Flags().Duration("timeout", 5*time.Minute, "with --wait: give up after this time (exit 124)")
	return cmd
}

func resumeCmd() *cobra.Command {
	return clientFlags(&cobra.Command{
		Use: "resume EXECUTOR", Short: "Let a drained executor take shards again", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var x api.Executor
			if _, err := c.Do(cmd.Context(), client.Request{Method: "POST", Path: c.path("executors", a[0], "resume")}, &x); err != nil {
				return err
			}
			return c.print(x, func(w io.Writer) { row(w, fmt.Sprintf("executor %s is %s", x.ID, x.State)) })
		},
	})
}
