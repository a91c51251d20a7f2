package shards

import (
	"container/heap"
	"sort"
	"strings"

	"github.com/rota-dev/rota/jobs"
)

// Executor is a candidate owner.
type Executor struct {
	ID       string
	Labels   map[string]string
	Capacity int // relative; 0 counts as 1
	Handlers []string
	Shell    bool
	HTTP     bool
	OddZones bool   // its time zone rules differ from those of the others
	Drained  string // reason why it takes nothing; "" when it does
	Damped   bool   // comes and goes: keeps what it has, takes nothing new
}

// Job is what a plan needs to know of a job.
type Job struct {
	Key         string // any name that is unique in the input; ties are broken by it
	Shards      int
	PerExecutor bool
	Zoned       bool // its schedule is in a zone other than UTC
	Run         jobs.RunSpec
	Placement   jobs.Placement
	// Current is the owner of each shard by executor id, "" for none; for PerExecutor jobs it may be longer than needed.
	Current []string
}

// Plan is the outcome.
type Plan struct {
	Jobs []JobPlan // in input order
}

// JobPlan is who should own the shards of one job.
type JobPlan struct {
	Owner    []string // by shard; "" when it cannot be placed
	Moves    []Move   // what differs from Current
	Unplaced string   // why shards are left without an owner; "" when none is
}

// Move is one change of owner.
type Move struct {
	Shard    int
	From, To string
	Reason   string
}

// The reasons of moves.
const (
	ReasonNew     = "has no owner"
	ReasonGone    = "owner is gone"
	ReasonDrained = "owner is drained"
	ReasonUnfit   = "owner is no longer eligible"
	ReasonPrefer  = "a preferred executor is available"
	ReasonBalance = "evens out the load"
	ReasonNoOwner = "no executor is eligible"
	ReasonFewer   = "the job has fewer shards"
	ReasonPerExec = "one shard for each executor"
)

type node struct {
	x    *Executor
	idx  int
	cap  int
	load int
}

// Make plans all jobs over all executors. Executors must have distinct ids.
func Make(executors []Executor, js []Job) Plan {
	nodes := make([]*node, len(executors))
	byID := make(map[string]*node, len(executors))
	for i := range executors {
		nodes[i] = &node{x: &executors[i], cap: max(executors[i].Capacity, 1)}
	}
	sort.Slice(nodes, func(i, j int) bool { return nodes[i].x.ID < nodes[j].x.ID })
	for i, n := range nodes {
		n.idx = i
		byID[n.x.ID] = n
	}
	p := Plan{Jobs: make([]JobPlan, len(js))}
	pools := map[string]*pool{} // jobs with the same demands share the answer
	order := make([]int, len(js))
	for i := range js {
		order[i] = i
	}
	sort.Slice(order, func(a, b int) bool { return js[order[a]].Key < js[order[b]].Key })
	// What stays counts before anything is placed, so that the outcome does not depend on the order of jobs.
	works := make([]work, len(js))
	for _, i := range order {
		works[i] = keep(&js[i], nodes, byID, pools)
	}
	counts := make([]int, len(nodes))
	for _, i := range order {
		works[i].fill(counts)
	}
	// Evening out one job changes the load that others see; every move lowers the same potential, so this ends.
	for moved, round := true, 0; moved && round < 16; round++ {
		moved = false
		for _, i := range order {
			if works[i].balance(counts) {
				moved = true
			}
		}
	}
	for i := range js {
		p.Jobs[i] = works[i].result()
	}
	return p
}

// pool is the executors that jobs with the same demands may use.
type pool struct {
	eligible []*node
	takers   []*node // those that may receive
	in       []bool  // by index
}

// work is a job while it is planned.
type work struct {
	job    *Job
	pool   *pool
	owner  []*node
	why    []string // of shards without an owner: why the current one does not stay
	weight int
}

func keep(j *Job, nodes []*node, byID map[string]*node, pools map[string]*pool) work {
	sig := signature(j)
	p := pools[sig]
	if p == nil {
		p = &pool{eligible: choose(j, nodes), in: make([]bool, len(nodes))}
		for _, n := range p.eligible {
			p.in[n.idx] = true
			if !n.x.Damped {
				p.takers = append(p.takers, n)
			}
		}
		if len(p.takers) == 0 {
			p.takers = p.eligible // all of them come and go: better a restless owner than none
		}
		pools[sig] = p
	}
	w := work{job: j, pool: p, weight: max(j.Placement.Weight, 1)}
	if j.PerExecutor {
		return w
	}
	w.owner = make([]*node, j.Shards)
	explain := func(s int, reason string) {
		if w.why == nil {
			w.why = make([]string, j.Shards)
		}
		w.why[s] = reason
	}
	for s := range j.Shards {
		cur := ""
		if s < len(j.Current) {
			cur = j.Current[s]
		}
		if cur == "" {
			explain(s, ReasonNew)
			continue
		}
		n := byID[cur]
		switch {
		case n == nil:
			explain(s, ReasonGone)
		case p.in[n.idx]:
			w.owner[s] = n
			n.load += w.weight
		case n.x.Drained != "":
			explain(s, ReasonDrained)
		case Refusal(j, n.x) == "" && len(j.Placement.Prefer) > 0:
			explain(s, ReasonPrefer)
		default:
			explain(s, ReasonUnfit)
		}
	}
	return w
}

