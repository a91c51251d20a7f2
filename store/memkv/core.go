// Package memkv is the storage contract in memory.
//
// [Core] is the semantics alone: single-threaded, without clock or goroutine, for simulations that own time. [Store] is a
// [kv.Store] around it for tests under testing/synctest: leases expire on the (virtual) clock, and [Store.SetFault] is asked
// at every verb whether to fail before or after it took effect, or to answer late.
package memkv

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/rota-dev/rota/store/kv"
)

type lease struct {
	ttl     time.Duration
	expires time.Duration
}

// Core holds revisions, keys, leases and the log of events. The zero value is not usable; see [NewCore].
type Core struct {
	rev       int64
	compacted int64
	items     map[string]kv.Item
	leases    map[kv.LeaseID]*lease
	lastLease kv.LeaseID
	log       []kv.Event
}

// NewCore returns an empty store at revision 1.
func NewCore() *Core {
	return &Core{rev: 1, items: map[string]kv.Item{}, leases: map[kv.LeaseID]*lease{}}
}

// Revision is the current one.
func (c *Core) Revision() int64 { return c.rev }

// Get reads one key.
func (c *Core) Get(key string) kv.Item { return c.items[key] }

// List reads all keys with a prefix in key order.
func (c *Core) List(prefix string) []kv.Item {
	var out []kv.Item
	for k, it := range c.items {
		if strings.HasPrefix(k, prefix) {
			out = append(out, it)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out
}

// Holds says whether a guard holds now.
func (c *Core) Holds(g kv.Guard) bool {
	it := c.items[g.Key]
	switch g.Kind {
	case kv.Unchanged:
		return it.Mod == g.Rev
	case kv.CreatedAt:
		return it.Create == g.Rev
	case kv.Exists:
		return it.Mod != 0
	case kv.NotCreated:
		return it.Mod == 0
	}
	return false
}

// Apply runs a transaction.
func (c *Core) Apply(t kv.Txn) kv.Result {
	seen := map[string]bool{}
	for _, ch := range t.Changes {
		if seen[ch.Key] {
			return kv.Result{Err: fmt.Errorf("%s: %w: duplicate key %q", t.Op, kv.ErrRefused, ch.Key)}
		}
		seen[ch.Key] = true
	}
	for _, g := range t.Guards {
		if !c.Holds(g) {
			return kv.Result{Revision: c.rev, Observed: c.items[t.Observe]}
		}
	}
	for _, ch := range t.Changes {
		if ch.Lease != 0 && c.leases[ch.Lease] == nil {
			return kv.Result{Err: fmt.Errorf("%s: %w", t.Op, kv.ErrLeaseNotFound)}
		}
	}
	if len(t.Changes) > 0 {
		c.change(t.Changes)
	}
	return kv.Result{Applied: true, Revision: c.rev}
}

func (c *Core) change(changes []kv.Change) {
	next := c.rev + 1
	changed := false
	for _, ch := range changes {
		old := c.items[ch.Key]
		if ch.Delete {
			if old.Mod == 0 {
				continue
			}
			delete(c.items, ch.Key)
			c.log = append(c.log, kv.Event{Item: kv.Item{Key: ch.Key, Mod: next}, Deleted: true})
			changed = true
			continue
		}
		it := kv.Item{Key: ch.Key, Value: append([]byte{}, ch.Value...), Create: old.Create, Mod: next, Lease: ch.Lease}
		if it.Create == 0 {
			it.Create = next
		}
		c.items[ch.Key] = it
		c.log = append(c.log, kv.Event{Item: it})
		changed = true
	}
	if changed {
		c.rev = next
	}
}

// Since returns the events with a prefix after revision from, or ErrCompacted.
func (c *Core) Since(prefix string, from int64) ([]kv.Event, error) {
	if from < c.compacted {
		return nil, kv.ErrCompacted
	}
	i := sort.Search(len(c.log), func(i int) bool { return c.log[i].Item.Mod > from })
	var out []kv.Event
	for _, e := range c.log[i:] {
		if strings.HasPrefix(e.Item.Key, prefix) {
			out = append(out, e)
		}
	}
	return out, nil
}

// Compact forgets the events up to and including rev.
func (c *Core) Compact(rev int64) {
	i := sort.Search(len(c.log), func(i int) bool { return c.log[i].Item.Mod > rev })
	c.log = append([]kv.Event{}, c.log[i:]...)
	c.compacted = max(c.compacted, rev)
}

// Grant creates a lease at time now of the store's own clock.
func (c *Core) Grant(now, ttl time.Duration) kv.LeaseID {
	c.lastLease++
	c.leases[c.lastLease] = &lease{ttl: ttl, expires: now + ttl}
	return c.lastLease
}

// Renew extends a lease; false when it is gone.
func (c *Core) Renew(now time.Duration, id kv.LeaseID) bool {
	l := c.leases[id]
	if l == nil {
		return false
	}
	l.expires = now + l.ttl
	return true
}

// Revoke ends a lease and deletes its keys in one revision.
func (c *Core) Revoke(id kv.LeaseID) {
	if c.leases[id] == nil {
		return
	}
	delete(c.leases, id)
	var dels []kv.Change
	for k, it := range c.items {
		if it.Lease == id {
			dels = append(dels, kv.Change{Key: k, Delete: true})
		}
	}
	sort.Slice(dels, func(i, j int) bool { return dels[i].Key < dels[j].Key })
	c.change(dels)
}

// Expire revokes the leases that ended by now and returns when the next one ends (0: none).
func (c *Core) Expire(now time.Duration) time.Duration {
	var ended []kv.LeaseID
	var next time.Duration
	for id, l := range c.leases {
		if l.expires <= now {
			ended = append(ended, id)
		} else if next == 0 || l.expires < next {
			next = l.expires
		}
	}
	sort.Slice(ended, func(i, j int) bool { return ended[i] < ended[j] })
	for _, id := range ended {
		c.Revoke(id)
	}
	return next
}

// ExtendAll restarts every lease's time to live, as a new etcd leader does.
func (c *Core) ExtendAll(now, extra time.Duration) {
	for _, l := range c.leases {
		l.expires = max(l.expires, now+extra+l.ttl)
	}
}
