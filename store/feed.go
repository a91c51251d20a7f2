package store

import (
	"context"
	"sync"
)

// Feed follows some families of every namespace, also of those that appear later.
type Feed struct {
	Store    *Store
	Families []Family
	// Update is called with one update at a time.
	Update func(Update)
	// Error is told what goes wrong while following, which goes on; may be nil.
	Error func(error)
}

// Run returns when ctx ends and all followers have stopped.
func (f *Feed) Run(ctx context.Context) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	defer wg.Wait()
	update := func(u Update) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			f.Update(u)
		}
	}
	known := map[string]bool{}
	f.Store.FollowNamespaces(ctx, func(u Update) {
		update(u)
		for _, it := range u.Items {
			ns, ok := it.(NamespaceItem)
			if !ok || ns.Deleted || known[ns.Name] {
				continue
			}
			known[ns.Name] = true
			for _, fam := range f.Families {
				wg.Go(func() { f.Store.Follow(ctx, ns.Name, fam, "", update, f.Error) })
			}
		}
	}, f.Error)
}
