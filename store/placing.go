package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/rota-dev/rota/shards"
)

// MaxClockOffset is how far an executor's clock may be off the median before it is given no shards.
const MaxClockOffset = 250 * time.Millisecond

// Advice is what was learnt by watching executors come and go. It may be lost.
type Advice struct {
	clocks map[IncarnationKey][]time.Duration // the last few readings of an executor's wall clock against ours
	Flaps  map[ExecutorKey][]time.Time        // when its incarnations ended, of late
}

// NewAdvice returns none.
func NewAdvice() Advice {
	return Advice{clocks: map[IncarnationKey][]time.Duration{}, Flaps: map[ExecutorKey][]time.Time{}}
}

const clockReadings = 5

// Offset is how far an executor's wall clock is off ours, and how much of that may be the delay of the readings. A reading is
// the true offset less its delay, so the largest one is nearest the truth, and their spread says how much delays vary: on a
// busy server late readings look like a slow clock, but not evenly so.
func (m Advice) Offset(k IncarnationKey) (off, doubt time.Duration, known bool) {
	r := m.clocks[k]
	if len(r) == 0 {
		return 0, 0, false
	}
	off = slices.Max(r)
	if off < 0 && len(r) < 3 {
		return off, time.Hour, true // too few to tell a slow clock from a slow delivery
	}
	if off > 0 {
		return off, 0, true // no delay makes a clock look fast
	}
	return off, off - slices.Min(r), true
}

// An executor that went this often within the window is damped: it keeps its shards but takes no new ones.
const (
	flapWindow = time.Minute
	flapLimit  = 3
)

// Observe learns from an update before the view takes it in.
func (m Advice) Observe(v *View, u Update, now time.Time) {
	for _, it := range u.Items {
		switch x := it.(type) {
		case ExecutorItem:
			k := IncarnationKey{Namespace: x.Namespace, ID: x.ID, Incarnation: x.Incarnation}
			if old, ok := v.Executors[k]; x.Deleted {
				delete(m.clocks, k)
				if id := (ExecutorKey{Namespace: x.Namespace, ID: x.ID}); ok && old.Presence.State != Draining {
					m.Flaps[id] = append(m.Flaps[id], now)
				}
			}
		case PulseItem:
			if k := x.IncarnationKey; !x.Deleted && !u.Reset {
				m.clocks[k] = append(m.clocks[k], x.Pulse.Wall.Sub(now))
				if n := len(m.clocks[k]); n > clockReadings {
					m.clocks[k] = m.clocks[k][n-clockReadings:]
				}
			}
		}
	}
	for id, ends := range m.Flaps {
		ends = slices.DeleteFunc(ends, func(t time.Time) bool { return now.Sub(t) > flapWindow })
		if len(ends) == 0 {
			delete(m.Flaps, id)
		} else {
			m.Flaps[id] = ends
		}
	}
}

// Candidates are the executors of a namespace as the planner sees them.
func (v *View) Candidates(m Advice, ns string) []shards.Executor {
	live, _ := v.Live(ns)
	offsets := []time.Duration{0} // our own clock counts too
	for _, x := range live {
		if off, _, ok := m.Offset(IncarnationKey{Namespace: ns, ID: x.ID, Incarnation: x.Incarnation}); ok {
			offsets = append(offsets, off)
		}
	}
	slices.Sort(offsets)
	median := offsets[len(offsets)/2]
	if other := offsets[(len(offsets)-1)/2]; other.Abs() < median.Abs() {
		median = other // of two in the middle, the one nearer to our own clock
	}
	zones := map[string]int{}
	usual := ""
	for _, x := range live { // the most frequent rules; of equally frequent ones the greater name, so that all agree
		z := x.Presence.Zones
		if zones[z]++; zones[z] > zones[usual] || zones[z] == zones[usual] && z > usual {
			usual = z
		}
	}
	out := make([]shards.Executor, len(live))
	for i, x := range live {
		c := shards.Executor{
			ID: x.ID, Labels: x.Presence.Labels, Capacity: x.Presence.Capacity, Handlers: x.Presence.Handlers,
			Shell: x.Presence.Shell, HTTP: x.Presence.HTTP, OddZones: x.Presence.Zones != usual,
		}
		id := ExecutorKey{Namespace: ns, ID: x.ID}
		off, doubt, known := m.Offset(IncarnationKey{Namespace: ns, ID: x.ID, Incarnation: x.Incarnation})
		switch d, drained := v.Drains[id]; {
		case drained && d.Drain.Reason != "":
			c.Drained = "is drained: " + d.Drain.Reason
		case drained:
			c.Drained = "is drained"
		case x.Presence.State == Draining:
			c.Drained = "is shutting down"
		case known && (off-median).Abs() > MaxClockOffset+doubt:
			c.Drained = fmt.Sprintf("its clock is off by %v", (off - median).Round(time.Millisecond))
		}
		c.Damped = len(m.Flaps[id]) >= flapLimit
		out[i] = c
	}
	return out
}

// Planned describes a job to the planner with its owners as assigned now.
func (it JobItem) Planned(owners map[JobKey]map[int]string) shards.Job {
	p := shards.Job{
		Key: it.String(), Shards: it.Job.Spec.Shards.Count, PerExecutor: it.Job.Spec.Shards.PerExecutor,
		Run: it.Job.Spec.Run, Placement: it.Job.Spec.Placement,
	}
	if s := it.Job.Spec.Schedule; s != nil && s.Timezone != "" && s.Timezone != "UTC" {
		p.Zoned = true
	}
	own := owners[it.JobKey]
	n := p.Shards
	for s := range own {
		n = max(n, s+1)
	}
	p.Current = make([]string, n)
	for s, x := range own {
		p.Current[s] = x
	}
	return p
}

// Owners turns the assignments around: the owner of each shard of each job's present life.
func (v *View) Owners(ns string) map[JobKey]map[int]string {
	out := map[JobKey]map[int]string{}
	for k, a := range v.Assignments {
		j, ok := v.Jobs[k.JobKey]
		if k.Namespace != ns || !ok || j.UID != a.Assignment.UID {
			continue
		}
		own := out[k.JobKey]
		if own == nil {
			own = map[int]string{}
			out[k.JobKey] = own
		}
		for _, s := range a.Assignment.Shards {
			if cur, taken := own[s]; !taken || k.Executor < cur {
				own[s] = k.Executor
			}
		}
	}
	return out
}
