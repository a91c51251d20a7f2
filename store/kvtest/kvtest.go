// Package kvtest is the conformance suite of the storage contract: every adapter passes it.
package kvtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/store/kv"
)

// Target is one adapter under test.
type Target struct {
	Store kv.Store
	// Compact forgets history up to the current revision.
	Compact func()
	// Prefix keeps the tests of one store apart.
	Prefix string
}

// Run runs the whole suite. open is called once per test; within it time may be real or virtual.
func Run(t *testing.T, open func(t *testing.T) Target, bubble func(t *testing.T, f func(t *testing.T))) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, x Target)
	}{
		{"GuardsDecideWhichTransactionsApply", guards},
		{"ARefusalChangesNothingAndShowsTheObservedKey", refusal},
		{"OnlyOneOfManySubmissionsForOneRevisionWins", race},
		{"TransactionsSubmittedTogetherAreJudgedSingly", together},
		{"OrderPerKeyIsKeptInsideAGroup", order},
		{"ADuplicateKeyIsRefusedAndItsNeighboursAreNot", duplicate},
		{"ListsArePagedInKeyOrderAsOfOneRevision", lists},
		{"AWatchDeliversEveryChangeOnceInOrder", watch},
		{"AWatchFromACompactedRevisionEnds", compacted},
		{"FollowListsAgainAfterCompaction", follow},
		{"KeysGoWithTheirLease", leases},
		{"ARenewedLeaseLives", renewed},
		{"APutUnderAMissingLeaseIsDefinite", missingLease},
		{"DeletesAreEvents", deletes},
	} {
		t.Run(c.name, func(t *testing.T) { bubble(t, func(t *testing.T) { c.f(t, open(t)) }) })
	}
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return c
}

func commit(t *testing.T, x Target, tx kv.Txn) kv.Result {
	t.Helper()
	r, err := kv.Commit(ctx(t), x.Store, tx)
	require.NoError(t, err)
	return r
}

func put(key, value string) kv.Change { return kv.Change{Key: key, Value: []byte(value)} }

func guards(t *testing.T, x Target) {
	k := x.Prefix + "k"
	r := commit(t, x, kv.Txn{Op: "a", Guards: []kv.Guard{{Key: k, Kind: kv.NotCreated}}, Changes: []kv.Change{put(k, "1")}})
	require.True(t, r.Applied)
	created := r.Revision
	require.False(t, commit(t, x, kv.Txn{Op: "b", Guards: []kv.Guard{{Key: k, Kind: kv.NotCreated}}, Changes: []kv.Change{put(k, "2")}}).Applied)
	r = commit(t, x, kv.Txn{Op: "c", Guards: []kv.Guard{{Key: k, Kind: kv.Unchanged, Rev: created}, {Key: k, Kind: kv.Exists}}, Changes: []kv.Change{put(k, "3")}})
	require.True(t, r.Applied)
	require.Greater(t, r.Revision, created)
	require.False(t, commit(t, x, kv.Txn{Op: "d", Guards: []kv.Guard{{Key: k, Kind: kv.Unchanged, Rev: created}}, Changes: []kv.Change{put(k, "4")}}).Applied)
	require.True(t, commit(t, x, kv.Txn{Op: "e", Guards: []kv.Guard{{Key: k, Kind: kv.CreatedAt, Rev: created}}, Changes: []kv.Change{put(k, "5")}}).Applied)
	it, err := x.Store.Get(ctx(t), k)
	require.NoError(t, err)
	require.Equal(t, "5", string(it.Value))
	require.Equal(t, created, it.Create)
	gone, err := x.Store.Get(ctx(t), x.Prefix+"absent")
	require.NoError(t, err)
	require.False(t, gone.Exists())
	require.False(t, commit(t, x, kv.Txn{Op: "f", Guards: []kv.Guard{{Key: x.Prefix + "absent", Kind: kv.Exists}}, Changes: []kv.Change{put(k, "6")}}).Applied)
	require.True(t, commit(t, x, kv.Txn{Op: "g", Guards: []kv.Guard{{Key: x.Prefix + "absent", Kind: kv.Unchanged}}, Changes: []kv.Change{put(k, "7")}}).Applied)
}

func refusal(t *testing.T, x Target) {
	a, b := x.Prefix+"a", x.Prefix+"b"
	first := commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(a, "mine")}})
	r := commit(t, x, kv.Txn{Op: "put", Observe: a, Guards: []kv.Guard{{Key: a, Kind: kv.Unchanged, Rev: 1}}, Changes: []kv.Change{put(a, "x"), put(b, "y")}})
	require.False(t, r.Applied)
	require.Equal(t, "mine", string(r.Observed.Value))
	require.Equal(t, first.Revision, r.Observed.Mod)
	it, err := x.Store.Get(ctx(t), b)
	require.NoError(t, err)
	require.False(t, it.Exists())
	r = commit(t, x, kv.Txn{Op: "put", Observe: b, Guards: []kv.Guard{{Key: b, Kind: kv.Exists}}, Changes: []kv.Change{put(a, "x")}})
	require.False(t, r.Applied)
	require.False(t, r.Observed.Exists())
}

