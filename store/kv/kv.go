package kv

import (
	"context"
	"errors"
	"time"
)

// Sentinels that adapters wrap. ErrUnknown is the only ambiguous one.
var (
	// ErrUnknown says that the outcome is not known: the transaction may have been applied, or may be applied later.
	ErrUnknown = errors.New("outcome unknown")
	// ErrRefused says that the store refused the request as a whole; it was not and will not be applied.
	ErrRefused = errors.New("refused by the store")
	// ErrLeaseNotFound says that the lease does not exist (any more). Definite.
	ErrLeaseNotFound = errors.New("lease not found")
	// ErrCompacted says that the revision asked for has been compacted away: list again.
	ErrCompacted = errors.New("revision compacted")
)

// LeaseID names a lease; 0 is no lease.
type LeaseID int64

// Item is one key at one moment. An absent key has Mod and Create zero.
type Item struct {
	Key    string
	Value  []byte
	Create int64
	Mod    int64
	Lease  LeaseID
}

// Exists says whether the key was there.
func (i Item) Exists() bool { return i.Mod != 0 }

// Compare says what a [Guard] compares.
type Compare int

// The comparisons.
const (
	Unchanged  Compare = iota // the key's mod revision equals Rev (0: it does not exist)
	CreatedAt                 // the key's create revision equals Rev
	Exists                    // the key exists
	NotCreated                // the key does not exist
)

// Guard is a condition on one key.
type Guard struct {
	Key  string
	Kind Compare
	Rev  int64
}

// Change is a put (with an optional lease) or a delete of one key.
type Change struct {
	Key    string
	Value  []byte
	Lease  LeaseID
	Delete bool
}

// Txn is all or nothing: when every guard holds, every change is made. No key may be changed twice.
type Txn struct {
	Op      string // short name of the operation, for errors, metrics and fault injection
	Guards  []Guard
	Changes []Change
	// Observe names the key whose current state comes back when the guards refuse. Optional.
	Observe string
}

// Result is the answer to one [Txn].
type Result struct {
	Applied  bool
	Revision int64 // of the commit when Applied, else of the refusal
	Observed Item  // when refused and Txn.Observe was set
	Err      error // nil, or wraps ErrUnknown, ErrRefused or ErrLeaseNotFound
}

// Page is one part of a listing, in key order, as of Revision.
type Page struct {
	Items    []Item
	Revision int64
	More     bool
}

// ListRequest asks for the keys with a prefix.
type ListRequest struct {
	Prefix   string
	After    string // exclusive; "" starts at the beginning
	Limit    int    // 0: the adapter's page size
	Revision int64  // 0: now
}

// Event is one change of one key. A deletion has Item.Value nil and Deleted set.
type Event struct {
	Item    Item
	Deleted bool
}

// Batch is a part of a watch: all events up to and including Revision. Err ends the watch.
type Batch struct {
	Events   []Event
	Revision int64
	Err      error
}

// Store is the contract. All methods are safe for concurrent use.
type Store interface {
	// Get reads one key; an absent key is an Item with Mod 0 and no error.
	Get(ctx context.Context, key string) (Item, error)
	// List reads one page of the keys with a prefix.
	List(ctx context.Context, req ListRequest) (Page, error)
	// Watch delivers all changes of keys with the prefix after revision from. The channel closes after a batch with Err,
	// or when ctx ends.
	Watch(ctx context.Context, prefix string, from int64) <-chan Batch
	// Submit starts a transaction and never blocks; done is called exactly once, from any goroutine.
	Submit(t Txn, done func(Result))
	// Grant creates a lease that ends ttl after its last renewal. It answers with the time to live that the store granted.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, time.Duration, error)
	// Renew extends a lease to its full time to live; ErrLeaseNotFound when it is gone.
	Renew(ctx context.Context, id LeaseID) error
	// Revoke ends a lease and deletes its keys. Revoking a lease that is gone is no error.
	Revoke(ctx context.Context, id LeaseID) error
}

// Commit submits one transaction and waits for its answer. When ctx ends first the outcome is unknown.
func Commit(ctx context.Context, s Store, t Txn) (Result, error) {
	ch := make(chan Result, 1)
	s.Submit(t, func(r Result) { ch <- r })
	select {
	case r := <-ch:
		return r, r.Err
	case <-ctx.Done():
		err := errors.Join(ErrUnknown, context.Cause(ctx))
		return Result{Err: err}, err
	}
}

// ListAll reads every page as of one revision.
func ListAll(ctx context.Context, s Store, prefix string) ([]Item, int64, error) {
	var all []Item
	req := ListRequest{Prefix: prefix}
	for {
		page, err := s.List(ctx, req)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, page.Items...)
		if req.Revision == 0 {
			req.Revision = page.Revision
		}
		if !page.More {
			return all, req.Revision, nil
		}
		req.After = page.Items[len(page.Items)-1].Key
	}
}
