package store

import (
	"context"
	"encoding/json"

	"github.com/rota-dev/rota/store/kv"
)

// A term is named by the random incarnation in the leader's value. The key is created once per term, so its create revision
// names the term too; decisions are guarded by the incarnation's own key, which lives and dies with the leader's lease.

func (s *Store) termKey(term string) string { return s.prefix + "scheduler/terms/" + term }

func (s *Store) termGuard(term string) kv.Guard {
	return kv.Guard{Key: s.termKey(term), Kind: kv.Exists}
}

// LeadTxn takes the leadership for a term when it is free.
func (s *Store) LeadTxn(term string, l Leader, lease kv.LeaseID) kv.Txn {
	return kv.Txn{
		Op: "lead", Guards: []kv.Guard{{Key: s.leaderKey(), Kind: kv.NotCreated}, {Key: s.termKey(term), Kind: kv.NotCreated}},
		Changes: []kv.Change{{Key: s.leaderKey(), Value: encode(l), Lease: lease}, {Key: s.termKey(term), Value: []byte("{}"), Lease: lease}},
	}
}

// ReadLeader reads who leads; ok is false when nobody does.
func (s *Store) ReadLeader(ctx context.Context) (l Leader, ok bool, err error) {
	it, err := s.KV.Get(ctx, s.leaderKey())
	if err != nil || !it.Exists() {
		return l, false, err
	}
	return l, true, json.Unmarshal(it.Value, &l)
}

// WatchTerm reports when the key of a term is deleted; see [kv.Store.Watch].
func (s *Store) WatchTerm(ctx context.Context, term string, from int64) <-chan kv.Batch {
	return s.KV.Watch(ctx, s.termKey(term), from)
}

// WatchLeader reports changes of the leadership after a revision.
func (s *Store) WatchLeader(ctx context.Context, from int64) <-chan kv.Batch {
	return s.KV.Watch(ctx, s.leaderKey(), from)
}

// AssignTxn writes or, when the assignment holds no shard, removes one executor's share of a job.
func (s *Store) AssignTxn(term string, k JobKey, executor string, a Assignment, mod int64) kv.Txn {
	key := s.assignmentKey(k.Namespace, executor, k.Name)
	t := kv.Txn{
		Op: "assign", Guards: []kv.Guard{s.termGuard(term), {Key: key, Kind: kv.Unchanged, Rev: mod}},
		Changes: []kv.Change{{Key: key, Value: encode(a)}},
	}
	if len(a.Shards) == 0 {
		t.Changes = []kv.Change{{Key: key, Delete: true}}
	}
	return t
}

// RoundTxn advances a job's round.
func (s *Store) RoundTxn(term string, k JobKey, r Round, mod int64) kv.Txn {
	key := s.key(k.Namespace, string(Rounds), k.Name)
	return kv.Txn{
		Op: "round", Guards: []kv.Guard{s.termGuard(term), {Key: key, Kind: kv.Unchanged, Rev: mod}},
		Changes: []kv.Change{{Key: key, Value: encode(r)}},
	}
}

// CollectTxn deletes one key that nobody needs, if it is unchanged. It holds no put, so that it works under a space alarm.
func (s *Store) CollectTxn(term string, g Garbage) kv.Txn {
	t := kv.Txn{Op: "collect", Guards: []kv.Guard{s.termGuard(term)}}
	switch {
	case g.Record != nil:
		t.Guards = append(t.Guards, kv.Guard{Key: s.recordKey(*g.Record), Kind: kv.Unchanged, Rev: g.Mod})
	case g.Round != nil:
		t.Guards = append(t.Guards, kv.Guard{Key: s.key(g.Round.Namespace, string(Rounds), g.Round.Name), Kind: kv.Unchanged, Rev: g.Mod})
	default:
		t.Guards = append(t.Guards, kv.Guard{Key: s.commandKey(g.Command.JobKey, g.Command.Shard, g.Command.ID), Kind: kv.Unchanged, Rev: g.Mod})
	}
	t.Changes = []kv.Change{{Key: t.Guards[1].Key, Delete: true}}
	return t
}

// Garbage is one key to collect: a record of a job that is gone, a round of one, or a settled command.
type Garbage struct {
	Record  *ShardKey
	Round   *JobKey
	Command *CommandItem
	Mod     int64
}
