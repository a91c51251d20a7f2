package lease

import (
	"errors"
	"time"

	"github.com/rota-dev/rota/store/kv"
)

// Now is one moment on the two clocks that matter.
type Now struct {
	Wall time.Time     // decides which tick is due
	Boot time.Duration // CLOCK_BOOTTIME; decides trust
}

// Config of a machine.
type Config struct {
	TTL time.Duration
	// Margin is how much earlier than the lease trust ends; 0 is 500 ms + TTL/50.
	Margin time.Duration
	// NewID returns a fresh random incarnation.
	NewID func() string
	// Mutant plants a known bug, for tests of the checkers; zero in production.
	Mutant Mutant
}

// Mutant is a planted bug.
type Mutant string

// The planted bugs of the lease.
const (
	MutantReceiveTime Mutant = "receive-time" // trusts from the answer of a renewal, without margin
	MutantRevive      Mutant = "revive"       // goes on with the same incarnation after trust ended
)

// Limits of the TTL.
const (
	MinTTL     = 2 * time.Second
	DefaultTTL = 5 * time.Second
)

// MarginOf is the default margin.
func MarginOf(ttl time.Duration) time.Duration { return 500*time.Millisecond + ttl/50 }

// The inputs.
type (
	// Granted answers Grant.
	Granted struct {
		Seq   int
		Lease kv.LeaseID
		TTL   time.Duration
		Err   error
	}
	// Registered answers Register.
	Registered struct {
		Seq    int
		Result kv.Result
	}
	// Renewed answers Renew.
	Renewed struct {
		Seq int
		Err error
	}
	// KeyGone says that the key of an incarnation was seen deleted.
	KeyGone struct{ Incarnation string }
	// Released says that all work of a fenced incarnation has ended: its lease may be revoked.
	Released struct{ Lease kv.LeaseID }
	// Stop gives the incarnation back; the machine ends.
	Stop struct{}
	// Tick is the passing of time; due at the latest at [Machine.Wake].
	Tick struct{}
)

// The effects.
type (
	// Grant asks for a lease.
	Grant struct {
		Seq int
		TTL time.Duration
	}
	// Register asks to create the key of an incarnation.
	Register struct {
		Seq         int
		Lease       kv.LeaseID
		Incarnation string
	}
	// Renew asks for one renewal.
	Renew struct {
		Seq   int
		Lease kv.LeaseID
	}
	// Revoke gives a lease back, at best effort.
	Revoke struct{ Lease kv.LeaseID }
	// Held says that an incarnation began.
	Held struct {
		Incarnation string
		Lease       kv.LeaseID
		Revision    int64
	}
	// Trusted says that trust now lasts until Until on CLOCK_BOOTTIME.
	Trusted struct{ Until time.Duration }
	// Fenced says that the incarnation ended: end all its work.
	Fenced struct {
		Incarnation string
		Lease       kv.LeaseID
		Cause       error
	}
)

// The causes of fencing.
var (
	ErrTrustEnded = errors.New("the lease could not be renewed in time")
	ErrLeaseGone  = errors.New("the lease is gone")
	ErrKeyGone    = errors.New("the own key was deleted")
)

type state int

const (
	idle state = iota
	granting
	registering
	held
	stopped
)

const retryAfter = 200 * time.Millisecond

// Machine is the step machine. The zero value is not usable; see [New].
type Machine struct {
	cfg   Config
	state state
	seq   int // of the current attempt; answers with another one are late

	incarnation string
	lease       kv.LeaseID
	sent        time.Duration // when the grant or renewal in flight was sent
	ttl         time.Duration
	until       time.Duration // end of trust
	wake        time.Duration // next time to act
	renewing    bool
	renewSent   time.Duration
}

// New returns a machine that registers at its first Tick.
func New(cfg Config) *Machine {
	if cfg.Margin == 0 {
		cfg.Margin = MarginOf(cfg.TTL)
	}
	return &Machine{cfg: cfg}
}

// Trusted says whether the incarnation may act at a moment.
func (m *Machine) Trusted(boot time.Duration) bool { return m.state == held && boot < m.until }

