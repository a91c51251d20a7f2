package etcdkv

import (
	"context"
	"errors"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/clientv3util"

	"github.com/rota-dev/rota/store/kv"
)

// Group commit. Transactions that wait together become one etcd transaction of nested transactions, each with its own
// guards and its own verdict. Guards that all members share stand once at the outer level.
//
// etcd evaluates all guards of a nested transaction against the state *before* any of it is applied. A member that guards
// or writes a key that an earlier member writes therefore has to wait for the next group. An idle line never waits; only
// a few groups are in flight, so a group collects what arrives meanwhile.
const (
	maxGroup      = 100       // members; etcd allows 128 operations per level, the nested ones counted on top
	maxGroupBytes = 512 << 10 // etcd's request limit is 1.5 MiB
	// In flight at a time: two, so that one collects while the other is on its way; up to eight while whole groups are
	// waiting, because etcd makes several proposals durable with one fsync and a slow disk would else set the pace.
	maxInFlight     = 2
	maxFullInFlight = 8
)

type request struct {
	txn  kv.Txn
	done func(kv.Result)
}

type group struct {
	commit func([]request)

	mu       sync.Mutex
	waiting  []request
	inFlight int
	closed   bool
	idle     *sync.Cond
}

func newGroup(commit func([]request)) *group {
	g := &group{commit: commit}
	g.idle = sync.NewCond(&g.mu)
	return g
}

func (g *group) add(t kv.Txn, done func(kv.Result)) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		done(kv.Result{Err: errors.Join(kv.ErrRefused, errors.New("store is closed"))})
		return
	}
	g.waiting = append(g.waiting, request{t, done})
	g.launch()
	g.mu.Unlock()
}

// launch starts groups while there is room. Callers hold mu.
func (g *group) launch() {
	for len(g.waiting) > 0 && (g.inFlight < maxInFlight || g.inFlight < maxFullInFlight && len(g.waiting) >= maxGroup) {
		var members []request
		members, g.waiting = take(g.waiting)
		g.inFlight++
		go func() {
			g.commit(members)
			g.mu.Lock()
			g.inFlight--
			g.launch()
			g.idle.Broadcast()
			g.mu.Unlock()
		}()
	}
}

func (g *group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for g.inFlight > 0 || len(g.waiting) > 0 {
		g.idle.Wait()
	}
}

// take splits off the members of the next group, in order; whoever conflicts with an earlier member stays behind.
func take(waiting []request) (members, rest []request) {
	if len(waiting) == 1 {
		return waiting, nil
	}
	written := make(map[string]bool, maxGroup)
	size := 0
	members = make([]request, 0, min(len(waiting), maxGroup))
	for i, r := range waiting {
		if len(members) == maxGroup || size > maxGroupBytes {
			if rest == nil {
				return members, waiting[i:] // the usual case of a long line: no copy
			}
			return members, append(rest, waiting[i:]...)
		}
		if conflicts(r.txn, written) {
			rest = append(rest, r)
		} else {
			members = append(members, r)
		}
		// The writes of those who stay behind count too: order per key is kept.
		for _, c := range r.txn.Changes {
			written[c.Key] = true
			size += len(c.Key) + len(c.Value)
		}
	}
	return members, rest
}

func conflicts(t kv.Txn, written map[string]bool) bool {
	for _, g := range t.Guards {
		if written[g.Key] {
			return true
		}
	}
	for _, c := range t.Changes {
		if written[c.Key] {
			return true
		}
	}
	return false
}

// commit sends one group and answers every member. When etcd refuses a whole group, its members go singly, so that nobody
// pays for another's mistake.
func (s *Store) commit(members []request) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.CallTimeout)
	defer cancel()
	start := time.Now()
	op := members[0].txn.Op
	results, err := s.send(ctx, members)
	s.cfg.ObserveGroup(op, len(members), time.Since(start))
	if err == nil {
		for i, r := range results {
			members[i].done(r)
		}
		return
	}
	err = classify(op, err)
	if len(members) > 1 && !errors.Is(err, kv.ErrUnknown) {
		for _, m := range members {
			s.commit([]request{m})
		}
		return
	}
	for _, m := range members {
		m.done(kv.Result{Err: err})
	}
}

