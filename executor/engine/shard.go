package engine

import (
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
)

// shard is what the engine knows about one shard.
type shard struct {
	key   store.ShardKey
	job   *job
	owned bool  // the assignment says so
	total int   // shards of the job
	since int64 // per-executor: ticks before are not mine
	delay int64 // share of the jitter, ms

	known   bool // rec and mod were read or written by me
	loading bool
	rec     jobs.Record
	mod     int64

	flight    *flight
	granted   bool     // rec.Run is armed by me and not started
	queued    bool     // due, waiting for a slot
	live      *attempt // its handler, until its end is committed
	staleJob  int64    // a grant computed from this definition was refused
	holdUntil time.Duration
	polls     int

	wake time.Duration
	pos  int
}

// forget drops all that was learnt under an incarnation.
func (s *shard) forget() {
	s.known, s.loading, s.granted, s.queued = false, false, false, false
	s.flight, s.live, s.staleJob, s.holdUntil, s.polls = nil, nil, 0, 0, 0
}

// take accepts a record that was read.
func (s *shard) take(it store.RecordItem) {
	s.known, s.granted, s.queued = true, false, false
	s.rec, s.mod = it.Record, it.Mod
	if it.Mod == 0 {
		s.rec = jobs.Record{}
		if len(s.job.def.Spec.After) == 0 {
			s.rec.Cursor = s.job.timeline.Begin(s.key.Shard)
		}
	}
}

// current says whether the shard belongs to the job's present life.
func (s *shard) current() bool { return s.job.def != nil && !s.job.deleted }

// consider decides, from state alone, what is to be done about a shard now and when to look again.
func (e *Engine) consider(s *shard) {
	if s.live != nil && !s.live.done {
		e.watch(s)
	}
	if s.flight != nil {
		e.resubmit(s)
		return
	}
	if e.lease.Held() == "" || !e.listed() {
		return
	}
	if !s.known {
		e.read(s)
		return
	}
	if e.now.Boot < s.holdUntil {
		e.heap.set(s, s.holdUntil)
		return
	}
	if e.undead[s.key] > 0 {
		return // an older handler of this shard lives; its end brings us back
	}
	run := s.rec.Run
	switch {
	case run == nil:
		e.free(s)
	case run.Holder == e.me:
		e.mine(s)
	case run.Holder == (jobs.Holder{}):
		e.released(s)
	case e.alive[presence{s.key.Namespace, run.Holder.Incarnation}] && e.cfg.Mutant != MutantEagerTakeover:
		e.occupied(s)
	default:
		e.takeOver(s)
	}
}

// read asks for the record, unless nobody needs it.
func (e *Engine) read(s *shard) {
	if !s.owned || e.draining {
		e.drop(s)
		return
	}
	if e.now.Boot < s.holdUntil {
		e.heap.set(s, s.holdUntil)
		return
	}
	if !s.loading {
		s.loading = true
		e.toLoad[s.job] = append(e.toLoad[s.job], s.key.Shard)
	}
}

// drop forgets a shard that is not ours and that nothing of ours runs on.
func (e *Engine) drop(s *shard) {
	if s.live != nil || s.flight != nil {
		return
	}
	e.heap.set(s, never)
	delete(s.job.shards, s.key.Shard)
	delete(e.former, s.key)
	if s.job.deleted && len(s.job.shards) == 0 && e.jobs[s.job.key] == s.job {
		delete(e.jobs, s.job.key)
	}
}

// free decides about a record without a run.
func (e *Engine) free(s *shard) {
	if !s.owned || e.draining || !s.current() {
		e.drop(s)
		return
	}
	rec := e.next(s)
	p := e.plan(s, &rec)
	if p.op == "" {
		e.heap.set(s, p.wake)
		return
	}
	e.commit(s, p.op, rec, p)
}

// occupied waits for a holder that is alive. It gives no sign when it is done, so the record is read again, less and less often.
func (e *Engine) occupied(s *shard) {
	if !s.owned || e.draining || !s.current() {
		e.drop(s)
		return
	}
	s.polls++
	wait := min(time.Duration(s.polls)*50*time.Millisecond, time.Second)
	s.known, s.holdUntil = false, e.now.Boot+wait
	e.heap.set(s, s.holdUntil)
}

// released takes up a run that its holder gave back unstarted: the same attempt, granted anew.
func (e *Engine) released(s *shard) {
	if !s.owned || e.draining {
		e.drop(s)
		return
	}
	if !s.current() {
		e.drop(s)
		return
	}
	rec := e.next(s)
	p := e.regrant(s, &rec)
	e.commit(s, "arm", rec, p)
}

