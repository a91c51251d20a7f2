package engine

import (
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/store"
)

// presence is an incarnation in one of its namespaces.
type presence struct{ ns, incarnation string }

type source struct {
	ns     string
	family store.Family
}

func (e *Engine) listed() bool {
	if e.allListed {
		return true
	}
	for _, ns := range e.cfg.Namespaces {
		for _, f := range []store.Family{store.Jobs, store.Commands, store.Executors, store.Assignments} {
			if !e.synced[source{ns, f}] {
				return false
			}
		}
	}
	e.allListed = true
	return true
}

func (e *Engine) update(u store.Update) {
	if u.Reset {
		e.reset(u)
	}
	for _, it := range u.Items {
		switch it := it.(type) {
		case store.JobItem:
			e.setJob(it)
		case store.CommandItem:
			e.setCommand(it)
		case store.ExecutorItem:
			e.setExecutor(it)
		case store.AssignmentItem:
			a := it.Assignment
			if it.Deleted {
				a = store.Assignment{}
			}
			e.setAssignment(it.JobKey, a)
		case store.Corrupt:
			e.emit(Note{Kind: NoteCorrupt, Text: it.Error()})
		}
	}
	src := source{u.Namespace, u.Family}
	if u.Reset && !e.synced[src] {
		e.synced[src] = true
		if e.listed() {
			e.everyShard(e.consider)
		}
	}
}

func (e *Engine) reset(u store.Update) {
	switch u.Family {
	case store.Jobs:
		have := map[store.JobKey]bool{}
		for _, it := range u.Items {
			if j, ok := it.(store.JobItem); ok {
				have[j.JobKey] = true
			}
		}
		for _, k := range e.jobKeys(u.Namespace) {
			if !have[k] {
				e.setJob(store.JobItem{JobKey: k, Deleted: true})
			}
		}
	case store.Commands:
		for _, k := range e.jobKeys(u.Namespace) {
			clear(e.jobs[k].commands)
		}
	case store.Executors:
		have := map[string]bool{}
		for _, it := range u.Items {
			if x, ok := it.(store.ExecutorItem); ok {
				have[x.Incarnation] = true
			}
		}
		var gone []string
		for p := range e.alive {
			early := p.incarnation == e.lease.Held() && u.Revision < e.heldAt // listed before I registered
			if p.ns == u.Namespace && !have[p.incarnation] && !early {
				gone = append(gone, p.incarnation)
			}
		}
		sort.Strings(gone)
		for _, i := range gone {
			e.setExecutor(store.ExecutorItem{Namespace: u.Namespace, Incarnation: i, Deleted: true})
		}
	case store.Assignments:
		have := map[store.JobKey]bool{}
		for _, it := range u.Items {
			if a, ok := it.(store.AssignmentItem); ok {
				have[a.JobKey] = true
			}
		}
		var gone []store.JobKey
		for k := range e.assigned {
			if k.Namespace == u.Namespace && !have[k] {
				gone = append(gone, k)
			}
		}
		sort.Slice(gone, func(i, j int) bool { return gone[i].Name < gone[j].Name })
		for _, k := range gone {
			e.setAssignment(k, store.Assignment{})
		}
	}
}

