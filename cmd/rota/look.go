package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/console/client"
	"github.com/rota-dev/rota/internal/app"
	"github.com/rota-dev/rota/jobs"
)

func getCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "get jobs|job J|executors|shards J|runs|run ID|namespaces", Short: "Show jobs, executors, shards, runs, namespaces",
		Args: args(cobra.RangeArgs(1, 2)),
		Example: `  rota get jobs
  rota get job order-auto-cancel -o yaml
  rota get shards order-auto-cancel
  rota get runs --job order-auto-cancel --status failed,timed_out --since 1h`,
		ValidArgs: []string{"jobs", "job", "executors", "shards", "runs", "run", "namespaces"},
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			named := map[string]bool{"job": true, "shards": true, "run": true}
			if named[a[0]] != (len(a) == 2) {
				return usage("get %s: %s", a[0], map[bool]string{true: "needs a name", false: "takes no name"}[named[a[0]]])
			}
			switch a[0] {
			case "jobs":
				return c.getJobs(cmd)
			case "job":
				return c.getJob(cmd.Context(), a[1])
			case "executors":
				return c.getExecutors(cmd.Context())
			case "shards":
				return c.getShards(cmd.Context(), a[1])
			case "runs":
				return c.getRuns(cmd)
			case "run":
				return c.getRun(cmd.Context(), a[1])
			case "namespaces":
				return c.getNamespaces(cmd.Context())
			}
			return usage("get %s: jobs, job, executors, shards, runs, run or namespaces", a[0])
		},
	})
	f := cmd.Flags()
	f.String("job", "", "runs: of this job only")
	f.StringSlice("status", nil, "runs: in these phases only, such as failed,timed_out")
	f.String("since", "", "runs: armed since, as 1h or RFC 3339")
	f.Int("limit", 0, "at most this many; 0: all")
	f.StringSliceP("selector", "l", nil, "jobs: with these labels (key=value)")
	return cmd
}

func (c *conn) getJobs(cmd *cobra.Command) error {
	labels, _ := cmd.Flags().GetStringSlice("selector")
	limit, _ := cmd.Flags().GetInt("limit")
	q := url.Values{}
	if len(labels) > 0 {
		q.Set("label", strings.Join(labels, ","))
	}
	items, err := client.All[api.Job](cmd.Context(), &c.Client, client.Request{Method: "GET", Path: c.path("jobs"), Query: q}, limit)
	if err != nil {
		return err
	}
	if len(items) == 0 && c.format == "table" {
		note("no job in namespace %s; define one with: rota apply -n %s -f FILE", c.namespace, c.namespace)
		return nil
	}
	return c.print(list(items), func(w io.Writer) {
		row(w, "NAME", "STATE", "TRIGGER", "ZONE", "RUNS", "SHARDS", "OWNED", "NEXT TICK")
		for _, j := range items {
			state := "enabled"
			if !j.Enabled {
				state = "disabled"
			}
			zone := j.Timezone
			if zone == "" {
				zone = "UTC"
			}
			row(w, j.Name, state, j.Trigger, zone, j.Kind, j.Shards, j.Owned, when(j.NextTick))
		}
	})
}

func (c *conn) getJob(ctx context.Context, name string) error {
	var j jobs.Job
	if _, err := c.Do(ctx, client.Request{Method: "GET", Path: c.path("jobs", name)}, &j); err != nil {
		return err
	}
	if c.format == "json" {
		return c.print(&j, nil)
	}
	b, err := j.YAML() // a definition is read best as it was written
	if err == nil {
		_, err = c.out.Write(b)
	}
	return err
}

func (c *conn) getExecutors(ctx context.Context) error {
	items, err := client.All[api.Executor](ctx, &c.Client, client.Request{Method: "GET", Path: c.path("executors")}, 0)
	if err != nil {
		return err
	}
	if len(items) == 0 && c.format == "table" {
		note("no executor in namespace %s; start one with: rota executor --etcd URL --namespace %s", c.namespace, c.namespace)
		return nil
	}
	return c.print(list(items), func(w io.Writer) {
		row(w, "ID", "STATE", "SHARDS", "RUNNING", "CAPACITY", "LABELS", "HOST", "VERSION", "CLOCK", "REASON")
		for _, x := range items {
			var labels []string
			for k, v := range x.Labels {
				labels = append(labels, k+"="+v)
			}
			row(w, x.ID, x.State, x.Shards, x.Running, x.Capacity, strings.Join(labels, ","), x.Host, x.Version, fmt.Sprintf("%+dms", x.ClockOffsetMS), x.Reason)
		}
	})
}

