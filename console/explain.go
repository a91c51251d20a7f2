package console

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/shards"
	"github.com/rota-dev/rota/store"
)

// explanation collects checks; the first "no" is the verdict.
type explanation struct{ api.Explanation }

func (x *explanation) check(ok bool, rule, format string, a ...any) {
	c := api.Check{Rule: rule, Verdict: "ok", Detail: fmt.Sprintf(format, a...)}
	if !ok {
		c.Verdict = "no"
		if x.OK {
			x.OK, x.Verdict = false, c.Detail
		}
	}
	x.Checks = append(x.Checks, c)
}

func (x *explanation) info(rule, format string, a ...any) {
	x.Checks = append(x.Checks, api.Check{Rule: rule, Verdict: "info", Detail: fmt.Sprintf(format, a...)})
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

func (c *Console) explain(ctx context.Context, in *struct {
	JobPath
	Shard int    `query:"shard" minimum:"-1" default:"-1"`
	At    string `query:"at" doc:"RFC 3339: explain the tick at or before this instant." maxLength:"64"`
}) (*body[api.Explanation], error) {
	k := store.JobKey{Namespace: in.NS, Name: in.Job}
	v, err := c.cfg.Store.ReadView(ctx, in.NS)
	if err != nil {
		return nil, fail(err)
	}
	it, ok := v.Jobs[k]
	if !ok {
		return nil, fail(fmt.Errorf("job %s: %w", k, store.ErrNotFound))
	}
	tl, err := it.Job.Timeline()
	if err != nil {
		return nil, fail(err)
	}
	x := &explanation{api.Explanation{Namespace: in.NS, Job: in.Job, OK: true, Checks: []api.Check{}}}
	now := time.Now().UnixMilli()
	at := now
	if in.At != "" {
		t, err := time.Parse(time.RFC3339, in.At)
		if err != nil {
			return nil, problem(422, "invalid", "at: "+err.Error(), "Write RFC 3339, as in 2026-12-01T10:00:00Z.")
		}
		at = t.UnixMilli()
		x.At = api.MS(at)
	}
	nums, err := c.numbers(ctx, it, nil)
	if err != nil {
		return nil, fail(err)
	}
	if in.Shard >= 0 {
		if nums, err = c.numbers(ctx, it, []int{in.Shard}); err != nil {
			return nil, fail(err)
		}
		x.Shard = &in.Shard
	}

	x.check(true, "job exists", "version %d, created %s", it.Mod, it.Job.Status.CreatedAt.Format(time.RFC3339))
	why := ""
	if it.Job.Spec.DisabledReason != "" {
		why = ": " + it.Job.Spec.DisabledReason
	}
	if it.Job.Enabled() {
		x.check(true, "enabled", "the job is enabled")
	} else {
		x.check(false, "enabled", "the job is disabled%s", why)
	}
	tick := c.explainTrigger(x, v, it, tl, at, in.At != "")
	c.explainPlacement(x, v, it)
	c.explainShards(ctx, x, v, it, nums, tick, now)
	if l, ok, err := c.cfg.Store.ReadLeader(ctx); err == nil && ok {
		x.info("scheduler", "%s leads since %s", l.Server, l.Since.Format(time.RFC3339))
	} else if err == nil {
		x.info("scheduler", "no scheduler is elected: owned shards keep firing, nothing is assigned anew")
	}
	if x.OK {
		x.Verdict = "nothing stands in its way"
		if tick > 0 && in.At != "" {
			x.Verdict = fmt.Sprintf("the tick %s was run", stamp(tick))
		} else if t, ok := tl.Next(now); ok {
			x.Verdict = fmt.Sprintf("nothing stands in its way; due next at %s", stamp(t.At))
		}
	}
	return &body[api.Explanation]{x.Explanation}, nil
}

// explainTrigger says what starts the job; with asked, it returns the tick at or before the instant, 0 when there is none.
func (c *Console) explainTrigger(x *explanation, v *store.View, it store.JobItem, tl *jobs.Timeline, at int64, asked bool) int64 {
	s := it.Job.Spec
	switch {
	case s.Schedule != nil:
	case len(s.After) > 0:
		for _, up := range s.After {
			_, ok := v.Jobs[store.JobKey{Namespace: it.Namespace, Name: up}]
			if ok {
				x.check(true, "upstream "+up, "exists")
			} else {
				x.check(false, "upstream "+up, "the upstream job %s does not exist", up)
			}
		}
		r := v.Rounds[it.JobKey]
		if r.Round.UID == it.UID {
			x.info("rounds", "handed upstream ticks up to %s", stamp(r.Round.Tick))
		} else {
			x.info("rounds", "no upstream tick has been handed over yet")
		}
		return 0
	default:
		x.check(true, "trigger", "runs by hand only")
		return 0
	}
	if t, ok := tl.Next(at); ok {
		x.check(true, "schedule", "%s; the tick after is %s", trigger(it.Job), stamp(t.At))
		if !asked {
			if t.Excluded {
				x.check(false, "exclude", "the next tick %s lies in a pause window", stamp(t.At))
			} else {
				x.check(true, "exclude", "no pause window covers the next tick")
			}
		}
	} else if it.Job.Enabled() {
		x.check(false, "schedule", "%s has no tick after %s", trigger(it.Job), stamp(at))
	}
	if !asked {
		return 0
	}
	t, ok := lastTick(tl, at)
	if !ok {
		x.check(false, "tick", "no tick was due at or shortly before %s; the job's schedule is in force since %s", stamp(at), stamp(tl.Begin(0)))
		return 0
	}
	x.check(true, "tick", "a tick was due at %s", stamp(t.At))
	if t.Excluded {
		x.check(false, "exclude", "the tick %s lies in a pause window", stamp(t.At))
	} else {
		x.check(true, "exclude", "no pause window covers it")
	}
	return t.At
}

// lastTick finds the newest tick at or before an instant by looking back further and further.
func lastTick(tl *jobs.Timeline, at int64) (jobs.Tick, bool) {
	for back := int64(1000); back <= 400*24*3600*1000; back *= 4 {
		var last jobs.Tick
		found := false
		for from, n := at-back, 0; n < 10_000; n++ {
			t, ok := tl.Next(from)
			if !ok || t.At > at {
				break
			}
			last, found, from = t, true, t.At
		}
		if found {
			return last, true
		}
	}
	return jobs.Tick{}, false
}

func (c *Console) explainPlacement(x *explanation, v *store.View, it store.JobItem) {
	c.mu.Lock()
	candidates := v.Candidates(c.advice, it.Namespace)
	c.mu.Unlock()
	if len(candidates) == 0 {
		x.check(false, "executors", "no executor is present in namespace %s", it.Namespace)
		return
	}
	x.check(true, "executors", "%d present", len(candidates))
	planned := it.Planned(v.Owners(it.Namespace))
	eligible := 0
	var details []string
	for _, verdict := range shards.Explain(&planned, candidates) {
		if verdict.Eligible {
			eligible++
			word := "eligible"
			if verdict.Preferred {
				word = "eligible, preferred"
			}
			details = append(details, verdict.Executor+": "+word)
		} else {
			details = append(details, verdict.Executor+": "+verdict.Reason)
		}
	}
	if eligible > 0 {
		x.check(true, "eligible", "%s", strings.Join(details, "; "))
	} else {
		x.check(false, "eligible", "no executor is eligible: %s", strings.Join(details, "; "))
	}
}

func (c *Console) explainShards(ctx context.Context, x *explanation, v *store.View, it store.JobItem, nums []int, tick, now int64) {
	recs, corrupt, err := c.cfg.Store.ReadRecords(ctx, it.JobKey, it.UID)
	if err != nil {
		x.check(false, "records", "they cannot be read: %v", err)
		return
	}
	for _, b := range corrupt {
		x.check(false, "records", "%v", b)
	}
	byShard := map[int]store.RecordItem{}
	for _, r := range recs {
		byShard[r.Shard] = r
	}
	owners := v.Owners(it.Namespace)[it.JobKey]
	alive := map[string]bool{}
	for key := range v.Executors {
		alive[key.Incarnation] = true
	}
	for i, n := range nums {
		if i == 64 {
			x.info("shards", "%d more shards are not shown: name one with shard", len(nums)-i)
			return
		}
		rule := fmt.Sprintf("shard %d", n)
		if o := owners[n]; o == "" {
			x.check(false, rule, "shard %d is assigned to nobody", n)
		} else {
			x.check(true, rule, "assigned to %s%s", o, whyMoved(v, it.JobKey, o, n))
		}
		r, ok := byShard[n]
		if !ok {
			x.info(rule, "nothing has been recorded yet")
			if tick > 0 {
				x.check(false, rule, "the tick %s has not been accounted for: the shard has never had an owner that could", stamp(tick))
			}
			continue
		}
		c.explainRecord(x, rule, r, tick, now, alive)
	}
}

func whyMoved(v *store.View, k store.JobKey, executor string, shard int) string {
	for _, m := range v.Assignments[store.AssignmentKey{JobKey: k, Executor: executor}].Assignment.Moves {
		for _, s := range m.Shards {
			if s == shard {
				from := ""
				if m.From != "" {
					from = " from " + m.From
				}
				return fmt.Sprintf(" since %s%s: %s", stamp(m.At), from, m.Reason)
			}
		}
	}
	return ""
}

func (c *Console) explainRecord(x *explanation, rule string, r store.RecordItem, tick, now int64, alive map[string]bool) {
	if run := r.Record.Run; run != nil {
		switch {
		case run.Holder.Incarnation == "":
			x.info(rule, "run %s (attempt %d) was handed back and waits for the shard's owner", run.ID, run.Attempt)
		case !alive[run.Holder.Incarnation]:
			x.check(false, rule, "%s by %s, which is gone: the next owner takes it over", run.Phase, run.Holder.Executor)
		case run.Phase == jobs.Armed && run.Due > now:
			x.check(true, rule, "armed at %s for %s (attempt %d)", run.Holder.Executor, stamp(run.Due), run.Attempt)
		case run.Phase == jobs.Armed:
			x.info(rule, "due since %s at %s and not seen running yet: just started, or waiting for a slot", stamp(run.Due), run.Holder.Executor)
		default:
			x.check(true, rule, "running at %s since %s, tick %s, attempt %d", run.Holder.Executor, stamp(run.StartedAt), stamp(run.Tick), run.Attempt)
		}
	}
	if l := r.Record.Last; l != nil {
		why := ""
		if l.Reason != "" {
			why = " (" + l.Reason + ")"
		}
		if l.Phase == jobs.Succeeded || tick > 0 && l.Tick != tick {
			x.info(rule, "last run: tick %s %s at %s%s", stamp(l.Tick), l.Phase, l.Holder.Executor, why)
		} else {
			x.check(tick == 0 && l.Phase == jobs.Skipped, rule, "last run: tick %s %s at %s%s", stamp(l.Tick), l.Phase, l.Holder.Executor, why)
		}
	}
	for _, f := range r.Record.Facts {
		hit := tick >= f.From && tick <= f.To
		if f.Count == 1 {
			x.check(!hit, rule, "the tick %s was %s: %s", stamp(f.From), f.Phase, f.Reason)
		} else {
			x.check(!hit, rule, "%d ticks from %s to %s were %s: %s", f.Count, stamp(f.From), stamp(f.To), f.Phase, f.Reason)
		}
	}
	if tick == 0 {
		return
	}
	switch settled := r.Record.Settled(); {
	case r.Record.Run != nil && r.Record.Run.Tick == tick:
		x.check(true, rule, "the tick %s is %s", stamp(tick), r.Record.Run.Phase)
	case settled >= tick:
		x.info(rule, "the tick %s has ended (all up to %s have)", stamp(tick), stamp(settled))
	default:
		x.check(false, rule, "the tick %s has not ended yet (accounted up to %s)", stamp(tick), stamp(settled))
	}
}
