package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store/kv"
)

// The items are decoded keys. Deleted ones carry their names only.
type (
	// NamespaceItem is a tenant.
	NamespaceItem struct {
		Name      string
		Namespace jobs.Namespace
		Mod       int64
		Deleted   bool
	}
	// JobItem is a definition.
	JobItem struct {
		JobKey
		Job     *jobs.Job
		UID     int64
		Mod     int64
		Deleted bool
	}
	// CommandItem is a command.
	CommandItem struct {
		JobKey
		Shard   int
		ID      string
		Command Command
		Mod     int64
		Deleted bool
	}
	// DrainItem is a drained executor.
	DrainItem struct {
		Namespace, Executor string
		Drain               Drain
		Deleted             bool
	}
	// ExecutorItem is one incarnation.
	ExecutorItem struct {
		Namespace, ID, Incarnation string
		Presence                   Presence
		Mod                        int64
		Deleted                    bool
	}
	// PulseItem is the pulse of one incarnation.
	PulseItem struct {
		IncarnationKey
		Pulse   Pulse
		Deleted bool
	}
	// AssignmentItem is an executor's share of a job.
	AssignmentItem struct {
		JobKey
		Executor   string
		Assignment Assignment
		Mod        int64
		Deleted    bool
	}
	// RoundItem is a job's round.
	RoundItem struct {
		JobKey
		Round   Round
		Mod     int64
		Deleted bool
	}
	// RecordItem is the record of a shard.
	RecordItem struct {
		ShardKey
		Record  jobs.Record
		Mod     int64
		Deleted bool
	}
)

// Corrupt is a key whose name or value cannot be understood. It is reported and left alone: the others go on.
type Corrupt struct {
	Key string
	Err error
}

func (c Corrupt) Error() string { return fmt.Sprintf("key %s is not understood: %v", c.Key, c.Err) }

// Decode turns one event into one of the items, or a [Corrupt].
func (s *Store) Decode(e kv.Event) any {
	item, err := s.decode(e)
	if err != nil {
		return Corrupt{Key: e.Item.Key, Err: err}
	}
	return item
}

func (s *Store) decode(e kv.Event) (any, error) {
	rest, ok := strings.CutPrefix(e.Item.Key, s.prefix)
	if !ok {
		return nil, fmt.Errorf("foreign prefix")
	}
	p := strings.Split(rest, "/")
	value := func(v any) error {
		if e.Deleted {
			return nil
		}
		return json.Unmarshal(e.Item.Value, v)
	}
	mod := e.Item.Mod
	if p[0] == "namespaces" && len(p) == 2 {
		it := NamespaceItem{Name: p[1], Mod: mod, Deleted: e.Deleted}
		return it, value(&it.Namespace)
	}
	if len(p) < 3 {
		return nil, fmt.Errorf("unknown key")
	}
	ns := p[0]
	job := JobKey{ns, p[2]}
	switch f := Family(p[1]); {
	case f == Jobs && len(p) == 3:
		it := JobItem{JobKey: job, UID: e.Item.Create, Mod: mod, Deleted: e.Deleted}
		if e.Deleted {
			return it, nil
		}
		it.Job = &jobs.Job{}
		err := value(it.Job)
		return it, err
	case f == Commands && len(p) == 5:
		it := CommandItem{JobKey: job, ID: p[4], Mod: mod, Deleted: e.Deleted}
		var err error
		if it.Shard, err = strconv.Atoi(p[3]); err != nil {
			return nil, err
		}
		err = value(&it.Command)
		return it, err
	case f == Drains && len(p) == 3:
		it := DrainItem{Namespace: ns, Executor: p[2], Deleted: e.Deleted}
		err := value(&it.Drain)
		return it, err
	case f == Executors && len(p) == 4:
		it := ExecutorItem{Namespace: ns, ID: p[2], Incarnation: p[3], Mod: mod, Deleted: e.Deleted}
		err := value(&it.Presence)
		return it, err
	case f == Pulses && len(p) == 4:
		it := PulseItem{IncarnationKey: IncarnationKey{ns, p[2], p[3]}, Deleted: e.Deleted}
		err := value(&it.Pulse)
		return it, err
	case f == Assignments && len(p) == 4:
		it := AssignmentItem{JobKey: JobKey{ns, p[3]}, Executor: p[2], Mod: mod, Deleted: e.Deleted}
		err := value(&it.Assignment)
		return it, err
	case f == Rounds && len(p) == 3:
		it := RoundItem{JobKey: job, Mod: mod, Deleted: e.Deleted}
		err := value(&it.Round)
		return it, err
	case f == Records && len(p) == 5:
		it := RecordItem{Mod: mod, Deleted: e.Deleted}
		uid, err1 := strconv.ParseInt(p[3], 10, 64)
		shard, err2 := strconv.Atoi(p[4])
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("malformed record key")
		}
		it.ShardKey = ShardKey{job, uid, shard}
		err := value(&it.Record)
		return it, err
	}
	return nil, fmt.Errorf("unknown key")
}

// Update is a decoded part of a family: with Reset, all that exists.
type Update struct {
	Namespace string
	Family    Family
	Reset     bool
	Items     []any
	Revision  int64
}

// Prefix of a family in a namespace; sub narrows it ("" for all).
func (s *Store) Prefix(ns string, f Family, sub string) string {
	p := s.key(ns, string(f)) + "/"
	if sub != "" {
		p += sub + "/"
	}
	return p
}

// Follow keeps f up to date with a family until ctx ends; see [kv.Follow].
func (s *Store) Follow(ctx context.Context, ns string, family Family, sub string, f func(Update), onError func(error)) {
	kv.Follow(ctx, s.KV, s.Prefix(ns, family, sub), func(u kv.Update) { f(s.update(ns, family, u)) }, onError)
}

// FollowNamespaces keeps f up to date with the namespaces.
func (s *Store) FollowNamespaces(ctx context.Context, f func(Update), onError func(error)) {
	kv.Follow(ctx, s.KV, s.prefix+"namespaces/", func(u kv.Update) { f(s.update("", "", u)) }, onError)
}

func (s *Store) update(ns string, family Family, u kv.Update) Update {
	out := Update{Namespace: ns, Family: family, Reset: u.Reset, Revision: u.Revision, Items: make([]any, 0, len(u.Items)+len(u.Events))}
	for _, it := range u.Items {
		out.Items = append(out.Items, s.Decode(kv.Event{Item: it}))
	}
	for _, e := range u.Events {
		out.Items = append(out.Items, s.Decode(e))
	}
	return out
}

// FollowRecords keeps f up to date with the records of one life of a job.
func (s *Store) FollowRecords(ctx context.Context, k JobKey, uid int64, f func(Update), onError func(error)) {
	s.Follow(ctx, k.Namespace, Records, k.Name+"/"+uidName(uid), f, onError)
}