func (c *conn) getShards(ctx context.Context, job string) error {
	items, err := client.All[api.Shard](ctx, &c.Client, client.Request{Method: "GET", Path: c.path("jobs", job, "shards")}, 0)
	if err != nil {
		return err
	}
	return c.print(list(items), func(w io.Writer) {
		row(w, "SHARD", "PARAM", "EXECUTOR", "HOLDER", "PHASE", "TICK", "TOKEN", "NEXT TICK", "REASON")
		for _, s := range items {
			row(w, s.Shard, s.Param, s.Executor, s.Holder, s.Phase, when(s.Tick), s.Token, when(s.NextTick), s.Reason)
		}
	})
}

func (c *conn) getRuns(cmd *cobra.Command) error {
	f := cmd.Flags()
	q := url.Values{}
	for _, name := range []string{"job", "since"} {
		if v, _ := f.GetString(name); v != "" {
			q.Set(name, v)
		}
	}
	if st, _ := f.GetStringSlice("status"); len(st) > 0 {
		q.Set("status", strings.Join(st, ","))
	}
	limit, _ := f.GetInt("limit")
	items, err := client.All[api.Run](cmd.Context(), &c.Client, client.Request{Method: "GET", Path: c.path("runs"), Query: q}, limit)
	if err != nil {
		return err
	}
	return c.print(list(items), func(w io.Writer) {
		row(w, "RUN", "SHARD", "TICK", "TRIGGER", "ATTEMPT", "PHASE", "EXECUTOR", "LATE", "TOOK", "REASON")
		for _, r := range items {
			row(w, r.ID, fmt.Sprintf("%d/%d", r.Shard, r.Shards), when(r.Tick), r.Trigger, r.Attempt, r.Phase, r.Executor, millis(r.LatenessMS), millis(r.DurationMS), r.Reason)
		}
	})
}

func (c *conn) run(ctx context.Context, id string) (r api.Run, err error) {
	_, err = c.Do(ctx, client.Request{Method: "GET", Path: c.path("runs", id)}, &r)
	return r, err
}

func (c *conn) getRun(ctx context.Context, id string) error {
	r, err := c.run(ctx, id)
	if err != nil {
		return err
	}
	return c.print(r, func(w io.Writer) {
		row(w, "run", r.ID)
		row(w, "job", r.Namespace+"/"+r.Job)
		row(w, "shard", fmt.Sprintf("%d of %d", r.Shard, r.Shards))
		row(w, "tick", when(r.Tick))
		row(w, "trigger", r.Trigger)
		row(w, "phase", r.Phase)
		row(w, "reason", r.Reason)
		row(w, "attempt", r.Attempt)
		row(w, "executor", r.Executor)
		row(w, "token", r.Token)
		row(w, "armed", when(r.ArmedAt))
		row(w, "started", when(r.StartedAt)+"  late by "+millis(r.LatenessMS))
		row(w, "ended", when(r.EndedAt)+"  took "+millis(r.DurationMS))
		if r.ExitCode != nil {
			row(w, "exit code", *r.ExitCode)
		}
		row(w, "message", r.Message)
		row(w, "result", string(r.Result))
	})
}

func (c *conn) getNamespaces(ctx context.Context) error {
	items, err := client.All[api.Namespace](ctx, &c.Client, client.Request{Method: "GET", Path: []string{"namespaces"}}, 0)
	if err != nil {
		return err
	}
	return c.print(list(items), func(w io.Writer) {
		row(w, "NAME", "JOBS", "EXECUTORS", "DESCRIPTION")
		for _, n := range items {
			row(w, n.Name, n.Jobs, n.Executors, n.Description)
		}
	})
}

func nextCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "next JOB", Short: "The ticks to come, in the job's zone", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			n, _ := cmd.Flags().GetInt("count")
			if n < 1 || n > 1000 {
				return usage("--count %d: between 1 and 1000", n)
			}
			var out api.Next
			if _, err := c.Do(cmd.Context(), client.Request{Method: "GET", Path: c.path("jobs", a[0], "next"), Query: url.Values{"n": {strconv.Itoa(n)}}}, &out); err != nil {
				return err
			}
			if len(out.Items) == 0 && c.format == "table" {
				note("job %s has no tick to come: it is disabled, has no schedule, or its only instant has passed", a[0])
				return nil
			}
			return c.print(out, func(w io.Writer) {
				row(w, "TICK (UTC)", "IN "+strings.ToUpper(out.Timezone), "")
				for _, t := range out.Items {
					why := ""
					if t.Excluded {
						why = "excluded"
					}
					row(w, t.Tick.String(), t.Local, why)
				}
			})
		},
	}
	// -n is the namespace with every other verb; here the contract gives it to the count.
	connectFlags(cmd, "")
	cmd.Flags().IntP("count", "n", 10, "how many")
	return cmd
}

func explainCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "explain JOB", Short: "Why it did not run, where it runs: each rule that was checked, with the verdict", Args: args(cobra.ExactArgs(1)),
		Example: "  rota explain order-auto-cancel\n  rota explain settlement --shard 3 --at 2026-12-01T02:00:00+08:00",
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			q := url.Values{}
			if s, _ := cmd.Flags().GetInt("shard"); cmd.Flags().Changed("shard") {
				if s < 0 {
					return usage("--shard %d: shards are counted from 0", s)
				}
				q.Set("shard", strconv.Itoa(s))
			}
			if at, _ := cmd.Flags().GetString("at"); at != "" {
				if _, err := time.Parse(time.RFC3339, at); err != nil {
					return usage("--at %q: write RFC 3339, as in 2026-12-01T10:00:00Z", at)
				}
				q.Set("at", at)
			}
			var out api.Explanation
			if _, err := c.Do(cmd.Context(), client.Request{Method: "GET", Path: c.path("jobs", a[0], "explain"), Query: q}, &out); err != nil {
				return err
			}
			return c.print(out, func(w io.Writer) {
				marks := map[string]string{"ok": "ok", "no": "NO", "info": "  "}
				for _, k := range out.Checks {
					row(w, marks[k.Verdict], k.Rule, k.Detail)
				}
				row(w, "")
				row(w, "=>", out.Verdict)
			})
		},
	})
	cmd.Flags().Int("shard", 0, "this shard only")
	cmd.Flags().String("at", "", "explain the tick at or before this instant (RFC 3339)")
	return cmd
}

func logsCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "logs RUN", Short: "Output of a run", Args: args(cobra.ExactArgs(1)),
		Long: `Prints the output of a run's shell command. The full output is available while it was kept by an
executor in the server's own process (dev mode); otherwise the last 4 KiB, once the attempt has ended.`,
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			follow, _ := cmd.Flags().GetBool("follow")
			attempt, _ := cmd.Flags().GetInt("attempt")
			q := url.Values{}
			if attempt > 0 {
				q.Set("attempt", strconv.Itoa(attempt))
			}
			printed := 0
			for {
				var b []byte
				h, err := c.Do(cmd.Context(), client.Request{Method: "GET", Path: c.path("runs", a[0], "log"), Query: q}, &b)
				if err != nil {
					return err
				}
				if len(b) > printed {
					if _, err := c.out.Write(b[printed:]); err != nil {
						return err
					}
					printed = len(b)
				}
				ended := jobs.Phase(h.Get("Rota-Phase")).Ended()
				if !follow || ended {
					if !ended && printed == 0 {
						note("the run is %s; its output appears when it ends", h.Get("Rota-Phase"))
					}
					return nil
				}
				select {
				case <-time.After(500 * time.Millisecond):
				case <-cmd.Context().Done():
					return nil
				}
			}
		},
	})
	cmd.Flags().BoolP("follow", "f", false, "go on until the run ends")
	cmd.Flags().Int("attempt", 0, "of this attempt; default the last one")
	return cmd
}

func waitCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "wait JOB --tick TIME", Short: "Wait until all shards have ended a tick", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			text, _ := cmd.Flags().GetString("tick")
			tick, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return usage("--tick %q: write RFC 3339, as in 2026-12-01T10:00:00Z", text)
			}
			limit, _ := cmd.Flags().GetDuration("timeout")
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			for {
				items, err := client.All[api.Shard](ctx, &c.Client, client.Request{Method: "GET", Path: c.path("jobs", a[0], "shards")}, 0)
				if err != nil && ctx.Err() == nil {
					return err
				}
				open := []string{}
				for _, s := range items {
					if s.Settled == nil || s.Settled.Before(tick) {
						open = append(open, strconv.Itoa(s.Shard))
					}
				}
				if err == nil && len(open) == 0 {
					return nil
				}
				select {
				case <-time.After(250 * time.Millisecond):
				case <-ctx.Done():
					return &exitWith{err: fmt.Errorf("tick %s has not ended in shards %s within %v", text, strings.Join(open, ","), limit), code: exitTimeout}
				}
			}
		},
	})
	cmd.Flags().String("tick", "", "the instant (RFC 3339)")
	cmd.Flags().Duration("timeout", 5*time.Minute, "give up after this time (exit 124)")
	_ = cmd.MarkFlagRequired("tick")
	return cmd
}

func versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(os.Stdout, "rota %s (%s, %s/%s)\n", app.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