// Until is the end of trust; meaningful while held.
func (m *Machine) Until() time.Duration { return m.until }

// Held is the incarnation that is held, or "".
func (m *Machine) Held() string {
	if m.state != held {
		return ""
	}
	return m.incarnation
}

// Wake is when the machine needs a Tick at the latest.
func (m *Machine) Wake() time.Duration {
	if m.state == held {
		return min(m.wake, m.until)
	}
	return m.wake
}

// Step advances the machine.
func (m *Machine) Step(in any, now Now) []any {
	var out []any
	if m.state == held && now.Boot >= m.until {
		out = m.fence(ErrTrustEnded, now)
	}
	switch in := in.(type) {
	case Tick:
		return append(out, m.tick(now)...)
	case Granted:
		if in.Seq != m.seq || m.state != granting {
			if in.Err == nil {
				return append(out, Revoke{in.Lease})
			}
			return out
		}
		if in.Err != nil {
			m.state, m.wake = idle, now.Boot+retryAfter
			return out
		}
		m.lease, m.ttl, m.state = in.Lease, min(in.TTL, m.cfg.TTL), registering
		m.incarnation = m.cfg.NewID()
		return append(out, Register{m.seq, m.lease, m.incarnation})
	case Registered:
		if in.Seq != m.seq || m.state != registering {
			return out
		}
		m.until = m.sent + m.ttl - m.cfg.Margin
		if in.Result.Err != nil || !in.Result.Applied || now.Boot >= m.until {
			// Refused, or not known: throw the incarnation away. A term that another holds is asked for again soon.
			m.state, m.wake = idle, now.Boot+retryAfter
			return append(out, Revoke{m.lease})
		}
		m.state, m.renewing = held, false
		m.wake = m.sent + m.ttl/4
		return append(out, Held{m.incarnation, m.lease, in.Result.Revision}, Trusted{m.until})
	case Renewed:
		if in.Seq != m.seq || m.state != held || !m.renewing {
			return out
		}
		m.renewing = false
		switch {
		case errors.Is(in.Err, kv.ErrLeaseNotFound):
			return append(out, m.fence(ErrLeaseGone, now)...)
		case in.Err != nil:
			m.wake = now.Boot + retryAfter
		default:
			m.until = max(m.until, m.renewSent+m.ttl-m.cfg.Margin)
			if m.cfg.Mutant == MutantReceiveTime {
				m.until = now.Boot + m.ttl
			}
			m.wake = m.renewSent + m.ttl/4
			out = append(out, Trusted{m.until})
		}
	case KeyGone:
		if m.state == held && in.Incarnation == m.incarnation {
			return append(out, m.fence(ErrKeyGone, now)...)
		}
	case Released:
		return append(out, Revoke(in))
	case Stop:
		if m.state == held || m.state == registering {
			out = append(out, Revoke{m.lease})
		}
		m.state, m.wake = stopped, 1<<62
		m.seq++
	}
	return out
}

func (m *Machine) tick(now Now) []any {
	switch m.state {
	case idle:
		if now.Boot >= m.wake {
			m.seq++
			m.state, m.sent, m.wake = granting, now.Boot, 1<<62
			return []any{Grant{m.seq, m.cfg.TTL}}
		}
	case held:
		if now.Boot >= m.wake && !m.renewing {
			m.renewing, m.renewSent, m.wake = true, now.Boot, 1<<62
			return []any{Renew{m.seq, m.lease}}
		}
	}
	return nil
}

func (m *Machine) fence(cause error, now Now) []any {
	if m.cfg.Mutant == MutantRevive && errors.Is(cause, ErrTrustEnded) {
		m.until, m.wake, m.renewing = now.Boot+retryAfter, now.Boot, false
		return []any{Fenced{m.incarnation, 0, cause}, Held{m.incarnation, m.lease, 0}}
	}
	m.state, m.wake = idle, now.Boot
	m.seq++
	return []any{Fenced{m.incarnation, m.lease, cause}}
}
