package lease_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/store/kv"
)

const ttl = 5 * time.Second

func machine() *lease.Machine {
	n := 0
	return lease.New(lease.Config{TTL: ttl, Margin: 600 * time.Millisecond, NewID: func() string { n++; return string(rune('a' + n - 1)) }})
}

func at(d time.Duration) lease.Now { return lease.Now{Wall: time.Unix(0, 0).Add(d), Boot: d} }

// hold registers at a time and returns the machine with what it said.
func hold(t *testing.T, m *lease.Machine, sent, answered time.Duration) []any {
	t.Helper()
	out := m.Step(lease.Tick{}, at(sent))
	require.Len(t, out, 1)
	g := out[0].(lease.Grant)
	out = m.Step(lease.Granted{Seq: g.Seq, Lease: 7, TTL: ttl}, at(answered))
	require.Len(t, out, 1)
	r := out[0].(lease.Register)
	return m.Step(lease.Registered{Seq: r.Seq, Result: kv.Result{Applied: true, Revision: 9}}, at(answered))
}

func TestTrustCountsFromWhenTheRequestWasSent(t *testing.T) {
	m := machine()
	out := hold(t, m, 0, 2*time.Second)
	require.Equal(t, lease.Trusted{Until: 4400 * time.Millisecond}, out[1])
	require.True(t, m.Trusted(4399*time.Millisecond))
	require.False(t, m.Trusted(4400*time.Millisecond))
	out = m.Step(lease.Tick{}, at(3*time.Second))
	renew := out[0].(lease.Renew)
	out = m.Step(lease.Renewed{Seq: renew.Seq}, at(4*time.Second))
	require.Equal(t, []any{lease.Trusted{Until: 3*time.Second + 4400*time.Millisecond}}, out)
}

func TestAnExpiredIncarnationIsNeverRevived(t *testing.T) {
	m := machine()
	hold(t, m, 0, 0)
	renew := m.Step(lease.Tick{}, at(2*time.Second))[0].(lease.Renew)
	out := m.Step(lease.Renewed{Seq: renew.Seq}, at(4500*time.Millisecond)) // the answer is good, but late
	require.Equal(t, lease.Fenced{Incarnation: "a", Lease: 7, Cause: lease.ErrTrustEnded}, out[0])
	require.Empty(t, m.Held())
	out = m.Step(lease.Tick{}, at(4500*time.Millisecond))
	require.IsType(t, lease.Grant{}, out[0], "a new lease")
	out = m.Step(lease.Renewed{Seq: renew.Seq}, at(4600*time.Millisecond))
	require.Empty(t, out, "an answer to an old self is a no-op")
}

// E18, E20: the lease is revoked by hand, the key deleted by an admin.
func TestALostLeaseOrADeletedKeyFencesAtOnce(t *testing.T) {
	m := machine()
	hold(t, m, 0, 0)
	renew := m.Step(lease.Tick{}, at(2*time.Second))[0].(lease.Renew)
	out := m.Step(lease.Renewed{Seq: renew.Seq, Err: kv.ErrLeaseNotFound}, at(2*time.Second))
	require.Equal(t, lease.ErrLeaseGone, out[0].(lease.Fenced).Cause)

	m = machine()
	hold(t, m, 0, 0)
	require.Empty(t, m.Step(lease.KeyGone{Incarnation: "other"}, at(time.Second)))
	out = m.Step(lease.KeyGone{Incarnation: "a"}, at(time.Second))
	require.Equal(t, lease.ErrKeyGone, out[0].(lease.Fenced).Cause)
}

func TestAnAmbiguousRegistrationIsThrownAway(t *testing.T) {
	m := machine()
	g := m.Step(lease.Tick{}, at(0))[0].(lease.Grant)
	r := m.Step(lease.Granted{Seq: g.Seq, Lease: 7, TTL: ttl}, at(0))[0].(lease.Register)
	require.Equal(t, "a", r.Incarnation)
	out := m.Step(lease.Registered{Seq: r.Seq, Result: kv.Result{Err: kv.ErrUnknown}}, at(0))
	require.Equal(t, []any{lease.Revoke{Lease: 7}}, out)
	g = m.Step(lease.Tick{}, at(time.Second))[0].(lease.Grant)
	r = m.Step(lease.Granted{Seq: g.Seq, Lease: 8, TTL: ttl}, at(time.Second))[0].(lease.Register)
	require.Equal(t, "b", r.Incarnation, "never the same again")
}

func TestAFailedRenewalIsRepeatedUntilTrustEnds(t *testing.T) {
	m := machine()
	hold(t, m, 0, 0)
	tries := 0
	for now := time.Duration(0); now < 10*time.Second; now += 50 * time.Millisecond {
		for _, e := range m.Step(lease.Tick{}, at(now)) {
			switch e := e.(type) {
			case lease.Renew:
				tries++
				m.Step(lease.Renewed{Seq: e.Seq, Err: kv.ErrUnknown}, at(now))
			case lease.Fenced:
				require.Equal(t, 4400*time.Millisecond, now)
				require.Greater(t, tries, 10)
				return
			}
		}
	}
	t.Fatal("never fenced")
}

func TestALateGrantIsGivenBack(t *testing.T) {
	m := machine()
	hold(t, m, 0, 0)
	require.Equal(t, []any{lease.Revoke{Lease: 99}}, m.Step(lease.Granted{Seq: -1, Lease: 99, TTL: ttl}, at(0)))
}

func TestBootTimeIsNotTheWallClock(t *testing.T) {
	a, b := lease.Read(), lease.Read()
	require.GreaterOrEqual(t, b.Boot, a.Boot)
	require.NotEqual(t, lease.NewID(), lease.NewID())
}