func (s *Store) send(ctx context.Context, members []request) ([]kv.Result, error) {
	if len(members) == 1 {
		t := members[0].txn
		r, err := s.write.Txn(ctx).If(compares(t.Guards)...).Then(puts(t.Changes)...).Else(observe(t.Observe)...).Commit()
		if err != nil {
			return nil, err
		}
		return []kv.Result{result(t, r.Header.Revision, r)}, nil
	}
	shared := sharedGuards(members)
	then := make([]clientv3.Op, len(members))
	var otherwise []clientv3.Op
	for i, m := range members {
		own := make([]kv.Guard, 0, len(m.txn.Guards))
		for _, g := range m.txn.Guards {
			if !contains(shared, g) {
				own = append(own, g)
			}
		}
		then[i] = clientv3.OpTxn(compares(own), puts(m.txn.Changes), observe(m.txn.Observe))
		otherwise = append(otherwise, observe(m.txn.Observe)...)
	}
	r, err := s.write.Txn(ctx).If(compares(shared)...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return nil, err
	}
	results := make([]kv.Result, len(members))
	if !r.Succeeded {
		next := 0
		for i, m := range members {
			results[i] = kv.Result{Revision: r.Header.Revision}
			if m.txn.Observe != "" {
				if kvs := r.Responses[next].GetResponseRange().Kvs; len(kvs) > 0 {
					results[i].Observed = item(kvs[0])
				}
				next++
			}
		}
		return results, nil
	}
	for i, m := range members {
		results[i] = result(m.txn, r.Header.Revision, (*clientv3.TxnResponse)(r.Responses[i].GetResponseTxn()))
	}
	return results, nil
}

func result(t kv.Txn, rev int64, r *clientv3.TxnResponse) kv.Result {
	res := kv.Result{Applied: r.Succeeded, Revision: rev}
	if !r.Succeeded && t.Observe != "" {
		if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			res.Observed = item(kvs[0])
		}
	}
	return res
}

func sharedGuards(members []request) []kv.Guard {
	shared := append([]kv.Guard{}, members[0].txn.Guards...)
	for _, m := range members[1:] {
		kept := shared[:0]
		for _, g := range shared {
			if contains(m.txn.Guards, g) {
				kept = append(kept, g)
			}
		}
		shared = kept
	}
	return shared
}

func contains(gs []kv.Guard, g kv.Guard) bool {
	for _, o := range gs {
		if o == g {
			return true
		}
	}
	return false
}

func compares(gs []kv.Guard) []clientv3.Cmp {
	out := make([]clientv3.Cmp, len(gs))
	for i, g := range gs {
		switch g.Kind {
		case kv.Unchanged:
			out[i] = clientv3.Compare(clientv3.ModRevision(g.Key), "=", g.Rev)
		case kv.CreatedAt:
			out[i] = clientv3.Compare(clientv3.CreateRevision(g.Key), "=", g.Rev)
		case kv.Exists:
			out[i] = clientv3util.KeyExists(g.Key)
		case kv.NotCreated:
			out[i] = clientv3util.KeyMissing(g.Key)
		}
	}
	return out
}

func puts(cs []kv.Change) []clientv3.Op {
	out := make([]clientv3.Op, len(cs))
	for i, c := range cs {
		switch {
		case c.Delete:
			out[i] = clientv3.OpDelete(c.Key)
		case c.Lease != 0:
			out[i] = clientv3.OpPut(c.Key, string(c.Value), clientv3.WithLease(clientv3.LeaseID(c.Lease)))
		default:
			out[i] = clientv3.OpPut(c.Key, string(c.Value))
		}
	}
	return out
}

func observe(key string) []clientv3.Op {
	if key == "" {
		return nil
	}
	return []clientv3.Op{clientv3.OpGet(key)}
}