// submit sends all at once and collects the answers.
func submit(x Target, txns []kv.Txn) []kv.Result {
	out := make([]kv.Result, len(txns))
	done := make(chan int, len(txns))
	for i, tx := range txns {
		x.Store.Submit(tx, func(r kv.Result) { out[i] = r; done <- i })
	}
	for range txns {
		<-done
	}
	return out
}

func race(t *testing.T, x Target) {
	k := x.Prefix + "k"
	rev := commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(k, "0")}}).Revision
	var txns []kv.Txn
	for i := range 300 {
		txns = append(txns, kv.Txn{Op: "race", Observe: k, Guards: []kv.Guard{{Key: k, Kind: kv.Unchanged, Rev: rev}}, Changes: []kv.Change{put(k, fmt.Sprint(i))}})
	}
	won := 0
	var value string
	for i, r := range submit(x, txns) {
		require.NoError(t, r.Err)
		if r.Applied {
			won, value = won+1, fmt.Sprint(i)
		}
	}
	require.Equal(t, 1, won)
	it, err := x.Store.Get(ctx(t), k)
	require.NoError(t, err)
	require.Equal(t, value, string(it.Value))
}

func together(t *testing.T, x Target) {
	me := x.Prefix + "me"
	commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(me, "")}})
	var txns []kv.Txn
	for i := range 500 {
		g := kv.Guard{Key: x.Prefix + fmt.Sprintf("k%d", i), Kind: kv.NotCreated}
		if i%5 == 0 {
			g.Kind = kv.Exists // does not hold
		}
		txns = append(txns, kv.Txn{Op: "many", Observe: g.Key, Guards: []kv.Guard{{Key: me, Kind: kv.Exists}, g}, Changes: []kv.Change{put(g.Key, "v")}})
	}
	for i, r := range submit(x, txns) {
		require.NoError(t, r.Err)
		require.Equal(t, i%5 != 0, r.Applied, i)
	}
	commit(t, x, kv.Txn{Op: "del", Changes: []kv.Change{{Key: me, Delete: true}}})
	for i := range txns {
		txns[i].Guards[1] = kv.Guard{Key: txns[i].Observe, Kind: kv.Exists}
	}
	for i, r := range submit(x, txns) { // the guard that all share fails
		require.NoError(t, r.Err)
		require.False(t, r.Applied)
		require.Equal(t, i%5 != 0, r.Observed.Exists(), "each refusal shows its own key")
	}
}

func order(t *testing.T, x Target) {
	k := x.Prefix + "k"
	var mu sync.Mutex
	var revs []int64
	var wg sync.WaitGroup
	wg.Add(100)
	for i := range 100 {
		x.Store.Submit(kv.Txn{Op: "order", Changes: []kv.Change{put(k, fmt.Sprint(i)), put(x.Prefix+fmt.Sprintf("o%d", i), "")}}, func(r kv.Result) {
			mu.Lock()
			revs = append(revs, r.Revision)
			mu.Unlock()
			wg.Done()
		})
	}
	wg.Wait()
	seen := map[int64]bool{}
	for _, r := range revs {
		require.False(t, seen[r], "two writes of one key never share a revision")
		seen[r] = true
	}
}

func duplicate(t *testing.T, x Target) {
	k := x.Prefix + "k"
	rs := submit(x, []kv.Txn{
		{Op: "ok", Changes: []kv.Change{put(x.Prefix+"1", "")}},
		{Op: "bad", Changes: []kv.Change{put(k, "a"), put(k, "b")}},
		{Op: "ok", Changes: []kv.Change{put(x.Prefix+"2", "")}},
	})
	require.True(t, rs[0].Applied)
	require.ErrorIs(t, rs[1].Err, kv.ErrRefused)
	require.NotErrorIs(t, rs[1].Err, kv.ErrUnknown)
	require.True(t, rs[2].Applied)
}

func lists(t *testing.T, x Target) {
	for i := range 25 {
		commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(x.Prefix+fmt.Sprintf("l/%02d", i), "v")}})
	}
	commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(x.Prefix+"m", "outside")}})
	page, err := x.Store.List(ctx(t), kv.ListRequest{Prefix: x.Prefix + "l/", Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Items, 10)
	require.True(t, page.More)
	require.Equal(t, x.Prefix+"l/00", page.Items[0].Key)
	next, err := x.Store.List(ctx(t), kv.ListRequest{Prefix: x.Prefix + "l/", Limit: 100, After: page.Items[9].Key, Revision: page.Revision})
	require.NoError(t, err)
	require.Len(t, next.Items, 15)
	require.False(t, next.More)
	all, _, err := kv.ListAll(ctx(t), x.Store, x.Prefix+"l/")
	require.NoError(t, err)
	require.Len(t, all, 25)
}

