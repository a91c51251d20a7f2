package memkv

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rota-dev/rota/store/kv"
)

// Fault is what the hook may order for one call. The zero value does nothing.
type Fault struct {
	Before error         // fail with this error; nothing happens
	After  error         // take effect, then answer with this error
	Delay  time.Duration // answer this much later; the effect is at once
	Hold   time.Duration // take effect this much later than the call (and answer then)
}

// Store is a [kv.Store] in memory.
type Store struct {
	mu      sync.Mutex
	core    *Core
	start   time.Time
	changed chan struct{}
	ask     func(verb, op string) Fault
	timer   time.Duration // when the next expiry is looked at
}

// New returns an empty store.
func New() *Store {
	return &Store{core: NewCore(), start: time.Now(), changed: make(chan struct{})}
}

// SetFault has f asked at every verb ("get", "list", "watch", "submit", "grant", "renew", "revoke"); op is the Op of a
// transaction. It must not call the store.
func (s *Store) SetFault(f func(verb, op string) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask = f
}

func (s *Store) fault(verb, op string) Fault {
	s.mu.Lock()
	ask := s.ask
	s.mu.Unlock()
	if ask == nil {
		return Fault{}
	}
	return ask(verb, op)
}

// with runs f under the lock at the current time, after expiring leases, and wakes the watchers.
func (s *Store) with(f func(now time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.start)
	before := s.core.rev
	next := s.core.Expire(now)
	f(now)
	if s.core.rev != before {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	if n := s.core.Expire(now); n != 0 && (next == 0 || n < next) {
		next = n
	}
	if next != 0 && (s.timer == 0 || s.timer <= now || next < s.timer) { // one timer, not one for each call
		s.timer = next
		time.AfterFunc(next-now, func() { s.with(func(time.Duration) {}) })
	}
}

func (s *Store) call(ctx context.Context, verb string, f func(now time.Duration) error) error {
	ft := s.fault(verb, "")
	if ft.Before != nil {
		return fmt.Errorf("%s: %w", verb, ft.Before)
	}
	if err := pause(ctx, ft.Hold); err != nil {
		return err
	}
	var err error
	s.with(func(now time.Duration) { err = f(now) })
	if perr := pause(ctx, ft.Delay); perr != nil {
		return perr
	}
	if ft.After != nil {
		return fmt.Errorf("%s: %w", verb, ft.After)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Get implements [kv.Store].
func (s *Store) Get(ctx context.Context, key string) (it kv.Item, err error) {
	err = s.call(ctx, "get", func(time.Duration) error { it = s.core.Get(key); it.Key = key; return nil })
	return it, err
}

// List implements [kv.Store]. Revisions of the past are served only while nothing changed since.
func (s *Store) List(ctx context.Context, req kv.ListRequest) (p kv.Page, err error) {
	err = s.call(ctx, "list", func(time.Duration) error {
		p.Revision = s.core.rev
		for _, it := range s.core.List(req.Prefix) {
			if it.Key <= req.After {
				continue
			}
			if req.Limit > 0 && len(p.Items) == req.Limit {
				p.More = true
				break
			}
			p.Items = append(p.Items, it)
		}
		return nil
	})
	return p, err
}

// Watch implements [kv.Store].
func (s *Store) Watch(ctx context.Context, prefix string, from int64) <-chan kv.Batch {
	out := make(chan kv.Batch)
	go func() {
		defer close(out)
		for {
			var b kv.Batch
			ft := s.fault("watch", prefix)
			s.mu.Lock()
			changed := s.changed
			b.Events, b.Err = s.core.Since(prefix, from)
			b.Revision = s.core.rev
			s.mu.Unlock()
			if ft.Before != nil {
				b = kv.Batch{Err: ft.Before}
			}
			if pause(ctx, ft.Delay) != nil {
				return
			}
			from = b.Revision
			if len(b.Events) > 0 || b.Err != nil {
				select {
				case out <- b:
				case <-ctx.Done():
					return
				}
				if b.Err != nil {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Submit implements [kv.Store].
func (s *Store) Submit(t kv.Txn, done func(kv.Result)) {
	ft := s.fault("submit", t.Op)
	go func() {
		if ft.Before != nil {
			done(kv.Result{Err: fmt.Errorf("%s: %w", t.Op, ft.Before)})
			return
		}
		time.Sleep(ft.Hold)
		var r kv.Result
		s.with(func(time.Duration) { r = s.core.Apply(t) })
		time.Sleep(ft.Delay)
		if ft.After != nil {
			r = kv.Result{Err: fmt.Errorf("%s: %w", t.Op, ft.After)}
		}
		done(r)
	}()
}

// Grant implements [kv.Store].
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (id kv.LeaseID, _ time.Duration, err error) {
	err = s.call(ctx, "grant", func(now time.Duration) error { id = s.core.Grant(now, ttl); return nil })
	return id, ttl, err
}

// Renew implements [kv.Store].
func (s *Store) Renew(ctx context.Context, id kv.LeaseID) error {
	return s.call(ctx, "renew", func(now time.Duration) error {
		if !s.core.Renew(now, id) {
			return kv.ErrLeaseNotFound
		}
		return nil
	})
}

// Revoke implements [kv.Store].
func (s *Store) Revoke(ctx context.Context, id kv.LeaseID) error {
	return s.call(ctx, "revoke", func(time.Duration) error { s.core.Revoke(id); return nil })
}

// Compact forgets history up to the current revision, as an operator would.
func (s *Store) Compact() {
	s.with(func(time.Duration) { s.core.Compact(s.core.rev) })
}
