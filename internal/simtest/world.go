package simtest

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"time"

	"github.com/rota-dev/rota/executor/engine"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
	"github.com/rota-dev/rota/store/memkv"
)

const ms = time.Millisecond

// Options of one world.
type Options struct {
	Seed          uint64
	Engine        engine.Mutant
	Lease         lease.Mutant
	NoShim        bool // mutant: children outlive a paused or killed executor
	SharedKey     bool // mutant: all incarnations of an executor share one key
	NoFaults      bool
	NoSchedulers  time.Duration // schedulers die for good at this time
	Trace         func(string)
	Duration      time.Duration
	NoJobEdits    bool
	OnlyExecutors int
}

type event struct {
	at  time.Duration
	seq int
	f   func()
}

type queue []*event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *queue) Pop() any     { o := *q; x := o[len(o)-1]; *q = o[:len(o)-1]; return x }

// World is one run of the simulation.
type World struct {
	opt  Options
	now  time.Duration
	seq  int
	q    queue
	rnd  *rand.Rand
	core *memkv.Core
	st   *store.Store
	down bool

	execs  []*exec
	scheds []*sched
	check  *checker
	ids    int

	Faults map[string]int
	Starts int
}

// epoch is the wall clock at the beginning.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (w *World) at(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.q, &event{w.now + d, w.seq, f})
}

func (w *World) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rnd.Int64N(int64(b-a)+1))
}
func (w *World) chance(p float64) bool { return w.rnd.Float64() < p }

func (w *World) log(format string, a ...any) {
	if w.opt.Trace != nil {
		w.opt.Trace(fmt.Sprintf("%9.3f ", w.now.Seconds()) + fmt.Sprintf(format, a...))
	}
}

func (w *World) id() string {
	w.ids++
	return fmt.Sprintf("i%05d", w.ids)
}

// apply runs a transaction at the store and shows it to the checkers.
func (w *World) apply(t kv.Txn) kv.Result {
	r := w.core.Apply(t)
	if r.Applied {
		for _, c := range t.Changes {
			if strings.Contains(c.Key, "/runs/") {
				w.check.record(c, r.Revision)
			}
		}
	}
	return r
}

func every(d time.Duration, misfire jobs.Misfire, shards int, lost jobs.OnLost, name string) *jobs.Job {
	return &jobs.Job{
		APIVersion: jobs.APIVersion, Kind: "Job", Metadata: jobs.Metadata{Namespace: "sim", Name: name},
		Spec: jobs.Spec{
			Schedule: &jobs.Schedule{Every: jobs.Duration(d), Misfire: misfire}, Shards: jobs.Shards{Count: shards},
			Run: jobs.RunSpec{Shell: "x", OnLost: lost, Timeout: jobs.Duration(20 * time.Second), Retry: &jobs.Retry{Attempts: 2, Backoff: jobs.Duration(200 * ms)}},
		},
	}
}

// Run plays one seed and returns the violations.
func Run(opt Options) (*World, []string) {
	if opt.Duration == 0 {
		opt.Duration = 60 * time.Second
	}
	w := &World{opt: opt, rnd: rand.New(rand.NewPCG(opt.Seed, 7)), core: memkv.NewCore(), Faults: map[string]int{}}
	w.st = store.New(nil, "")
	w.check = newChecker(w)
	w.putJSON("namespaces/sim", jobs.Namespace{})
	rerun, fail := every(5*time.Second, jobs.MisfireAll, 2, jobs.OnLostRerun, "rerun"), every(5*time.Second, jobs.MisfireOnce, 2, jobs.OnLostFail, "once")
	chained := every(0, "", 1, jobs.OnLostRerun, "chained")
	chained.Spec.Schedule, chained.Spec.After = nil, []string{"rerun"}
	edited := every(2*time.Second, jobs.MisfireOnce, 1, jobs.OnLostRerun, "edited")
	for _, j := range []*jobs.Job{rerun, fail, chained, edited} {
		j.Stamp(nil, epoch)
		w.putJob(j)
	}
	n := 3
	if opt.OnlyExecutors > 0 {
		n = opt.OnlyExecutors
	}
	for i := range n {
		x := &exec{node: node{w: w, name: fmt.Sprintf("x%d", i), rate: 1 + (w.rnd.Float64()-0.5)*0.01}}
		w.execs = append(w.execs, x)
		x.boot()
	}
	for i := range 2 {
		s := &sched{node: node{w: w, name: fmt.Sprintf("s%d", i), rate: 1}}
		w.scheds = append(w.scheds, s)
		s.boot()
	}
	w.expire()
	if !opt.NoFaults {
		w.nemesis()
	}
	if !opt.NoJobEdits {
		w.editor(edited)
	}
	if opt.NoSchedulers > 0 {
		w.at(opt.NoSchedulers, func() {
			for _, s := range w.scheds {
				s.dead = true
				s.life++
			}
		})
	}
	w.at(opt.Duration, w.heal)
	end := opt.Duration + 40*time.Second
	for len(w.q) > 0 && w.now < end && len(w.check.bad) < 5 {
		ev := heap.Pop(&w.q).(*event)
		w.now = ev.at
		ev.f()
	}
	w.check.finish(opt.Duration)
	return w, w.check.bad
}

