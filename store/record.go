package store

import (
	"context"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store/kv"
)

// RecordCommit is a decision about one shard by one incarnation. Guards: the record unchanged since Mod; the incarnation
// exists; and, when set, the definition unchanged, the former holder gone, the command unsettled.
type RecordCommit struct {
	Op      string
	Shard   ShardKey
	Record  jobs.Record
	Mod     int64
	Me      jobs.Holder
	JobMod  int64       // the definition that the decision was computed from; 0: any
	Gone    jobs.Holder // must not exist
	Settles []SettledCommand
}

// SettledCommand is a command that the commit settles.
type SettledCommand struct {
	Shard   int
	ID      string
	Mod     int64
	Command Command
}

// Txn spells the commit.
func (s *Store) Txn(c RecordCommit) kv.Txn {
	key := s.recordKey(c.Shard)
	t := kv.Txn{
		Op: c.Op, Observe: key,
		Guards:  make([]kv.Guard, 0, 4),
		Changes: []kv.Change{{Key: key, Value: encode(&c.Record)}},
	}
	t.Guards = append(t.Guards,
		kv.Guard{Key: s.presenceKey(c.Shard.Namespace, c.Me.Executor, c.Me.Incarnation), Kind: kv.Exists},
		kv.Guard{Key: key, Kind: kv.Unchanged, Rev: c.Mod})
	if c.JobMod != 0 {
		t.Guards = append(t.Guards, kv.Guard{Key: s.jobKey(c.Shard.JobKey), Kind: kv.Unchanged, Rev: c.JobMod})
	}
	if c.Gone != (jobs.Holder{}) {
		t.Guards = append(t.Guards, kv.Guard{Key: s.presenceKey(c.Shard.Namespace, c.Gone.Executor, c.Gone.Incarnation), Kind: kv.NotCreated})
	}
	for _, cmd := range c.Settles {
		k := s.commandKey(c.Shard.JobKey, cmd.Shard, cmd.ID)
		t.Guards = append(t.Guards, kv.Guard{Key: k, Kind: kv.Unchanged, Rev: cmd.Mod})
		t.Changes = append(t.Changes, kv.Change{Key: k, Value: encode(cmd.Command)})
	}
	return t
}

// SettleTxn settles a command that changes no record (a stop of something that does not run).
func (s *Store) SettleTxn(k JobKey, cmd SettledCommand) kv.Txn {
	key := s.commandKey(k, cmd.Shard, cmd.ID)
	return kv.Txn{
		Op: "settle", Guards: []kv.Guard{{Key: key, Kind: kv.Unchanged, Rev: cmd.Mod}},
		Changes: []kv.Change{{Key: key, Value: encode(cmd.Command)}},
	}
}

// RegisterTxn creates an incarnation in all its namespaces, once.
func (s *Store) RegisterTxn(namespaces []string, me jobs.Holder, p Presence, lease kv.LeaseID) kv.Txn {
	t := kv.Txn{Op: "register"}
	for _, ns := range namespaces {
		key := s.presenceKey(ns, me.Executor, me.Incarnation)
		t.Guards = append(t.Guards, kv.Guard{Key: key, Kind: kv.NotCreated})
		t.Changes = append(t.Changes, kv.Change{Key: key, Value: encode(p), Lease: lease})
	}
	return t
}

// PulseTxn writes an incarnation's pulse.
func (s *Store) PulseTxn(namespaces []string, me jobs.Holder, p Pulse, lease kv.LeaseID) kv.Txn {
	t := kv.Txn{Op: "pulse"}
	for _, ns := range namespaces {
		t.Guards = append(t.Guards, kv.Guard{Key: s.presenceKey(ns, me.Executor, me.Incarnation), Kind: kv.Exists})
		t.Changes = append(t.Changes, kv.Change{Key: s.pulseKey(ns, me.Executor, me.Incarnation), Value: encode(p), Lease: lease})
	}
	return t
}

// PresenceTxn refreshes what an incarnation says of itself.
func (s *Store) PresenceTxn(namespaces []string, me jobs.Holder, p Presence, lease kv.LeaseID) kv.Txn {
	t := s.RegisterTxn(namespaces, me, p, lease)
	t.Op = "presence"
	for i := range t.Guards {
		t.Guards[i].Kind = kv.Exists
	}
	return t
}

// ReadRecord reads one record; a missing one has Mod 0.
func (s *Store) ReadRecord(ctx context.Context, k ShardKey) (RecordItem, error) {
	it, err := s.KV.Get(ctx, s.recordKey(k))
	if err != nil || !it.Exists() {
		return RecordItem{ShardKey: k}, err
	}
	return s.recordItem(it)
}

// RecordOf decodes the observed item of a refused commit; a missing one has Mod 0.
func (s *Store) RecordOf(k ShardKey, it kv.Item) (RecordItem, error) {
	if !it.Exists() {
		return RecordItem{ShardKey: k}, nil
	}
	return s.recordItem(it)
}

func (s *Store) recordItem(it kv.Item) (RecordItem, error) {
	v, err := s.decode(kv.Event{Item: it})
	if err != nil {
		return RecordItem{}, Corrupt{it.Key, err}
	}
	return v.(RecordItem), nil
}

// ReadRecords reads the records of one life of a job, in shard order. Corrupt ones are left out and reported.
func (s *Store) ReadRecords(ctx context.Context, k JobKey, uid int64) ([]RecordItem, []Corrupt, error) {
	return s.readRecords(ctx, s.Prefix(k.Namespace, Records, k.Name+"/"+uidName(uid)))
}

// ReadAllRecords reads the records of a namespace, or of all lives of one job when name is set.
func (s *Store) ReadAllRecords(ctx context.Context, ns, name string) ([]RecordItem, []Corrupt, error) {
	return s.readRecords(ctx, s.Prefix(ns, Records, name))
}

func (s *Store) readRecords(ctx context.Context, prefix string) ([]RecordItem, []Corrupt, error) {
	items, _, err := kv.ListAll(ctx, s.KV, prefix)
	if err != nil {
		return nil, nil, err
	}
	var bad []Corrupt
	out := make([]RecordItem, 0, len(items))
	for _, it := range items {
		r, err := s.recordItem(it)
		if err != nil {
			bad = append(bad, Corrupt{it.Key, err})
			continue
		}
		out = append(out, r)
	}
	return out, bad, nil
}
