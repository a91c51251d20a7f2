package kv

import (
	"context"
	"time"
)

// Update is what [Follow] delivers: first, and after every doubt, the whole state (Reset), then changes.
type Update struct {
	Reset    bool
	Items    []Item  // with Reset: everything that exists
	Events   []Event // otherwise
	Revision int64
}

// Follow keeps a reader up to date with all keys under prefix: it lists, watches from the next revision, and lists again
// whenever the watch ends. It calls f from one goroutine and returns when ctx ends. Errors are reported and retried with
// backoff; onError may be nil.
func Follow(ctx context.Context, s Store, prefix string, f func(Update), onError func(error)) {
	backoff := 50 * time.Millisecond
	for ctx.Err() == nil {
		items, rev, err := ListAll(ctx, s, prefix)
		if err == nil {
			backoff = 50 * time.Millisecond
			f(Update{Reset: true, Items: items, Revision: rev})
			err = follow(ctx, s, prefix, rev, f)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && onError != nil {
			onError(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, 2*time.Second)
	}
}

func follow(ctx context.Context, s Store, prefix string, rev int64, f func(Update)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for b := range s.Watch(ctx, prefix, rev) {
		if b.Err != nil {
			return b.Err
		}
		if len(b.Events) > 0 {
			f(Update{Events: b.Events, Revision: b.Revision})
		}
	}
	return ctx.Err()
}