func (w *World) putJSON(key string, v any) {
	b, _ := json.Marshal(v)
	w.core.Apply(kv.Txn{Changes: []kv.Change{{Key: store.DefaultPrefix + key, Value: b}}})
}

func (w *World) putJob(j *jobs.Job) {
	key := store.DefaultPrefix + "sim/jobs/" + j.Metadata.Name
	b, _ := json.Marshal(j)
	w.core.Apply(kv.Txn{Changes: []kv.Change{{Key: key, Value: b}}})
	w.check.job(j, w.core.Get(key))
}

// editor edits, disables, deletes and recreates one job at random moments.
func (w *World) editor(base *jobs.Job) {
	cur := base
	var next func()
	next = func() {
		if w.now > w.opt.Duration {
			return
		}
		now := epoch.Add(w.now)
		j := *base
		switch w.rnd.IntN(4) {
		case 0:
			off := false
			j.Spec.Enabled = &off
		case 1:
			s := *base.Spec.Schedule
			s.Every = jobs.Duration([]time.Duration{time.Second, 2 * time.Second, 3 * time.Second}[w.rnd.IntN(3)])
			j.Spec.Schedule = &s
		case 2:
			w.core.Apply(kv.Txn{Changes: []kv.Change{{Key: store.DefaultPrefix + "sim/jobs/edited", Delete: true}}})
			w.check.job(nil, kv.Item{Key: "edited"})
			cur = nil
		}
		j.Status = nil
		j.Stamp(cur, now)
		w.log("EDIT every=%v enabled=%v new=%v", j.Spec.Schedule.Every, j.Enabled(), cur == nil)
		cur = &j
		w.putJob(cur)
		w.at(w.between(500*ms, 9*time.Second), next)
	}
	w.at(w.between(500*ms, 9*time.Second), next)
}

func (w *World) expire() {
	if !w.down {
		w.core.Expire(w.now)
	}
	w.at(250*ms, w.expire)
}

func (w *World) heal() {
	w.log("HEAL")
	w.down = false
	for _, x := range w.execs {
		x.cutTo, x.cutFrom, x.wallOff = false, false, 0
		x.resume()
		if x.dead {
			x.boot()
		}
	}
	for _, s := range w.scheds {
		if w.opt.NoSchedulers > 0 {
			break
		}
		s.cutTo, s.cutFrom = false, false
		s.resume()
		if s.dead {
			s.boot()
		}
	}
}

func (w *World) nemesis() {
	w.at(w.between(500*ms, 6*time.Second), func() {
		if w.now >= w.opt.Duration {
			return
		}
		x := w.execs[w.rnd.IntN(len(w.execs))]
		d := w.between(200*ms, 9*time.Second)
		kind := []string{"kill", "stop", "freeze", "cut", "cut-requests", "cut-answers", "clock", "store-down", "store-leader", "scheduler", "compact"}[w.rnd.IntN(11)]
		w.Faults[kind]++
		w.log("FAULT %s %s %v", kind, x.name, d)
		switch kind {
		case "kill":
			if !x.dead {
				x.kill()
				w.at(d, func() {
					if x.dead {
						x.boot()
					}
				})
			}
		case "stop", "freeze":
			if !x.dead && !x.paused {
				x.pause(kind == "freeze")
				life := x.life
				w.at(d, func() {
					if x.life == life {
						x.resume()
					}
				})
			}
		case "cut", "cut-requests", "cut-answers":
			x.cutTo = x.cutTo || kind != "cut-answers"
			x.cutFrom = x.cutFrom || kind != "cut-requests"
			w.at(d, func() { x.cutTo, x.cutFrom = false, false })
		case "clock":
			x.wallOff = w.between(-20*time.Second, 3*time.Second)
			w.at(d, func() { x.wallOff = w.between(-200*ms, 200*ms) })
		case "store-down":
			w.down = true
			w.at(min(d, 4*time.Second), func() {
				w.down = false
				w.core.ExtendAll(w.now, time.Second)
			})
		case "store-leader":
			w.core.ExtendAll(w.now, time.Second)
		case "compact":
			w.core.Compact(w.core.Revision())
		case "scheduler":
			s := w.scheds[w.rnd.IntN(len(w.scheds))]
			life := s.life
			if w.chance(0.5) && !s.dead {
				s.dead = true
				s.life++
				w.at(d, func() {
					if s.dead {
						s.boot()
					}
				})
			} else if !s.paused && !s.dead {
				s.paused = true
				w.at(d, func() {
					if s.life == life {
						s.resume()
					}
				})
			}
		}
		w.nemesis()
	})
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
