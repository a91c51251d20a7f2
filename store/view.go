package store

import "sort"

type (
	// ExecutorKey names an executor.
	ExecutorKey struct{ Namespace, ID string }
	// IncarnationKey names one life of it.
	IncarnationKey struct{ Namespace, ID, Incarnation string }
	// AssignmentKey names an executor's share of a job.
	AssignmentKey struct {
		JobKey
		Executor string
	}
)

// View is a picture of intent and decisions, fed by updates: what the scheduler plans from and the console shows. It is not
// safe for concurrent use.
type View struct {
	Namespaces  map[string]NamespaceItem
	Jobs        map[JobKey]JobItem
	Executors   map[IncarnationKey]ExecutorItem
	Pulses      map[IncarnationKey]PulseItem
	Drains      map[ExecutorKey]DrainItem
	Assignments map[AssignmentKey]AssignmentItem
	Rounds      map[JobKey]RoundItem
	Corrupt     map[string]Corrupt
}

// NewView returns an empty picture.
func NewView() *View {
	return &View{
		Namespaces: map[string]NamespaceItem{}, Jobs: map[JobKey]JobItem{}, Executors: map[IncarnationKey]ExecutorItem{}, Pulses: map[IncarnationKey]PulseItem{},
		Drains: map[ExecutorKey]DrainItem{}, Assignments: map[AssignmentKey]AssignmentItem{}, Rounds: map[JobKey]RoundItem{},
		Corrupt: map[string]Corrupt{},
	}
}

// Apply takes an update in.
func (v *View) Apply(u Update) {
	if u.Reset {
		v.reset(u.Namespace, u.Family)
	}
	for _, it := range u.Items {
		v.set(it)
	}
}

func (v *View) reset(ns string, f Family) {
	switch f {
	case "":
		clear(v.Namespaces)
	case Jobs:
		drop(v.Jobs, func(k JobKey) bool { return k.Namespace == ns })
	case Executors:
		drop(v.Executors, func(k IncarnationKey) bool { return k.Namespace == ns })
	case Pulses:
		drop(v.Pulses, func(k IncarnationKey) bool { return k.Namespace == ns })
	case Drains:
		drop(v.Drains, func(k ExecutorKey) bool { return k.Namespace == ns })
	case Assignments:
		drop(v.Assignments, func(k AssignmentKey) bool { return k.Namespace == ns })
	case Rounds:
		drop(v.Rounds, func(k JobKey) bool { return k.Namespace == ns })
	}
}

func drop[K comparable, V any](m map[K]V, match func(K) bool) {
	for k := range m {
		if match(k) {
			delete(m, k)
		}
	}
}

func put[K comparable, V any](m map[K]V, k K, v V, deleted bool) {
	if deleted {
		delete(m, k)
	} else {
		m[k] = v
	}
}

func (v *View) set(item any) {
	switch it := item.(type) {
	case NamespaceItem:
		put(v.Namespaces, it.Name, it, it.Deleted)
	case JobItem:
		put(v.Jobs, it.JobKey, it, it.Deleted)
	case ExecutorItem:
		put(v.Executors, IncarnationKey{it.Namespace, it.ID, it.Incarnation}, it, it.Deleted)
	case PulseItem:
		put(v.Pulses, it.IncarnationKey, it, it.Deleted)
	case DrainItem:
		put(v.Drains, ExecutorKey{it.Namespace, it.Executor}, it, it.Deleted)
	case AssignmentItem:
		put(v.Assignments, AssignmentKey{it.JobKey, it.Executor}, it, it.Deleted)
	case RoundItem:
		put(v.Rounds, it.JobKey, it, it.Deleted)
	case Corrupt:
		v.Corrupt[it.Key] = it
	}
}

// Live returns, for each executor of a namespace, its newest incarnation, in order of ids; doubles lists the ids that have
// more than one.
func (v *View) Live(ns string) (live []ExecutorItem, doubles []string) {
	newest := map[string]ExecutorItem{}
	seen := map[string]int{}
	for k, it := range v.Executors {
		if k.Namespace != ns {
			continue
		}
		seen[k.ID]++
		if o, ok := newest[k.ID]; !ok || it.Presence.Started.After(o.Presence.Started) {
			newest[k.ID] = it
		}
	}
	for id, it := range newest {
		live = append(live, it)
		if seen[id] > 1 {
			doubles = append(doubles, id)
		}
	}
	sort.Slice(live, func(i, j int) bool { return live[i].ID < live[j].ID })
	sort.Strings(doubles)
	return live, doubles
}