func signature(j *Job) string {
	var b strings.Builder
	b.WriteString(j.Run.Kind() + "\x00" + j.Run.Handler + "\x00")
	if j.Zoned {
		b.WriteByte(3)
	}
	for _, k := range sortedKeys(j.Placement.Require) {
		b.WriteString(k + "=" + j.Placement.Require[k] + "\x00")
	}
	b.WriteString("\x01" + strings.Join(j.Placement.Prefer, "\x00"))
	if j.Placement.OnlyPreferred {
		b.WriteByte(2)
	}
	return b.String()
}

// choose lists the executors that a job uses: the preferred ones while any is eligible.
func choose(j *Job, nodes []*node) []*node {
	var all, preferred []*node
	for _, n := range nodes {
		if Refusal(j, n.x) != "" {
			continue
		}
		all = append(all, n)
		if Prefers(j, n.x) {
			preferred = append(preferred, n)
		}
	}
	if len(preferred) > 0 || j.Placement.OnlyPreferred {
		return preferred
	}
	return all
}

// Prefers says whether an executor is among the preferred ones.
func Prefers(j *Job, x *Executor) bool {
	for _, p := range j.Placement.Prefer {
		k, v, label := strings.Cut(p, "=")
		if label && x.Labels[k] == v || !label && p == x.ID {
			return true
		}
	}
	return false
}

// Refusal says why an executor is not eligible for a job; "" when it is.
func Refusal(j *Job, x *Executor) string {
	switch {
	case x.Drained != "":
		return x.Drained
	case j.Run.Kind() == "shell" && !x.Shell:
		return "does not run shell commands"
	case j.Run.Kind() == "http" && !x.HTTP:
		return "does not call webhooks"
	case j.Run.Kind() == "handler" && !has(x.Handlers, j.Run.Handler):
		return "has no handler " + j.Run.Handler
	}
	if j.Zoned && x.OddZones {
		return "has other time zone rules than most executors"
	}
	for _, k := range sortedKeys(j.Placement.Require) {
		if x.Labels[k] != j.Placement.Require[k] {
			return "lacks the label " + k + "=" + j.Placement.Require[k]
		}
	}
	if j.Placement.OnlyPreferred && !Prefers(j, x) {
		return "is not among the preferred executors"
	}
	return ""
}

