package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// I3, E21: whatever stands in the store, decoding answers with an item or says that it is not understood.
func FuzzDecode(f *testing.F) {
	for _, k := range []string{"namespaces/n", "n/jobs/j", "n/commands/j/000001/id", "n/drain/x", "n/executors/x/i", "n/pulse/x/i", "n/assignment/x/j",
		"n/rounds/j", "n/runs/j/7/000003", "n/runs/j/x/y", "n/commands/j/x/id", "scheduler/leader", "", "n", "n/jobs", "n/jobs/a/b"} {
		for _, v := range []string{`{}`, `null`, `[]`, `"x"`, `{"spec":{"shards":"many"}}`, `{"shards":"5-1"}`, `{"shards":"0-99999999999"}`, "\xff", `{"cursor":"x"}`, `{"v":99,"future":true}`} {
			f.Add(k, []byte(v), false)
			f.Add(k, []byte(v), true)
		}
	}
	st := store.New(nil, "")
	f.Fuzz(func(t *testing.T, key string, value []byte, deleted bool) {
		item := st.Decode(kv.Event{Item: kv.Item{Key: store.DefaultPrefix + key, Value: value, Mod: 1, Create: 1}, Deleted: deleted})
		require.NotNil(t, item)
		v := store.NewView()
		v.Apply(store.Update{Namespace: "n", Items: []any{item}})
		v.Candidates(store.NewAdvice(), "n")
	})
}

func TestRangesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.SliceOfNDistinct(rapid.IntRange(0, 300), 0, 60, rapid.ID[int]).Draw(t, "set")
		var r store.Ranges
		for i := range 301 {
			for _, s := range set {
				if s == i {
					r = append(r, i)
				}
			}
		}
		b, err := r.MarshalText()
		require.NoError(t, err)
		var back store.Ranges
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, r, back)
	})
	require.Equal(t, "0-3,7,9-10", store.Ranges{0, 1, 2, 3, 7, 9, 10}.String())
}

func TestIDsCannotLeaveTheirPlaceInTheKeyspace(t *testing.T) {
	for _, id := range []string{"", "a/b", "..", "a..b", "-a", "a-", "a b", "ä", "a\x00"} {
		require.False(t, store.ValidID(id), id)
	}
	for _, id := range []string{"a", "exec-1", "host.example_2"} {
		require.True(t, store.ValidID(id), id)
	}
	for _, ns := range []string{"scheduler", "servers", "namespaces", "meta", "a/b", ""} {
		require.NotEmpty(t, jobs.ValidNamespace(ns), ns)
	}
}
