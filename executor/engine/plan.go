package engine

import (
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
	"time"
)

// planned is what a commit of a record needs besides the record itself, or, with op empty, when to look again.
type planned struct {
	op      string
	jobMod  int64
	gone    jobs.Holder
	settles []store.SettledCommand
	wake    time.Duration
}

// next is a copy of the record to decide on; facts are of one revision.
func (e *Engine) next(s *shard) jobs.Record {
	rec := s.rec
	rec.Facts = nil
	return rec
}

// plan decides what a free record does next: a command, a tick to arm, ticks to account for, or nothing until a wake.
func (e *Engine) plan(s *shard, rec *jobs.Record) planned {
	p := planned{wake: never}
	now := e.wallMS()
	for _, c := range s.job.commands[s.key.Shard] {
		settled := store.SettledCommand{Shard: c.Shard, ID: c.ID, Mod: c.Mod, Command: c.Command}
		settled.Command.EndedAt = now
		switch {
		case s.live != nil && s.live.stopping(c.ID): // settled with the end of the run that it stopped
		case c.Command.Verb == store.VerbStop:
			settled.Command.Settled = "nothing was running"
			e.emit(Settle{Job: s.key.JobKey, Command: settled})
		case c.Command.Trigger == jobs.ByUpstream && c.Command.Tick <= rec.Cursor:
			settled.Command.Settled = "was handed over before"
			e.emit(Settle{Job: s.key.JobKey, Command: settled})
		case s.staleJob == s.job.mod:
		default:
			id := jobs.RunID(s.key.Name, s.key.UID, s.key.Shard, c.Command.Tick, c.ID)
			if c.Command.Trigger == jobs.ByUpstream {
				id = jobs.RunID(s.key.Name, s.key.UID, s.key.Shard, c.Command.Tick, "")
			}
			settled.Command.Settled = id
			rec.Run = &jobs.Run{
				ID: id, Tick: c.Command.Tick, Trigger: c.Command.Trigger, Attempt: 1, Phase: jobs.Armed, Holder: e.me,
				Due: now, ArmedAt: now, Generation: s.job.mod, Params: c.Command.Params, Command: c.ID,
			}
			return planned{op: "arm", jobMod: s.job.mod, settles: []store.SettledCommand{settled}}
		}
	}
	tl := s.job.timeline
	account := tl.Account
	if s.rec.Run != nil && tl.Schedule().OverlapPolicy() == jobs.OverlapQueue && tl.Schedule().MisfirePolicy() != jobs.MisfireNone {
		account = tl.Queued
	}
	d := account(max(rec.Cursor, s.since), now, s.delay)
	if e.cfg.Mutant == MutantSilentSkip {
		if len(d.Facts) > 0 {
			rec.Cursor = d.Facts[len(d.Facts)-1].To
		}
		d.Facts = nil
	}
	rec.Account(d.Facts)
	if len(d.Facts) > 0 {
		p.op = "account"
	}
	fire := d.Fire
	if fire == nil && d.Next != nil {
		ahead := e.cfg.ArmAhead.Milliseconds()
		switch {
		case d.Next.Excluded || d.Next.Superseded:
			p.wake = e.at(d.Next.Due)
		case d.Next.Due-now > ahead:
			p.wake = e.at(d.Next.Due - ahead)
		default:
			fire = d.Next
		}
	}
	if fire == nil {
		return p
	}
	if s.staleJob == s.job.mod {
		return p // the definition has changed; its new version is on the way and brings us back
	}
	rec.Run = &jobs.Run{
		ID:   jobs.RunID(s.key.Name, s.key.UID, s.key.Shard, fire.At, ""),
		Tick: fire.At, Trigger: jobs.BySchedule, Attempt: 1, Phase: jobs.Armed, Holder: e.me,
		Due: fire.Due, ArmedAt: now, Generation: s.job.mod,
	}
	return planned{op: "arm", jobMod: s.job.mod}
}

// stopUnstarted ends a granted run that a stop command reached before its start.
func (e *Engine) stopUnstarted(s *shard) bool {
	var settles []store.SettledCommand
	for _, c := range s.job.commands[s.key.Shard] {
		if c.Command.Verb == store.VerbStop && (c.Command.Run == "" || c.Command.Run == s.rec.Run.ID) {
			sc := store.SettledCommand{Shard: c.Shard, ID: c.ID, Mod: c.Mod, Command: c.Command}
			sc.Command.Settled, sc.Command.EndedAt = s.rec.Run.ID, e.wallMS()
			settles = append(settles, sc)
		}
	}
	if len(settles) == 0 {
		return false
	}
	s.dequeue(e)
	rec := e.next(s)
	rec.End(jobs.Stopped, string(CauseStop), e.wallMS())
	e.commit(s, "stop", rec, planned{settles: settles})
	return true
}