func (e *Engine) jobKeys(ns string) []store.JobKey {
	var out []store.JobKey
	for k := range e.jobs {
		if k.Namespace == ns {
			out = append(out, k)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func (e *Engine) setJob(it store.JobItem) {
	j := e.jobs[it.JobKey]
	if it.Deleted {
		if j == nil {
			return
		}
		j.deleted = true
		e.everyShardOf(j, e.consider)
		if len(j.shards) == 0 {
			delete(e.jobs, it.JobKey)
		}
		return
	}
	timeline, err := it.Job.Timeline()
	if err != nil {
		e.emit(Note{Kind: NoteCorrupt, Text: "job " + it.String() + ": " + err.Error()})
		return
	}
	if j != nil && j.uid != it.UID {
		// Deleted and created again: the old life keeps only what still runs, under its own uid.
		j.deleted = true
		e.everyShardOf(j, e.consider)
		for _, s := range j.shards {
			e.former[s.key] = s
		}
		j = nil
	}
	if j == nil {
		j = &job{key: it.JobKey, uid: it.UID, shards: map[int]*shard{}, commands: map[int][]store.CommandItem{}}
		if old := e.jobs[it.JobKey]; old != nil {
			j.commands, old.commands = old.commands, nil
		}
		e.jobs[it.JobKey] = j
	}
	if j.mod == it.Mod {
		return
	}
	j.def, j.mod, j.timeline = it.Job, it.Mod, timeline
	e.applyAssignment(j)
	e.everyShardOf(j, e.consider)
}

func (e *Engine) setAssignment(k store.JobKey, a store.Assignment) {
	if len(a.Shards) == 0 {
		delete(e.assigned, k)
	} else {
		e.assigned[k] = a
	}
	if j := e.jobs[k]; j != nil {
		e.applyAssignment(j)
		e.everyShardOf(j, e.consider)
	}
}

func (e *Engine) applyAssignment(j *job) {
	for _, s := range j.shards {
		s.owned = false
	}
	a := e.assigned[j.key]
	if j.def == nil || j.deleted || a.UID != j.uid {
		return
	}
	for _, n := range a.Shards {
		if !j.def.Spec.Shards.PerExecutor && n >= j.def.Spec.Shards.Count {
			continue
		}
		s := j.shards[n]
		if s == nil {
			s = &shard{key: store.ShardKey{JobKey: j.key, UID: j.uid, Shard: n}, job: j, pos: -1, wake: never}
			s.delay = j.timeline.Jitter(j.key.String(), n)
			j.shards[n] = s
		}
		s.owned, s.total, s.since = true, j.def.Spec.Shards.Count, 0
		s.delay = j.timeline.Jitter(j.key.String(), n)
		if j.def.Spec.Shards.PerExecutor {
			s.total, s.since = a.Total, a.Since
		}
	}
}

func (e *Engine) setCommand(it store.CommandItem) {
	j := e.jobs[it.JobKey]
	if j == nil {
		if it.Deleted {
			return
		}
		// Its definition arrives on another watch.
		j = &job{key: it.JobKey, shards: map[int]*shard{}, commands: map[int][]store.CommandItem{}}
		e.jobs[it.JobKey] = j
	}
	list := slices.DeleteFunc(j.commands[it.Shard], func(c store.CommandItem) bool { return c.ID == it.ID })
	if !it.Deleted && it.Command.Settled == "" {
		list = append(list, it)
		sort.SliceStable(list, func(a, b int) bool { return list[a].Mod < list[b].Mod })
	}
	if len(list) == 0 {
		delete(j.commands, it.Shard)
	} else {
		j.commands[it.Shard] = list
	}
	if s := j.shards[it.Shard]; s != nil {
		e.consider(s)
	}
}

func (e *Engine) setExecutor(it store.ExecutorItem) {
	p := presence{it.Namespace, it.Incarnation}
	if !it.Deleted {
		e.alive[p] = true
		return
	}
	if !e.alive[p] {
		return
	}
	delete(e.alive, p)
	e.goneAt[it.Incarnation] = e.now.Boot
	if len(e.goneAt) > 1000 {
		clear(e.goneAt)
	}
	if it.Incarnation == e.lease.Held() {
		e.leaseStep(lease.KeyGone{Incarnation: it.Incarnation})
		return
	}
	e.everyShard(func(s *shard) {
		if s.key.Namespace == it.Namespace && s.known && s.rec.Run != nil && s.rec.Run.Holder.Incarnation == it.Incarnation {
			e.consider(s)
		}
	})
}

func (e *Engine) load() {
	if len(e.toLoad) == 0 {
		return
	}
	var js []*job
	for j := range e.toLoad {
		js = append(js, j)
	}
	sort.Slice(js, func(a, b int) bool {
		return js[a].key.String()+strconv.FormatInt(js[a].uid, 10) < js[b].key.String()+strconv.FormatInt(js[b].uid, 10)
	})
	for _, j := range js {
		e.emit(Load{Job: j.key, UID: j.uid, Shards: e.toLoad[j]})
	}
	clear(e.toLoad)
}

func (e *Engine) loaded(in Loaded) {
	j := e.jobs[in.Job]
	if j == nil || j.uid != in.UID {
		return
	}
	for _, n := range in.Shards {
		s := j.shards[n]
		if s == nil || !s.loading {
			continue
		}
		s.loading = false
		if in.Err != nil {
			s.holdUntil = e.now.Boot + 500*time.Millisecond
			e.heap.set(s, s.holdUntil)
			continue
		}
		if s.known || s.flight != nil {
			continue
		}
		s.take(in.Records[n])
		e.consider(s)
	}
}
