package store

import (
	"context"
	"fmt"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store/kv"
)

// EnsureNamespace creates a namespace when it is absent.
func (s *Store) EnsureNamespace(ctx context.Context, name string) error {
	key := s.prefix + "namespaces/" + name
	if it, err := s.KV.Get(ctx, key); err == nil && it.Exists() {
		return nil
	}
	ns := jobs.Namespace{APIVersion: jobs.APIVersion, Kind: "Namespace", Metadata: jobs.Metadata{Name: name}}
	r, err := s.commit(ctx, kv.Txn{
		Op: "namespace", Guards: []kv.Guard{{Key: key, Kind: kv.NotCreated}}, Changes: []kv.Change{{Key: key, Value: encode(ns)}},
	})
	if err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	_ = r // refused: somebody else created it
	return nil
}

// PutNamespace writes a namespace's settings.
func (s *Store) PutNamespace(ctx context.Context, ns jobs.Namespace) error {
	r, err := s.commit(ctx, kv.Txn{Op: "namespace", Changes: []kv.Change{{Key: s.prefix + "namespaces/" + ns.Metadata.Name, Value: encode(ns)}}})
	return done(r, err, "write namespace "+ns.Metadata.Name)
}

// DeleteNamespace removes an empty namespace's settings.
func (s *Store) DeleteNamespace(ctx context.Context, name string) error {
	r, err := s.commit(ctx, kv.Txn{Op: "namespace", Changes: []kv.Change{{Key: s.prefix + "namespaces/" + name, Delete: true}}})
	return done(r, err, "delete namespace "+name)
}

// ReadNamespaces lists the namespaces.
func (s *Store) ReadNamespaces(ctx context.Context) ([]NamespaceItem, error) {
	return readAll[NamespaceItem](ctx, s, s.prefix+"namespaces/")
}

func readAll[T any](ctx context.Context, s *Store, prefix string) ([]T, error) {
	items, _, err := kv.ListAll(ctx, s.KV, prefix)
	if err != nil {
		return nil, err
	}
	var out []T
	for _, it := range items {
		if v, ok := s.Decode(kv.Event{Item: it}).(T); ok {
			out = append(out, v)
		}
	}
	return out, nil
}

// ReadJob reads one definition, or [ErrNotFound].
func (s *Store) ReadJob(ctx context.Context, k JobKey) (JobItem, error) {
	it, err := s.KV.Get(ctx, s.jobKey(k))
	if err != nil {
		return JobItem{}, fmt.Errorf("read job %s: %w", k, err)
	}
	if !it.Exists() {
		return JobItem{}, fmt.Errorf("job %s: %w", k, ErrNotFound)
	}
	v, err := s.decode(kv.Event{Item: it})
	if err != nil {
		return JobItem{}, Corrupt{it.Key, err}
	}
	return v.(JobItem), nil
}

// ReadJobs lists the definitions of a namespace.
func (s *Store) ReadJobs(ctx context.Context, ns string) ([]JobItem, error) {
	return readAll[JobItem](ctx, s, s.Prefix(ns, Jobs, ""))
}

// PutJob writes a definition as a compare-and-swap: mod is the revision that it replaces, 0 to create. The new revision comes
// back. [ErrConflict] when somebody else was first.
func (s *Store) PutJob(ctx context.Context, j *jobs.Job, mod int64) (int64, error) {
	key := s.jobKey(JobKey{j.Metadata.Namespace, j.Metadata.Name})
	r, err := s.commit(ctx, kv.Txn{
		Op: "job", Guards: []kv.Guard{{Key: key, Kind: kv.Unchanged, Rev: mod}}, Changes: []kv.Change{{Key: key, Value: encode(j)}},
	})
	return r.Revision, done(r, err, fmt.Sprintf("write job %s/%s", j.Metadata.Namespace, j.Metadata.Name))
}

// DeleteJob removes a definition as a compare-and-swap.
func (s *Store) DeleteJob(ctx context.Context, k JobKey, mod int64) error {
	key := s.jobKey(k)
	r, err := s.commit(ctx, kv.Txn{
		Op: "job", Guards: []kv.Guard{{Key: key, Kind: kv.Unchanged, Rev: mod}}, Changes: []kv.Change{{Key: key, Delete: true}},
	})
	return done(r, err, "delete job "+k.String())
}