func watch(t *testing.T, x Target) {
	rev := commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(x.Prefix+"w/0", "before")}}).Revision
	c, cancel := context.WithCancel(ctx(t))
	defer cancel()
	ch := x.Store.Watch(c, x.Prefix+"w/", rev)
	for i := range 50 {
		commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(x.Prefix+fmt.Sprintf("w/%d", i%7), fmt.Sprint(i)), put(x.Prefix+fmt.Sprintf("z/%d", i), "")}})
	}
	var got []string
	last := rev
	for len(got) < 50 {
		b := <-ch
		require.NoError(t, b.Err)
		for _, e := range b.Events {
			require.Greater(t, e.Item.Mod, last)
			require.LessOrEqual(t, e.Item.Mod, b.Revision)
			last = e.Item.Mod
			got = append(got, string(e.Item.Value))
		}
	}
	for i, v := range got {
		require.Equal(t, fmt.Sprint(i), v)
	}
	cancel()
	for range ch { // closes
	}
}

func compacted(t *testing.T, x Target) {
	rev := commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(x.Prefix+"c", "1")}}).Revision
	for i := range 5 {
		commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(x.Prefix+"c", fmt.Sprint(i))}})
	}
	x.Compact()
	for b := range x.Store.Watch(ctx(t), x.Prefix+"c", rev) {
		require.ErrorIs(t, b.Err, kv.ErrCompacted)
		return
	}
	t.Fatal("the watch ended without a word")
}

func follow(t *testing.T, x Target) {
	c, cancel := context.WithCancel(ctx(t))
	updates := make(chan kv.Update, 100)
	ended := make(chan struct{})
	go func() {
		kv.Follow(c, x.Store, x.Prefix+"f/", func(u kv.Update) { updates <- u }, nil)
		close(ended)
	}()
	require.True(t, (<-updates).Reset)
	commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(x.Prefix+"f/1", "a")}})
	u := <-updates
	require.Len(t, u.Events, 1)
	cancel()
	<-ended
}

func leases(t *testing.T, x Target) {
	id, ttl, err := x.Store.Grant(ctx(t), 2*time.Second)
	require.NoError(t, err)
	require.GreaterOrEqual(t, ttl, 2*time.Second)
	k := x.Prefix + "leased"
	require.True(t, commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{{Key: k, Value: []byte("x"), Lease: id}}}).Applied)
	it, err := x.Store.Get(ctx(t), k)
	require.NoError(t, err)
	require.Equal(t, id, it.Lease)
	require.NoError(t, x.Store.Revoke(ctx(t), id))
	it, err = x.Store.Get(ctx(t), k)
	require.NoError(t, err)
	require.False(t, it.Exists())
	require.NoError(t, x.Store.Revoke(ctx(t), id), "revoking again is no error")
	require.ErrorIs(t, x.Store.Renew(ctx(t), id), kv.ErrLeaseNotFound)
}

func renewed(t *testing.T, x Target) {
	id, ttl, err := x.Store.Grant(ctx(t), 2*time.Second)
	require.NoError(t, err)
	k := x.Prefix + "leased"
	rev := commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{{Key: k, Value: []byte("x"), Lease: id}}}).Revision
	for range 4 {
		time.Sleep(ttl / 2) // the lease runs on the store's clock
		require.NoError(t, x.Store.Renew(ctx(t), id))
	}
	it, err := x.Store.Get(ctx(t), k)
	require.NoError(t, err)
	require.True(t, it.Exists(), "twice its time to live after the grant")
	for b := range x.Store.Watch(ctx(t), k, rev) {
		require.NoError(t, b.Err)
		require.True(t, b.Events[0].Deleted, "unrenewed it goes")
		return
	}
}

func missingLease(t *testing.T, x Target) {
	rs := submit(x, []kv.Txn{
		{Op: "ok", Changes: []kv.Change{put(x.Prefix+"1", "")}},
		{Op: "bad", Changes: []kv.Change{{Key: x.Prefix + "2", Lease: 12345}}},
		{Op: "ok", Changes: []kv.Change{put(x.Prefix+"3", "")}},
	})
	require.True(t, rs[0].Applied)
	require.ErrorIs(t, rs[1].Err, kv.ErrLeaseNotFound)
	require.True(t, rs[2].Applied)
}

func deletes(t *testing.T, x Target) {
	k := x.Prefix + "d"
	rev := commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(k, "1")}}).Revision
	r := commit(t, x, kv.Txn{Op: "del", Guards: []kv.Guard{{Key: k, Kind: kv.Unchanged, Rev: rev}}, Changes: []kv.Change{{Key: k, Delete: true}}})
	require.True(t, r.Applied)
	again := commit(t, x, kv.Txn{Op: "put", Changes: []kv.Change{put(k, "2")}})
	it, err := x.Store.Get(ctx(t), k)
	require.NoError(t, err)
	require.Equal(t, again.Revision, it.Create, "a key created again has a new create revision")
	var kinds []bool
	for b := range x.Store.Watch(ctx(t), k, rev) {
		require.NoError(t, b.Err)
		for _, e := range b.Events {
			kinds = append(kinds, e.Deleted)
		}
		if len(kinds) == 2 {
			break
		}
	}
	require.Equal(t, []bool{true, false}, kinds)
	if errors.Is(t.Context().Err(), context.Canceled) {
		return
	}
}