// regrant arms the unstarted run of rec again for this incarnation, if its tick still is one; else records why not and plans on.
func (e *Engine) regrant(s *shard, rec *jobs.Record) planned {
	run := *rec.Run
	now := e.wallMS()
	if run.Trigger == jobs.BySchedule && run.Attempt == 1 {
		tick, ok := s.job.timeline.Next(run.Tick - 1)
		gone := !ok || tick.At != run.Tick || tick.Superseded || tick.Excluded
		first, ok := s.job.timeline.Next(max(rec.Cursor, s.since))
		earlier := ok && first.At < run.Tick // the new schedule has ticks before it: those come first
		switch {
		case gone && earlier:
			ended := run
			ended.Phase, ended.Reason, ended.EndedAt = jobs.Skipped, jobs.ReasonChanged, now
			rec.Run, rec.Last = nil, &ended
		case gone:
			rec.End(jobs.Skipped, jobs.ReasonChanged, now)
		case earlier:
			rec.Run = nil // its turn comes again
		case now-tick.At-s.delay > s.job.timeline.Schedule().Within().Milliseconds():
			rec.End(jobs.Missed, jobs.ReasonExpired, now)
		}
		if rec.Run == nil {
			p := e.plan(s, rec)
			p.op = "skip"
			return p
		}
		run.Due = tick.At + s.delay
	}
	run.Holder, run.ArmedAt, run.Generation, run.Token = e.me, now, s.job.mod, 0
	rec.Run = &run
	return planned{op: "arm", jobMod: s.job.mod}
}

// takeOver settles the run of a holder that is gone and grants it anew, in one commit.
func (e *Engine) takeOver(s *shard) {
	if !s.owned || e.draining || !s.current() {
		e.drop(s)
		return
	}
	rec := e.next(s)
	run := *rec.Run
	gone := run.Holder
	now := e.wallMS()
	p := planned{op: "takeover", jobMod: s.job.mod, gone: gone}
	unstarted := run.Phase == jobs.Armed && run.Due > now
	if (s.job.def.Spec.Run.Lost() == jobs.OnLostRerun || unstarted) && s.job.def.Enabled() {
		run.Attempt++
		run.Lost++
		if e.cfg.Mutant == MutantSameAttempt {
			run.Attempt--
		}
		run.Reason = "taken over from " + gone.Executor
		run.Phase, run.Holder, run.ArmedAt, run.Due = jobs.Armed, e.me, now, max(run.Due, now)
		run.StartedAt, run.Token, run.Generation = 0, 0, s.job.mod
		rec.Run = &run
	} else {
		rec.End(jobs.Lost, jobs.ReasonHolderLost, now)
		next := e.plan(s, &rec)
		p.settles = next.settles
	}
	if gone == e.me || e.cfg.Mutant == MutantEagerTakeover {
		p.gone = jobs.Holder{}
	}
	e.commit(s, "takeover", rec, p)
}

// mine decides about a run that this incarnation holds.
func (e *Engine) mine(s *shard) {
	switch {
	case s.live != nil && s.live.done:
		e.finish(s)
	case s.live != nil:
		e.tend(s)
	case !s.granted:
		// Held by me, yet I never learnt that I won it or lost track: it may not be started again under this attempt.
		e.takeOver(s)
	case e.stopUnstarted(s):
	case !s.owned || e.draining || !s.current():
		e.release(s)
	case s.rec.Run.Generation != s.job.mod && s.rec.Run.Trigger == jobs.BySchedule && s.rec.Run.Attempt == 1 && s.staleJob != s.job.mod:
		rec := e.next(s)
		p := e.regrant(s, &rec)
		e.commit(s, p.op, rec, p)
	case s.rec.Run.Due <= e.wallMS():
		e.start(s)
	default:
		e.tend(s)
	}
}

// release hands an unstarted run back.
func (e *Engine) release(s *shard) {
	rec := e.next(s)
	if !s.current() {
		rec.End(jobs.Skipped, jobs.ReasonChanged, e.wallMS())
	} else {
		run := *rec.Run
		run.Holder = jobs.Holder{}
		rec.Run = &run
	}
	s.dequeue(e)
	e.commit(s, "release", rec, planned{})
}

// start begins the handler, if trust and a slot allow.
func (e *Engine) start(s *shard) {
	if !e.lease.Trusted(e.now.Boot) {
		return // fencing is due and will follow
	}
	if e.cfg.Slots > 0 && e.running >= e.cfg.Slots {
		if !s.queued {
			s.queued = true
			e.ready = append(e.ready, s)
		}
		e.tend(s)
		return
	}
	s.queued, s.granted = false, false
	e.seq++
	run := *s.rec.Run
	run.Token, run.Phase, run.StartedAt = s.mod, jobs.Running, e.wallMS()
	a := &attempt{seq: e.seq, shard: s.key, run: run, job: s.job.def, lease: e.id, boot: e.now.Boot}
	s.live = a
	e.runs[a.seq] = a
	e.running++
	e.emit(Start{Seq: a.seq, Shard: s.key, Run: run, Job: s.job.def, Shards: s.total, Until: e.lease.Until()})
	e.tend(s)
}

