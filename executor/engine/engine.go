package engine

import (
	"fmt"
	"sort"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// Config of an engine.
type Config struct {
	Executor    string
	Namespaces  []string
	ArmAhead    time.Duration // default 1 s
	WriteBehind time.Duration // how long a run lasts before its start is written; default 200 ms
	Slots       int           // attempts at a time; 0: no limit
	Lease       lease.Config
	Mutant      Mutant // planted bugs, for tests of the checkers; zero in production
}

// Engine is the machine. Not safe for concurrent use.
type Engine struct {
	cfg   Config
	lease *lease.Machine
	me    jobs.Holder
	id    kv.LeaseID

	jobs      map[store.JobKey]*job
	assigned  map[store.JobKey]store.Assignment
	alive     map[presence]bool        // incarnations seen, by namespace
	heldAt    int64                    // revision of my registration
	goneAt    map[string]time.Duration // incarnations seen going, for the failover metric
	synced    map[source]bool
	runs      map[int64]*attempt        // handlers that have not ended, of any incarnation
	undead    map[store.ShardKey]int    // handlers of a former incarnation that still live
	former    map[store.ShardKey]*shard // shards of a former life of a job that still run
	allListed bool                      // everything was listed once
	heap      wakes
	ready     []*shard // due, waiting for a slot
	running   int
	toLoad    map[*job][]int
	seq       int64
	offset    time.Duration // wall - boot when the wakes were computed

	draining   bool
	drainUntil time.Duration
	finished   bool
	pulsed     time.Duration

	now lease.Now
	out []any
}

// job is a definition with what this executor knows about its shards.
type job struct {
	key      store.JobKey
	uid      int64
	mod      int64
	def      *jobs.Job
	timeline *jobs.Timeline
	deleted  bool
	shards   map[int]*shard
	commands map[int][]store.CommandItem // unsettled, in order of their revisions
}

// attempt is one handler that was started here.
type attempt struct {
	seq     int64
	shard   store.ShardKey
	run     jobs.Run
	job     *jobs.Job
	lease   kv.LeaseID
	boot    time.Duration // of the start
	cause   Cause
	done    bool
	outcome Outcome
	flushed bool
	warned  bool
	stops   []store.SettledCommand
}

// New returns an engine that registers at its first step.
func New(cfg Config) *Engine {
	if cfg.ArmAhead == 0 {
		cfg.ArmAhead = time.Second
	}
	if cfg.WriteBehind == 0 {
		cfg.WriteBehind = 200 * time.Millisecond
	}
	return &Engine{
		cfg: cfg, lease: lease.New(cfg.Lease), me: jobs.Holder{Executor: cfg.Executor},
		jobs: map[store.JobKey]*job{}, assigned: map[store.JobKey]store.Assignment{}, alive: map[presence]bool{},
		goneAt: map[string]time.Duration{}, synced: map[source]bool{}, runs: map[int64]*attempt{},
		undead: map[store.ShardKey]int{}, former: map[store.ShardKey]*shard{}, toLoad: map[*job][]int{},
	}
}

// Wake is when, on CLOCK_BOOTTIME, the engine needs a lease.Tick at the latest.
func (e *Engine) Wake() time.Duration {
	at := e.lease.Wake()
	if len(e.heap) > 0 {
		at = min(at, e.heap[0].wake)
	}
	if e.draining && !e.finished {
		if e.now.Boot < e.drainUntil {
			at = min(at, e.drainUntil)
		} else if e.now.Boot < e.drainUntil+lastWords {
			at = min(at, e.drainUntil+lastWords)
		}
	}
	if e.lease.Held() != "" {
		at = min(at, e.pulsed+pulseEvery)
	}
	return at
}

// tickBatch bounds the shards that one Tick attends to, so that the first handlers of a burst start while the rest is decided;
// Wake then says that more are due.
const tickBatch = 64

// lastWords is how long a drain whose limit has passed still waits for commits in flight.
const lastWords = 2 * time.Second

const pulseEvery = 5 * time.Second

// Due says whether shards need attention now: the last Tick did not get to all of them.
func (e *Engine) Due(boot time.Duration) bool { return len(e.heap) > 0 && e.heap[0].wake <= boot }

// Me is the incarnation in force; zero when none is held.
func (e *Engine) Me() jobs.Holder {
	if e.lease.Held() == "" {
		return jobs.Holder{}
	}
	return e.me
}

// Synced says whether the incarnation is registered and everything was listed once.
func (e *Engine) Synced() bool { return e.lease.Held() != "" && e.listed() }

// Counts for metrics and tests: shards known here, handlers running.
func (e *Engine) Counts() (shards, running int) {
	for _, j := range e.jobs {
		shards += len(j.shards)
	}
	return shards, len(e.runs)
}

// Step advances the machine. The returned slice is valid until the next call.
func (e *Engine) Step(in any, now lease.Now) []any {
	e.now, e.out = now, e.out[:0]
	if off := time.Duration(now.Wall.UnixNano()) - now.Boot; off-e.offset > 20*time.Millisecond || e.offset-off > 20*time.Millisecond {
		// The wall clock was set: all wakes were computed from the old one.
		e.offset = off
		e.everyShard(e.consider)
	}
	switch in := in.(type) {
	case store.Update:
		e.update(in)
	case Committed:
		e.committed(in)
	case Loaded:
		e.loaded(in)
	case Ended:
		e.ended(in)
	case Drain:
		e.drain(in)
	case lease.Tick:
		e.leaseStep(in)
		e.tick()
	default:
		e.leaseStep(in)
	}
	e.load()
	e.checkFinished()
	return e.out
}

func (e *Engine) emit(effect any) { e.out = append(e.out, effect) }

func (e *Engine) wallMS() int64 { return e.now.Wall.UnixMilli() }

// at converts a wall instant to CLOCK_BOOTTIME.
func (e *Engine) at(ms int64) time.Duration {
	return e.now.Boot + time.Duration(ms*int64(time.Millisecond)-e.now.Wall.UnixNano())
}

func (e *Engine) tick() {
	for n := 0; n < tickBatch && len(e.heap) > 0 && e.heap[0].wake <= e.now.Boot; n++ {
		s := e.heap[0]
		e.heap.set(s, never)
		e.consider(s)
	}
	if e.lease.Held() != "" && e.now.Boot >= e.pulsed+pulseEvery {
		e.pulsed = e.now.Boot
		e.emit(Pulse{Running: len(e.runs)})
	}
	if e.draining && e.now.Boot >= e.drainUntil {
		for _, a := range e.runs {
			e.cancel(a, CauseDrain)
		}
	}
}

// leaseStep passes an input to the lease machine and handles what is the engine's.
func (e *Engine) leaseStep(in any) {
	for _, effect := range e.lease.Step(in, e.now) {
		switch f := effect.(type) {
		case lease.Held:
			e.me.Incarnation, e.id = f.Incarnation, f.Lease
			e.heldAt = f.Revision
			for _, ns := range e.cfg.Namespaces {
				e.alive[presence{ns, f.Incarnation}] = true
			}
			e.pulsed = e.now.Boot
			e.emit(f)
			e.emit(Pulse{})
			if e.draining {
				e.emit(Announce{State: store.Draining})
			}
			e.everyShard(e.consider)
		case lease.Fenced:
			e.emit(f)
			e.fenced(f)
		default:
			e.emit(f)
		}
	}
}

// fenced ends the incarnation: every handler is cancelled, every decision in flight forgotten.
func (e *Engine) fenced(f lease.Fenced) {
	var live []*attempt
	for _, a := range e.runs {
		if a.lease == f.Lease {
			live = append(live, a)
		}
	}
	sort.Slice(live, func(i, j int) bool { return live[i].seq < live[j].seq })
	for _, a := range live {
		e.undead[a.shard]++
		e.cancel(a, CauseFenced)
	}
	e.ready, e.running = nil, 0
	e.everyShard(func(s *shard) {
		f := s.flight
		s.forget()
		e.heap.set(s, never)
		if e.cfg.Mutant == MutantCrossLife && f != nil {
			s.flight = f
			f.waiting, f.retryAt = true, e.now.Boot
			e.heap.set(s, e.now.Boot)
		}
	})
	if len(live) == 0 {
		e.leaseStep(lease.Released{Lease: f.Lease})
	}
}

func (e *Engine) cancel(a *attempt, cause Cause) {
	if a.cause == "" || cause == CauseFenced && a.cause != CauseFenced {
		a.cause = cause
		e.emit(Cancel{a.seq, cause})
	}
}

// everyShard visits in a fixed order, so that one seed gives one history.
func (e *Engine) everyShard(f func(*shard)) {
	keys := make([]store.JobKey, 0, len(e.jobs))
	for k := range e.jobs {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
	for _, k := range keys {
		e.everyShardOf(e.jobs[k], f)
	}
	if len(e.former) > 0 {
		old := make([]*shard, 0, len(e.former))
		for _, s := range e.former {
			old = append(old, s)
		}
		sort.Slice(old, func(i, j int) bool { return fmt.Sprint(old[i].key) < fmt.Sprint(old[j].key) })
		for _, s := range old {
			f(s)
		}
	}
}

func (e *Engine) everyShardOf(j *job, f func(*shard)) {
	nums := make([]int, 0, len(j.shards))
	for n := range j.shards {
		nums = append(nums, n)
	}
	sort.Ints(nums)
	for _, n := range nums {
		if s := j.shards[n]; s != nil {
			f(s)
		}
	}
}

// update takes in a part of the store's state.
// reset removes what a fresh listing no longer holds.
// applyAssignment marks the shards that this executor should own.
// load asks for the records that decisions wait for, one request per job.
func (e *Engine) drain(in Drain) {
	if e.draining {
		e.drainUntil = min(e.drainUntil, e.now.Boot+in.Limit)
		e.tick()
		return
	}
	e.draining, e.drainUntil = true, e.now.Boot+in.Limit
	if e.lease.Held() != "" {
		e.emit(Announce{State: store.Draining})
	}
	e.everyShard(e.consider)
}

// checkFinished ends a drain once nothing is running and nothing is left to say.
func (e *Engine) checkFinished() {
	if !e.draining || e.finished || len(e.runs) > 0 {
		return
	}
	if e.lease.Held() != "" && e.now.Boot < e.drainUntil+lastWords {
		for _, j := range e.jobs {
			for _, s := range j.shards {
				if s.flight != nil || s.live != nil {
					return
				}
			}
		}
		if len(e.former) > 0 {
			return
		}
	}
	e.finished = true
	e.leaseStep(lease.Stop{})
	e.emit(Finished{})
}

// Dump describes what the engine knows of each shard, one line each, for diagnosis.
func (e *Engine) Dump() []string {
	var out []string
	e.everyShard(func(s *shard) {
		flight := "none"
		if s.flight != nil {
			flight = fmt.Sprintf("%s(waiting=%v tries=%d)", s.flight.commit.Op, s.flight.waiting, s.flight.tries)
		}
		out = append(out, fmt.Sprintf("%s/%d uid=%d owned=%v known=%v loading=%v granted=%v queued=%v live=%v undead=%d flight=%s stale=%d wake=%v hold=%v now=%v",
			s.key.JobKey, s.key.Shard, s.key.UID, s.owned, s.known, s.loading, s.granted, s.queued, s.live != nil, e.undead[s.key], flight,
			s.staleJob, s.wake, s.holdUntil, e.now.Boot))
	})
	return out
}