func has(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// count fills counts with the job's shards on each eligible executor.
func (w *work) count(counts []int) {
	for _, n := range w.pool.eligible {
		counts[n.idx] = 0
	}
	for _, n := range w.owner {
		if n != nil {
			counts[n.idx]++
		}
	}
}

// fill places the shards that have no owner.
func (w *work) fill(counts []int) {
	if w.why == nil || len(w.pool.takers) == 0 {
		return
	}
	w.count(counts)
	q := &queue{nodes: append([]*node{}, w.pool.takers...), counts: counts}
	heap.Init(q)
	for s, n := range w.owner {
		if n == nil {
			n = q.nodes[0]
			w.owner[s] = n
			n.load += w.weight
			counts[n.idx]++
			heap.Fix(q, 0)
		}
	}
}

func (w *work) result() JobPlan {
	j := w.job
	if j.PerExecutor {
		return placeEach(j, w.pool.eligible)
	}
	out := JobPlan{Owner: make([]string, j.Shards)}
	for s, n := range w.owner {
		cur, why := "", ReasonBalance
		if s < len(j.Current) {
			cur = j.Current[s]
		}
		if w.why != nil && w.why[s] != "" {
			why = w.why[s]
		}
		if n == nil {
			out.Unplaced = ReasonNoOwner
			if cur != "" {
				out.Moves = append(out.Moves, Move{s, cur, "", why})
			}
			continue
		}
		out.Owner[s] = n.x.ID
		if n.x.ID != cur {
			out.Moves = append(out.Moves, Move{s, cur, n.x.ID, why})
		}
	}
	for s := j.Shards; s < len(j.Current); s++ {
		if j.Current[s] != "" {
			out.Moves = append(out.Moves, Move{s, j.Current[s], "", ReasonFewer})
		}
	}
	return out
}

// queue orders takers by: shards of this job per capacity, load per capacity, name.
type queue struct {
	nodes  []*node
	counts []int
}

func (q *queue) Len() int      { return len(q.nodes) }
func (q *queue) Swap(i, j int) { q.nodes[i], q.nodes[j] = q.nodes[j], q.nodes[i] }
func (q *queue) Push(any)      {}
func (q *queue) Pop() any      { return nil }
func (q *queue) Less(i, j int) bool {
	a, b := q.nodes[i], q.nodes[j]
	if x, y := q.counts[a.idx]*b.cap, q.counts[b.idx]*a.cap; x != y {
		return x < y
	}
	if x, y := a.load*b.cap, b.load*a.cap; x != y {
		return x < y
	}
	return a.idx < b.idx
}

// balance moves shards of the job while a move lowers the potential: the sum over executors of (shards of this job)² per
// capacity and, where that stays equal, of load² per capacity. It says whether it moved any.
func (w *work) balance(counts []int) bool {
	if w.job.PerExecutor || len(w.pool.takers) == 0 || len(w.pool.eligible) < 2 {
		return false
	}
	w.count(counts)
	var byNode map[*node][]int
	for moves := 0; ; moves++ {
		from, to := w.extremes(counts)
		if from == nil || from == to || !w.improves(from, to, counts) {
			return moves > 0
		}
		if byNode == nil {
			byNode = map[*node][]int{}
			for s, n := range w.owner {
				if n != nil {
					byNode[n] = append(byNode[n], s)
				}
			}
		}
		list := byNode[from]
		s := list[len(list)-1] // the highest number moves first
		byNode[from] = list[:len(list)-1]
		byNode[to] = append(byNode[to], s)
		w.owner[s] = to
		counts[from.idx]--
		counts[to.idx]++
		from.load -= w.weight
		to.load += w.weight
	}
}

// extremes are the executors from which taking a shard saves most and to which giving one costs least.
func (w *work) extremes(counts []int) (from, to *node) {
	for _, n := range w.pool.eligible {
		c := counts[n.idx]
		if c == 0 {
			continue
		}
		if from == nil {
			from = n
			continue
		}
		a, b := (2*c-1)*from.cap, (2*counts[from.idx]-1)*n.cap
		if a > b || a == b && n.load*from.cap > from.load*n.cap {
			from = n
		}
	}
	for _, n := range w.pool.takers {
		if to == nil {
			to = n
			continue
		}
		a, b := (2*counts[n.idx]+1)*to.cap, (2*counts[to.idx]+1)*n.cap
		if a < b || a == b && n.load*to.cap < to.load*n.cap {
			to = n
		}
	}
	return from, to
}

func (w *work) improves(from, to *node, counts []int) bool {
	saves, costs := (2*counts[from.idx]-1)*to.cap, (2*counts[to.idx]+1)*from.cap
	if saves != costs {
		return costs < saves
	}
	// Load alone moves nothing for a difference of a few percent: a lost executor's shards must not stir up the others.
	slack := from.load / 8 * to.cap
	return (2*to.load+w.weight)*from.cap+slack < (2*from.load-w.weight)*to.cap
}

func placeEach(j *Job, eligible []*node) JobPlan {
	out := JobPlan{}
	has := map[string]bool{}
	for _, n := range eligible {
		has[n.x.ID] = true
	}
	placed := map[string]bool{}
	for s, cur := range j.Current {
		if has[cur] && !placed[cur] {
			for len(out.Owner) <= s {
				out.Owner = append(out.Owner, "")
			}
			out.Owner[s], placed[cur] = cur, true
		} else if cur != "" {
			out.Moves = append(out.Moves, Move{s, cur, "", ReasonGone})
		}
	}
	for _, n := range eligible {
		if placed[n.x.ID] {
			continue
		}
		s := 0
		for s < len(out.Owner) && out.Owner[s] != "" {
			s++
		}
		if s == len(out.Owner) {
			out.Owner = append(out.Owner, "")
		}
		out.Owner[s] = n.x.ID
		out.Moves = append(out.Moves, Move{s, "", n.x.ID, ReasonPerExec})
	}
	if len(eligible) == 0 {
		out.Unplaced = ReasonNoOwner
	}
	return out
}

// Verdict is one executor's answer to a job.
type Verdict struct {
	Executor  string `json:"executor"`
	Eligible  bool   `json:"eligible"`
	Preferred bool   `json:"preferred,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// Explain says of each executor whether it may own the job's shards, and why not.
func Explain(j *Job, executors []Executor) []Verdict {
	out := make([]Verdict, len(executors))
	for i := range executors {
		why := Refusal(j, &executors[i])
		out[i] = Verdict{Executor: executors[i].ID, Eligible: why == "", Preferred: Prefers(j, &executors[i]), Reason: why}
	}
	return out
}
