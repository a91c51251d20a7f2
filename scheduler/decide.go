package scheduler

import (
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/shards"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// Memory is what a scheduler remembers beside the view. All of it may be lost: it is advice, or is read again.
type Memory struct {
	store.Advice
	Settled map[store.JobKey]map[int]int64 // records of the upstream jobs, by shard
	UIDs    map[store.JobKey]int64         // the life of the job that Settled belongs to
}

// NewMemory returns an empty one.
func NewMemory() *Memory {
	return &Memory{Advice: store.NewAdvice(), Settled: map[store.JobKey]map[int]int64{}, UIDs: map[store.JobKey]int64{}}
}

// Decision is what a leader should commit.
type Decision struct {
	Assign   []kv.Txn
	Rounds   []RoundStep
	Moves    map[string]int // shards moved, by reason
	Unplaced map[store.JobKey]string
}

// RoundStep hands one tick to a job: all Commands must be known to exist before Advance.
type RoundStep struct {
	Commands []kv.Txn
	Advance  kv.Txn
}

// Decide computes the difference between what is and what should be.
func Decide(st *store.Store, v *store.View, m *Memory, term string, now time.Time) Decision {
	d := Decision{Moves: map[string]int{}, Unplaced: map[store.JobKey]string{}}
	names := make([]string, 0, len(v.Namespaces))
	for ns := range v.Namespaces {
		names = append(names, ns)
	}
	sort.Strings(names)
	for _, ns := range names {
		assign(st, v, m, term, ns, now, &d)
		chain(st, v, m, term, ns, &d)
	}
	return d
}

func assign(st *store.Store, v *store.View, m *Memory, term, ns string, now time.Time, d *Decision) {
	candidates := v.Candidates(m.Advice, ns)
	present := map[string]bool{}
	for _, c := range candidates {
		present[c.ID] = true
	}
	owners := v.Owners(ns)
	items := sortedJobs(v, ns)
	plan := make([]shards.Job, len(items))
	for i, it := range items {
		plan[i] = it.Planned(owners)
	}
	made := shards.Make(candidates, plan)
	want := map[store.AssignmentKey]*store.Assignment{}
	at := now.UnixMilli()
	for i, it := range items {
		jp := made.Jobs[i]
		if jp.Unplaced != "" {
			d.Unplaced[it.JobKey] = jp.Unplaced
		}
		total := 0
		for _, o := range jp.Owner {
			if o != "" {
				total++
			}
		}
		for s, o := range jp.Owner {
			if o == "" && !plan[i].PerExecutor && s < len(plan[i].Current) && !present[plan[i].Current[s]] {
				o = plan[i].Current[s] // nobody can have it: keep it for its owner's return
			}
			if o == "" {
				continue
			}
			k := store.AssignmentKey{JobKey: it.JobKey, Executor: o}
			a := want[k]
			if a == nil {
				a = &store.Assignment{UID: it.UID}
				want[k] = a
			}
			a.Shards = append(a.Shards, s)
			if it.Job.Spec.Shards.PerExecutor {
				a.Total, a.Since = total, at
				if cur, ok := v.Assignments[k]; ok && cur.Assignment.UID == it.UID && slices.Equal(cur.Assignment.Shards, a.Shards) {
					a.Since = cur.Assignment.Since
				}
			}
		}
		moves(it, jp, want, at, d)
	}
	d.diff(st, v, term, ns, want)
}

// moves notes at each receiver what it got from whom and why.
func moves(it store.JobItem, jp shards.JobPlan, want map[store.AssignmentKey]*store.Assignment, at int64, d *Decision) {
	type origin struct{ to, from, reason string }
	byOrigin := map[origin]*store.Move{}
	var order []origin
	for _, mv := range jp.Moves {
		if mv.To == "" {
			continue
		}
		d.Moves[mv.Reason]++
		o := origin{mv.To, mv.From, mv.Reason}
		if byOrigin[o] == nil {
			byOrigin[o] = &store.Move{From: mv.From, Reason: mv.Reason, At: at}
			order = append(order, o)
		}
		byOrigin[o].Shards = append(byOrigin[o].Shards, mv.Shard)
	}
	for _, o := range order {
		a := want[store.AssignmentKey{JobKey: it.JobKey, Executor: o.to}]
		a.Moves = append(a.Moves, *byOrigin[o])
	}
}

// diff turns what should be into transactions, those that take away first.
func (d *Decision) diff(st *store.Store, v *store.View, term, ns string, want map[store.AssignmentKey]*store.Assignment) {
	keys := map[store.AssignmentKey]bool{}
	for k := range v.Assignments {
		if k.Namespace == ns {
			keys[k] = true
		}
	}
	for k := range want {
		keys[k] = true
	}
	sorted := make([]store.AssignmentKey, 0, len(keys))
	for k := range keys {
		sorted = append(sorted, k)
	}
	sort.Slice(sorted, func(i, j int) bool {
		if sorted[i].JobKey != sorted[j].JobKey {
			return sorted[i].String() < sorted[j].String()
		}
		return sorted[i].Executor < sorted[j].Executor
	})
	var gives []kv.Txn
	for _, k := range sorted {
		cur, exists := v.Assignments[k]
		w := want[k]
		switch {
		case w == nil && exists:
			d.Assign = append(d.Assign, st.AssignTxn(term, k.JobKey, k.Executor, store.Assignment{}, cur.Mod))
		case w == nil:
		case exists && cur.Assignment.UID == w.UID && cur.Assignment.Total == w.Total && slices.Equal(cur.Assignment.Shards, w.Shards):
		default:
			t := st.AssignTxn(term, k.JobKey, k.Executor, *w, cur.Mod)
			if exists && len(w.Shards) < len(cur.Assignment.Shards) {
				d.Assign = append(d.Assign, t)
			} else {
				gives = append(gives, t)
			}
		}
	}
	d.Assign = append(d.Assign, gives...)
}

func sortedJobs(v *store.View, ns string) []store.JobItem {
	var out []store.JobItem
	for k, it := range v.Jobs {
		if k.Namespace == ns {
			out = append(out, it)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Upstreams are the jobs whose records the chains need.
func Upstreams(v *store.View) map[store.JobKey]int64 {
	out := map[store.JobKey]int64{}
	for k, it := range v.Jobs {
		for _, up := range it.Job.Spec.After {
			uk := store.JobKey{Namespace: k.Namespace, Name: up}
			if u, ok := v.Jobs[uk]; ok {
				out[uk] = u.UID
			}
		}
	}
	return out
}

// Learn takes in the records of an upstream job.
func (m *Memory) Learn(k store.JobKey, uid int64, reset bool, items []any) {
	if reset || m.UIDs[k] != uid {
		m.Settled[k], m.UIDs[k] = map[int]int64{}, uid
	}
	for _, it := range items {
		if r, ok := it.(store.RecordItem); ok && !r.Deleted && r.UID == uid {
			m.Settled[k][r.Shard] = r.Record.Settled()
		}
	}
}

// settled is the instant up to which all shards of a job have ended; ok is false while that is not known.
func (m *Memory) settled(it store.JobItem) (int64, bool) {
	recs := m.Settled[it.JobKey]
	if m.UIDs[it.JobKey] != it.UID || recs == nil {
		return 0, false
	}
	tl, err := it.Job.Timeline()
	if err != nil {
		return 0, false
	}
	low := int64(1 << 60)
	for s := range it.Job.Spec.Shards.Count {
		at, ok := recs[s]
		if !ok {
			at = 0
			if len(it.Job.Spec.After) == 0 {
				at = tl.Begin(s)
			}
		}
		low = min(low, at)
	}
	return low, true
}

func chain(st *store.Store, v *store.View, m *Memory, term, ns string, d *Decision) {
	for _, it := range sortedJobs(v, ns) {
		if len(it.Job.Spec.After) == 0 {
			continue
		}
		low := int64(1 << 60)
		known := true
		for _, up := range it.Job.Spec.After {
			u, ok := v.Jobs[store.JobKey{Namespace: ns, Name: up}]
			if !ok {
				known = false
				break
			}
			at, ok := m.settled(u)
			known = known && ok
			low = min(low, at)
		}
		if !known {
			continue
		}
		cur := v.Rounds[it.JobKey]
		if cur.Round.UID != it.UID {
			// The job is new: it starts with the next tick that its upstreams settle.
			d.Rounds = append(d.Rounds, RoundStep{Advance: st.RoundTxn(term, it.JobKey, store.Round{UID: it.UID, Tick: low}, cur.Mod)})
			continue
		}
		if low <= cur.Round.Tick {
			continue
		}
		// One tick at a time: the commands of the next one are created only once the round has moved, so that a late
		// duplicate can never let a shard see a newer tick before an older one.
		step := RoundStep{}
		to := low
		if tick, ok := nextTick(v, it, cur.Round.Tick, 0); ok && tick <= low {
			to = tick
			if it.Job.Enabled() && !excluded(v, it, tick) {
				for _, s := range numbers(v, it) {
					step.Commands = append(step.Commands, st.CommandTxn(it.JobKey, s, "u"+strconv.FormatInt(tick, 10), store.Command{
						Verb: store.VerbRun, Trigger: jobs.ByUpstream, Tick: tick, At: tick,
					}, term))
				}
			}
		}
		step.Advance = st.RoundTxn(term, it.JobKey, store.Round{UID: it.UID, Tick: to}, cur.Mod)
		d.Rounds = append(d.Rounds, step)
	}
}

// numbers are the shards of a job that exist now.
func numbers(v *store.View, it store.JobItem) []int {
	var out []int
	if !it.Job.Spec.Shards.PerExecutor {
		for s := range it.Job.Spec.Shards.Count {
			out = append(out, s)
		}
		return out
	}
	for s := range v.Owners(it.Namespace)[it.JobKey] {
		out = append(out, s)
	}
	sort.Ints(out)
	return out
}

// nextTick is the first instant after at that is a tick of every upstream of a job; depth guards against cycles that arise
// from two definitions written at once.
func nextTick(v *store.View, it store.JobItem, at int64, depth int) (int64, bool) {
	if depth > 64 {
		return 0, false
	}
	if len(it.Job.Spec.After) == 0 {
		tl, err := it.Job.Timeline()
		if err != nil {
			return 0, false
		}
		t, ok := tl.Next(at)
		return t.At, ok
	}
	for range 100_000 {
		high, same := int64(0), true
		for i, up := range it.Job.Spec.After {
			u, ok := v.Jobs[store.JobKey{Namespace: it.Namespace, Name: up}]
			if !ok {
				return 0, false
			}
			t, ok := nextTick(v, u, at, depth+1)
			if !ok {
				return 0, false
			}
			same = same && (i == 0 || t == high)
			high = max(high, t)
		}
		if same {
			return high, true
		}
		at = high - 1
	}
	return 0, false
}

// excluded says whether a tick lies in a pause window of an upstream, so that nothing ran for it.
func excluded(v *store.View, it store.JobItem, tick int64) bool {
	for _, up := range it.Job.Spec.After {
		u := v.Jobs[store.JobKey{Namespace: it.Namespace, Name: up}]
		if u.Job == nil || len(u.Job.Spec.After) > 0 {
			continue
		}
		if tl, err := u.Job.Timeline(); err == nil {
			if t, ok := tl.Next(tick - 1); ok && t.At == tick && (t.Excluded || t.Superseded) {
				return true
			}
		}
	}
	return false
}