// PutCommands creates one command for each shard, under one id. A command that exists already is left as it is: the first
// submission of an id wins.
func (s *Store) PutCommands(ctx context.Context, k JobKey, shards []int, id string, cmd Command) error {
	errs := make(chan error, len(shards))
	for _, sh := range shards {
		s.KV.Submit(s.CommandTxn(k, sh, id, cmd, ""), func(r kv.Result) { errs <- r.Err })
	}
	for range shards {
		select {
		case err := <-errs:
			if err != nil {
				return fmt.Errorf("write command for %s: %w", k, err)
			}
		case <-ctx.Done():
			return fmt.Errorf("write command for %s: %w", k, context.Cause(ctx))
		}
	}
	return nil
}

// CommandTxn creates one command once; term guards it when set.
func (s *Store) CommandTxn(k JobKey, shard int, id string, cmd Command, term string) kv.Txn {
	key := s.commandKey(k, shard, id)
	t := kv.Txn{Op: "command", Guards: []kv.Guard{{Key: key, Kind: kv.NotCreated}}, Changes: []kv.Change{{Key: key, Value: encode(cmd)}}}
	if term != "" {
		t.Guards = append(t.Guards, s.termGuard(term))
	}
	return t
}

// ReadCommands lists the commands of a job, or of a namespace when k.Name is "".
func (s *Store) ReadCommands(ctx context.Context, k JobKey) ([]CommandItem, error) {
	return readAll[CommandItem](ctx, s, s.Prefix(k.Namespace, Commands, k.Name))
}

// PutDrain turns an executor's traffic off.
func (s *Store) PutDrain(ctx context.Context, ns, executor string, d Drain) error {
	key := s.key(ns, string(Drains), executor)
	r, err := s.commit(ctx, kv.Txn{Op: "drain", Guards: []kv.Guard{{Key: key, Kind: kv.NotCreated}}, Changes: []kv.Change{{Key: key, Value: encode(d)}}})
	if err == nil && !r.Applied {
		return nil // drained already
	}
	return done(r, err, "drain "+executor)
}

// DeleteDrain turns it on again.
func (s *Store) DeleteDrain(ctx context.Context, ns, executor string) error {
	r, err := s.commit(ctx, kv.Txn{Op: "drain", Changes: []kv.Change{{Key: s.key(ns, string(Drains), executor), Delete: true}}})
	return done(r, err, "resume "+executor)
}

// ReadExecutors lists the incarnations that are present.
func (s *Store) ReadExecutors(ctx context.Context, ns string) ([]ExecutorItem, error) {
	return readAll[ExecutorItem](ctx, s, s.Prefix(ns, Executors, ""))
}

// ReadAssignments lists who should own what.
func (s *Store) ReadAssignments(ctx context.Context, ns string) ([]AssignmentItem, error) {
	return readAll[AssignmentItem](ctx, s, s.Prefix(ns, Assignments, ""))
}

// ReadDrains lists the drained executors.
func (s *Store) ReadDrains(ctx context.Context, ns string) ([]DrainItem, error) {
	return readAll[DrainItem](ctx, s, s.Prefix(ns, Drains, ""))
}

// ReadRounds lists the rounds of a namespace.
func (s *Store) ReadRounds(ctx context.Context, ns string) ([]RoundItem, error) {
	return readAll[RoundItem](ctx, s, s.Prefix(ns, Rounds, ""))
}

// ReadView reads one namespace's intent and decisions as they are now.
func (s *Store) ReadView(ctx context.Context, ns string) (*View, error) {
	v := NewView()
	v.Namespaces[ns] = NamespaceItem{Name: ns}
	for _, f := range []Family{Jobs, Executors, Pulses, Drains, Assignments, Rounds} {
		items, rev, err := kv.ListAll(ctx, s.KV, s.Prefix(ns, f, ""))
		if err != nil {
			return nil, fmt.Errorf("read namespace %s: %w", ns, err)
		}
		v.Apply(s.update(ns, f, kv.Update{Reset: true, Items: items, Revision: rev}))
	}
	return v, nil
}

// Ping asks the store for one linearizable read.
func (s *Store) Ping(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	_, err := s.KV.Get(ctx, s.leaderKey())
	return time.Since(start), err
}
