package order_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/domains/order"
	"github.com/rota-dev/rota/executor/executortest"
	"github.com/rota-dev/rota/jobs"
)

const input = `order_id,placed_at,paid_at
in-time,2026-01-01T00:00:00Z,2026-01-01T00:10:00Z
exactly,2026-01-01T00:00:00Z,2026-01-01T00:30:00Z
late,2026-01-01T00:00:00Z,2026-01-01T00:30:01Z
never,2026-01-01T00:00:00Z,
tomorrow,2026-01-02T00:00:00+08:00,2026-01-02T00:01:00+08:00
`

var day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, shards int) *order.Shop {
	s, err := order.Open(filepath.Join(t.TempDir(), "shop.db"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	resumed, err := s.Load(t.Context(), strings.NewReader(input), shards)
	require.NoError(t, err)
	require.False(t, resumed)
	return s
}

func cancelAll(t *testing.T, s *order.Shop, shards int, token int64) (n int64) {
	for shard := range shards {
		k, err := s.CancelUnpaid(t.Context(), shard, token)
		require.NoError(t, err)
		n += k
	}
	return n
}

func TestOrdersAreCancelledOnlyAfterThirtyMinutesUnpaid(t *testing.T) {
	s := open(t, 4)
	require.NoError(t, s.Advance(t.Context(), day.Add(5*time.Minute)))
	require.Zero(t, cancelAll(t, s, 4, 1))
	require.NoError(t, s.Advance(t.Context(), day.Add(30*time.Minute)))
	require.Zero(t, cancelAll(t, s, 4, 2), "exactly thirty minutes is still in time")
	require.NoError(t, s.Advance(t.Context(), day.Add(30*time.Minute+500*time.Millisecond)))
	require.Equal(t, int64(2), cancelAll(t, s, 4, 3), "late, never")
	require.Zero(t, cancelAll(t, s, 4, 4), "again changes nothing")
	require.NoError(t, s.Advance(t.Context(), day.Add(48*time.Hour)))
	a, err := s.Account(t.Context())
	require.NoError(t, err)
	want, err := s.Expected(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int{want.Orders, want.Paid, want.Cancelled}, []int{a.Orders, a.Paid, a.Cancelled})
	require.Equal(t, []int{5, 3, 2}, []int{a.Orders, a.Paid, a.Cancelled})
}

func TestOneBigStepOfTheClockEndsInTheSameAccount(t *testing.T) {
	s := open(t, 2)
	require.NoError(t, s.Advance(t.Context(), day.Add(48*time.Hour)))
	require.Equal(t, int64(2), cancelAll(t, s, 2, 1))
	a, err := s.Account(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int{5, 3, 2, 0}, []int{a.Orders, a.Paid, a.Cancelled, a.Open})
}

// G3: the token lets the database refuse a run that was taken over.
func TestAStaleTokenIsRefused(t *testing.T) {
	s := open(t, 1)
	require.NoError(t, s.Advance(t.Context(), day.Add(time.Hour)))
	_, err := s.CancelUnpaid(t.Context(), 0, 7)
	require.NoError(t, err)
	_, err = s.CancelUnpaid(t.Context(), 0, 6)
	require.ErrorIs(t, err, order.ErrStale)
	out := executortest.Run(t, order.AutoCancel(s), executortest.Case{Token: 6})
	require.Equal(t, jobs.Failed, out.Phase)
	require.True(t, out.Never, "trying again with the same token is useless")
	out = executortest.Run(t, order.AutoCancel(s), executortest.Case{Token: 7})
	require.Equal(t, jobs.Succeeded, out.Phase, "the same run may repeat its effect")
}

func TestAnUnfinishedRunResumesAndRefusesOtherOrders(t *testing.T) {
	s := open(t, 2)
	resumed, err := s.Load(t.Context(), strings.NewReader(input), 2)
	require.NoError(t, err)
	require.True(t, resumed)
	_, err = s.Load(t.Context(), strings.NewReader(input+"x,2026-01-01T00:00:00Z,\n"), 2)
	require.ErrorIs(t, err, order.ErrOtherInput)
	require.NoError(t, s.Finish(t.Context()))
	resumed, err = s.Load(t.Context(), strings.NewReader(input+"x,2026-01-01T00:00:00Z,\n"), 2)
	require.NoError(t, err)
	require.False(t, resumed)
}

func TestBadInputNamesItsLineAndChangesNothing(t *testing.T) {
	s := open(t, 2)
	require.NoError(t, s.Finish(t.Context()))
	for text, want := range map[string]string{
		"":                                      "no header",
		"order_id,placed_at\n":                  "no column paid_at",
		"order_id,placed_at,paid_at\n":          "holds no order",
		input + "never,2026-01-01T00:00:00Z,\n": "line 7: order_id \"never\" is empty or stands twice",
		input + "x,yesterday,\n":                "line 7: placed_at",
		input + "x,2026-01-01T00:00:00Z,soon\n": "line 7: paid_at",
		input + "x,y\n":                         "wrong number of fields",
	} {
		_, err := s.Load(t.Context(), strings.NewReader(text), 2)
		require.ErrorContains(t, err, want, text)
	}
	want, err := s.Expected(t.Context())
	require.NoError(t, err)
	require.Equal(t, 5, want.Orders)
}
