package lease

import (
	"context"
	"sync"
	"time"

	"github.com/rota-dev/rota/store/kv"
)

// Keeper carries out a machine's effects on a store: the part that actors share. Answers come back through Post, which must
// not block and may be called from any goroutine.
type Keeper struct {
	Store kv.Store
	// Registration is the transaction that creates the incarnation's key.
	Registration func(incarnation string, lease kv.LeaseID) kv.Txn
	Post         func(in any)

	calls sync.WaitGroup
}

// Wait returns when no call is in flight.
func (k *Keeper) Wait() { k.calls.Wait() }

// callTimeout bounds a grant or renewal so that a lost answer costs one retry, not the window of trust.
func callTimeout(ttl time.Duration) time.Duration { return max(ttl/5, 300*time.Millisecond) }

// Do carries out one effect; it returns false for effects that are the owner's to handle.
func (k *Keeper) Do(ctx context.Context, effect any, ttl time.Duration) bool {
	switch e := effect.(type) {
	case Grant:
		k.calls.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 2*callTimeout(ttl))
			defer cancel()
			id, granted, err := k.Store.Grant(ctx, e.TTL)
			k.Post(Granted{e.Seq, id, granted, err})
		})
	case Register:
		k.Store.Submit(k.Registration(e.Incarnation, e.Lease), func(r kv.Result) { k.Post(Registered{e.Seq, r}) })
	case Renew:
		k.calls.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, callTimeout(ttl))
			defer cancel()
			k.Post(Renewed{e.Seq, k.Store.Renew(ctx, e.Lease)})
		})
	case Revoke:
		k.calls.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout(ttl))
			defer cancel()
			_ = k.Store.Revoke(ctx, e.Lease) // best effort: expiry is the net
		})
	default:
		return false
	}
	return true
}
