package engine

import (
	"fmt"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/store"
)

// beyond is how many more attempts a handler may ask for when the policy's are used up.
const beyond = 10

// ended takes in the end of a handler.
func (e *Engine) ended(in Ended) {
	a := e.runs[in.Seq]
	if a == nil {
		return
	}
	delete(e.runs, in.Seq)
	a.done, a.outcome = true, in.Outcome
	if s := e.find(a.shard); s != nil && s.live == a {
		e.running--
		e.consider(s)
	} else {
		e.buried(a)
	}
	for e.cfg.Slots > 0 && e.running < e.cfg.Slots && len(e.ready) > 0 {
		next := e.ready[0]
		e.ready = e.ready[1:]
		next.queued = false
		e.consider(next)
	}
}

// find returns what is known of a shard, in the job's present life or a former one.
func (e *Engine) find(k store.ShardKey) *shard {
	if j := e.jobs[k.JobKey]; j != nil && j.uid == k.UID {
		return j.shards[k.Shard]
	}
	return e.former[k]
}

// buried handles the end of a handler that outlived its incarnation or its ownership.
func (e *Engine) buried(a *attempt) {
	if e.undead[a.shard]--; e.undead[a.shard] <= 0 {
		delete(e.undead, a.shard)
		if s := e.find(a.shard); s != nil {
			e.consider(s)
		}
	}
	if a.lease == e.id && e.lease.Held() != "" {
		return
	}
	for _, o := range e.runs {
		if o.lease == a.lease {
			return
		}
	}
	e.leaseStep(lease.Released{Lease: a.lease})
}

// finish commits the end of an attempt: the run's end and, in the same commit, whatever comes next.
func (e *Engine) finish(s *shard) {
	a := s.live
	o := a.outcome
	phase, reason := o.Phase, o.Reason
	if phase != jobs.Succeeded {
		switch a.cause {
		case CauseTimeout:
			phase, reason = jobs.TimedOut, fmt.Sprintf("exceeded the timeout of %v", a.job.Spec.Run.Timeout)
		case CauseStop:
			phase, reason = jobs.Stopped, string(CauseStop)
		case CauseReplaced:
			phase, reason = jobs.Stopped, jobs.ReasonReplaced
		case CauseDrain:
			// Cut short by our own going: the record stays, and whoever comes next settles it by on_lost.
			s.live = nil
			s.known = false
			e.drop(s)
			return
		}
	}
	now := e.wallMS()
	rec := e.next(s)
	run := a.run
	run.ExitCode, run.Message, run.Result, run.Output = o.ExitCode, o.Message, o.Result, o.Output
	if wait, ok := e.retry(a, phase); ok {
		run.Attempt++
		run.Phase, run.Due, run.ArmedAt = jobs.Armed, now+wait.Milliseconds(), now
		run.StartedAt, run.Token = 0, 0
		run.Reason = fmt.Sprintf("attempt %d %s: %s", run.Attempt-1, phase, reason)
		if !s.owned || e.draining {
			run.Holder = jobs.Holder{}
		}
		rec.Run = &run
		e.commit(s, "retry", rec, planned{settles: a.stops})
		s.flight.settles = a
		return
	}
	rec.Run = &run
	late := catchingUp(s)
	rec.End(phase, reason, now)
	if e.cfg.Mutant == MutantNoCursor {
		rec.Cursor = s.rec.Cursor
	}
	p := planned{op: "finish"}
	if s.owned && !e.draining && s.current() {
		if tl := s.job.timeline; tl.Schedule() != nil && tl.Schedule().OverlapPolicy() == jobs.OverlapSkip && !late {
			facts, _ := tl.Overlapped(max(rec.Cursor, s.since), now, s.delay)
			rec.Account(facts)
		}
		next := e.plan(s, &rec)
		p.jobMod, p.settles = next.jobMod, next.settles
	}
	for _, c := range a.stops {
		c.Command.Settled, c.Command.EndedAt = run.ID, now
		p.settles = append(p.settles, c)
	}
	e.commit(s, "finish", rec, p)
	s.flight.settles = a
}

// retry says whether another attempt follows, and after what delay.
func (e *Engine) retry(a *attempt, phase jobs.Phase) (time.Duration, bool) {
	if phase != jobs.Failed && phase != jobs.TimedOut || a.outcome.Never || len(a.stops) > 0 {
		return 0, false
	}
	if j := e.jobs[a.shard.JobKey]; j == nil || j.uid != a.shard.UID || j.deleted {
		return 0, false
	}
	spec := &a.job.Spec.Run
	n := a.run.Attempt - a.run.Lost
	switch {
	case a.outcome.Again && n < spec.Attempts()+beyond:
		if a.outcome.After > 0 {
			return a.outcome.After, true
		}
		return spec.Backoff(n), true
	case n < spec.Attempts():
		return spec.Backoff(n), true
	}
	return 0, false
}
