package memkv_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/store/kv"
	"github.com/rota-dev/rota/store/kvtest"
	"github.com/rota-dev/rota/store/memkv"
)

func TestConformance(t *testing.T) {
	kvtest.Run(t, func(*testing.T) kvtest.Target {
		s := memkv.New()
		return kvtest.Target{Store: s, Compact: s.Compact, Prefix: "/t/"}
	}, synctest.Test)
}

func TestFaultsStrikeBeforeOrAfterTheEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memkv.New()
		lost := errors.Join(kv.ErrUnknown, errors.New("answer lost"))
		s.SetFault(func(verb, op string) memkv.Fault {
			switch op {
			case "before":
				return memkv.Fault{Before: lost}
			case "after":
				return memkv.Fault{After: lost}
			case "slow":
				return memkv.Fault{Delay: time.Minute}
			}
			return memkv.Fault{}
		})
		put := func(op, key string) error {
			_, err := kv.Commit(context.Background(), s, kv.Txn{Op: op, Changes: []kv.Change{{Key: key, Value: []byte("v")}}})
			return err
		}
		require.ErrorIs(t, put("before", "a"), kv.ErrUnknown)
		require.ErrorIs(t, put("after", "b"), kv.ErrUnknown)
		start := time.Now()
		require.NoError(t, put("slow", "c"))
		require.Equal(t, time.Minute, time.Since(start))
		a, err := s.Get(context.Background(), "a")
		require.NoError(t, err)
		require.False(t, a.Exists(), "nothing happened")
		b, err := s.Get(context.Background(), "b")
		require.NoError(t, err)
		require.True(t, b.Exists(), "it took effect although the answer says nothing")
	})
}