func (s *shard) dequeue(e *Engine) {
	if !s.queued {
		return
	}
	s.queued = false
	for i, o := range e.ready {
		if o == s {
			e.ready = append(e.ready[:i], e.ready[i+1:]...)
			return
		}
	}
}

// watch cancels a handler whose time is up. It needs no commit, so it goes on while one is in flight.
func (e *Engine) watch(s *shard) {
	a := s.live
	spec := &a.job.Spec.Run
	ran := e.now.Boot - a.boot
	if t := time.Duration(spec.Timeout); t > 0 && ran >= t {
		e.cancel(a, CauseTimeout)
	}
	if w := time.Duration(spec.WarnAfter); w > 0 && ran >= w && !a.warned {
		a.warned = true
		e.emit(Note{Kind: NoteSlow, Shard: s.key, Run: &a.run, Lateness: ran})
	}
	for _, c := range s.job.commands[s.key.Shard] {
		if c.Command.Verb == store.VerbStop && (c.Command.Run == "" || c.Command.Run == a.run.ID) && !a.stopping(c.ID) {
			a.stops = append(a.stops, store.SettledCommand{Shard: c.Shard, ID: c.ID, Mod: c.Mod, Command: c.Command})
			e.cancel(a, CauseStop)
		}
	}
}

func (a *attempt) stopping(id string) bool {
	for _, c := range a.stops {
		if c.ID == id {
			return true
		}
	}
	return false
}

// tend looks after a held run that goes on or waits: ticks that overlap it, the write behind of its start, its next wake.
func (e *Engine) tend(s *shard) {
	wake := never
	run := s.rec.Run
	a := s.live
	rec := e.next(s)
	changed := false
	if tl := s.job.timeline; s.owned && s.current() && !e.draining && tl.Schedule() != nil {
		until := e.wallMS()
		policy := tl.Schedule().OverlapPolicy()
		if policy == jobs.OverlapQueue {
			until = 0 // one may wait for the end; those before its own start may not
			if a != nil {
				until = a.run.StartedAt
			}
		}
		if !catchingUp(s) {
			facts, next := tl.Overlapped(max(rec.Cursor, s.since, scheduled(run)), until, s.delay)
			if policy == jobs.OverlapReplace {
				for _, f := range facts {
					if f.Reason == jobs.ReasonOverlap && a != nil {
						e.cancel(a, CauseReplaced)
						facts = nil
						break
					}
				}
			}
			switch {
			case len(facts) == 0:
			case a != nil && e.now.Boot < a.boot+e.cfg.WriteBehind:
				wake = min(wake, a.boot+e.cfg.WriteBehind) // a short run's end takes them along
			default:
				rec.Account(facts)
				changed = true
			}
			if next != nil && next.Due > e.wallMS() {
				wake = min(wake, e.at(next.Due))
			}
		}
	}
	if a != nil {
		spec := &a.job.Spec.Run
		if at := a.boot + e.cfg.WriteBehind; !a.flushed && e.now.Boot >= at {
			changed = true
		} else if !a.flushed {
			wake = min(wake, at)
		}
		if t := time.Duration(spec.Timeout); t > 0 && a.cause == "" {
			wake = min(wake, a.boot+t)
		}
		if w := time.Duration(spec.WarnAfter); w > 0 && !a.warned {
			wake = min(wake, a.boot+w)
		}
	} else if !s.queued {
		wake = min(wake, e.at(run.Due))
	}
	if !changed {
		e.heap.set(s, max(wake, e.now.Boot+time.Millisecond/4))
		return
	}
	if a != nil {
		r := a.run
		rec.Run = &r
	}
	e.commit(s, "progress", rec, planned{})
}

// catchingUp says whether the held run makes up for a missed tick of a job that runs them all: then ticks that come due
// meanwhile wait for their turn instead of overlapping.
func catchingUp(s *shard) bool {
	run := s.rec.Run
	if s.job.timeline.Schedule().MisfirePolicy() != jobs.MisfireAll || run.Trigger != jobs.BySchedule {
		return false
	}
	began := run.ArmedAt
	if s.live != nil {
		began = s.live.run.StartedAt
	}
	return run.Lost > 0 || began-run.Tick-s.delay > jobs.OnTime
}

// scheduled is the tick of a scheduled run; ticks up to it are not overlapping ones.
func scheduled(r *jobs.Run) int64 {
	if r.Trigger == jobs.BySchedule {
		return r.Tick
	}
	return 0
}
