package engine

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// flight is a commit whose outcome is not known yet.
type flight struct {
	seq     int64
	commit  store.RecordCommit
	waiting bool // unknown outcome: submitted again at retryAt
	retryAt time.Duration
	tries   int
	settles *attempt // whose end this is
}

// commit submits a decision about a shard.
func (e *Engine) commit(s *shard, op string, rec jobs.Record, p planned) {
	e.seq++
	rec.Nonce = e.me.Incarnation + "." + strconv.FormatInt(e.seq, 36)
	if p.op != "" {
		op = p.op
	}
	s.flight = &flight{seq: e.seq, commit: store.RecordCommit{
		Op: op, Shard: s.key, Record: rec, Mod: s.mod, Me: e.me, JobMod: p.jobMod, Gone: p.gone, Settles: p.settles,
	}}
	if e.cfg.Mutant == MutantBlindFinish && op == "finish" {
		s.flight.commit.Mod = -1
	}
	e.heap.set(s, e.wakeLive(s))
	e.emit(Commit{Seq: e.seq, Commit: s.flight.commit})
}

// wakeLive is when a running handler needs attention while a commit is in flight.
func (e *Engine) wakeLive(s *shard) time.Duration {
	if s.live == nil || s.live.done || s.live.cause != "" {
		return never
	}
	if t := time.Duration(s.live.job.Spec.Run.Timeout); t > 0 {
		return max(s.live.boot+t, e.now.Boot+time.Millisecond)
	}
	return never
}

// resubmit sends a commit with an unknown outcome again, unchanged: the guards let at most one submission through.
func (e *Engine) resubmit(s *shard) {
	f := s.flight
	if !f.waiting {
		return
	}
	if e.now.Boot < f.retryAt {
		e.heap.set(s, min(f.retryAt, e.wakeLive(s)))
		return
	}
	f.waiting = false
	e.heap.set(s, e.wakeLive(s))
	e.emit(Commit{Seq: f.seq, Commit: f.commit})
}

func (e *Engine) committed(in Committed) {
	s := e.find(in.Shard)
	if s == nil || s.flight == nil || s.flight.seq != in.Seq {
		return // of a former incarnation: whoever comes next settles it
	}
	f := s.flight
	switch {
	case in.Result.Err != nil && e.cfg.Mutant == MutantAmbiguousWon:
		e.won(s, s.mod+1)
	case in.Result.Err != nil && e.cfg.Mutant == MutantAmbiguousLost:
		s.flight, s.known, s.live = nil, false, nil
		e.consider(s)
	case in.Result.Err != nil:
		f.waiting = true
		f.tries++
		wait := min(time.Duration(f.tries)*50*time.Millisecond, time.Second)
		if errors.Is(in.Result.Err, kv.ErrRefused) {
			wait = time.Second
		}
		f.retryAt = e.now.Boot + wait
		e.heap.set(s, min(f.retryAt, e.wakeLive(s)))
	case in.Result.Applied:
		e.won(s, in.Result.Revision)
	default:
		e.refused(s, in.Result.Observed)
	}
}

// won takes the committed record as the truth and goes on from there.
func (e *Engine) won(s *shard, rev int64) {
	f := s.flight
	old := s.rec
	s.flight, s.holdUntil, s.polls = nil, 0, 0
	s.rec, s.mod = f.commit.Record, rev
	s.settled(f.commit.Settles)
	e.report(s, &old, f)
	if s.live != nil && s.live == f.settles {
		s.live = nil
	} else if s.live != nil {
		s.live.flushed = s.live.flushed || s.rec.Run != nil && s.rec.Run.Phase == jobs.Running
	}
	run := s.rec.Run
	s.granted = s.live == nil && run != nil && run.Holder == e.me && run.Phase == jobs.Armed
	if e.cfg.Mutant == MutantCrossLife && run != nil && run.Holder != e.me && run.Phase == jobs.Armed {
		mine := *run
		mine.Holder = e.me
		s.rec.Run, s.granted, s.known = &mine, true, true
	}
	e.consider(s)
}

// refused finds out why.
func (e *Engine) refused(s *shard, observed kv.Item) {
	f := s.flight
	var cur jobs.Record
	if observed.Exists() {
		if err := json.Unmarshal(observed.Value, &cur); err != nil {
			s.holdUntil = e.now.Boot + 5*time.Second
			s.flight, s.known = nil, false
			e.emit(Note{Kind: NoteCorrupt, Shard: s.key, Text: "record " + s.key.String() + ": " + err.Error()})
			e.heap.set(s, s.holdUntil)
			return
		}
		if cur.Nonce == f.commit.Record.Nonce && e.cfg.Mutant != MutantNoNonce {
			e.won(s, observed.Mod)
			return
		}
	}
	s.flight = nil
	if observed.Mod == s.mod {
		// The record is as I know it: the definition, the former holder, a command or my own key refused.
		if f.commit.JobMod != 0 && f.commit.Gone == (jobs.Holder{}) {
			s.staleJob = f.commit.JobMod
		}
		s.settled(f.commit.Settles)
		if s.live != nil {
			s.live.stops = nil // one of them may have been what refused; those that remain come again
		}
		s.holdUntil = e.now.Boot + 50*time.Millisecond
		e.heap.set(s, s.holdUntil)
		if f.commit.Gone != (jobs.Holder{}) {
			s.staleJob = 0
		}
		e.consider(s)
		return
	}
	e.emit(Note{Kind: NoteRefused, Shard: s.key, Text: f.commit.Op})
	if s.live != nil {
		if !s.live.done {
			// Whoever took the shard over believes that this incarnation is gone.
			e.undead[s.key]++
			e.running--
			e.cancel(s.live, CauseLost)
		}
		s.live = nil
	}
	s.known, s.granted = false, false
	s.dequeue(e)
	e.consider(s)
}

// settled removes commands that a commit settled, or that turned out to be changed.
func (s *shard) settled(cs []store.SettledCommand) {
	for _, c := range cs {
		list := s.job.commands[c.Shard]
		kept := make([]store.CommandItem, 0, len(list))
		for _, o := range list {
			if o.ID != c.ID || o.Mod != c.Mod {
				kept = append(kept, o)
			}
		}
		if len(kept) == 0 {
			delete(s.job.commands, c.Shard)
		} else {
			s.job.commands[c.Shard] = kept
		}
	}
}

// report tells logs and metrics what the commit made true.
func (e *Engine) report(s *shard, old *jobs.Record, f *flight) {
	rec := &s.rec
	if len(rec.Facts) > 0 {
		e.emit(Note{Kind: NoteFacts, Shard: s.key, Facts: rec.Facts})
	}
	kind := ""
	if s.job.def != nil {
		kind = s.job.def.Spec.Run.Kind()
	}
	if rec.Last != nil && (old.Last == nil || old.Last.ID != rec.Last.ID || old.Last.EndedAt != rec.Last.EndedAt) {
		e.emit(Note{Kind: NoteEnded, Shard: s.key, Run: rec.Last, Target: kind})
	}
	switch f.commit.Op {
	case "takeover":
		n := Note{Kind: NoteTakeover, Shard: s.key, Run: rec.Run, Text: f.commit.Gone.Executor}
		if at, ok := e.goneAt[f.commit.Gone.Incarnation]; ok {
			n.Lateness = e.now.Boot - at
		}
		e.emit(n)
	case "release":
		e.emit(Note{Kind: NoteReleased, Shard: s.key, Run: rec.Run})
	case "retry":
		e.emit(Note{Kind: NoteRetry, Shard: s.key, Run: rec.Run, Target: kind})
	}
}
