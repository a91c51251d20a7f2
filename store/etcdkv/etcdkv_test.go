package etcdkv_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rota-dev/rota/internal/etcdembed"
	"github.com/rota-dev/rota/store/etcdkv"
	"github.com/rota-dev/rota/store/kv"
	"github.com/rota-dev/rota/store/kvtest"
)

func embedded(t *testing.T) string {
	s, err := etcdembed.Start(t.Context(), etcdembed.Config{Dir: t.TempDir(), UnsafeNoFsync: true})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s.Endpoint
}

func open(t *testing.T, endpoint string, change func(*etcdkv.Config)) *etcdkv.Store {
	cfg := etcdkv.Config{Endpoints: []string{endpoint}}
	if change != nil {
		change(&cfg)
	}
	s, err := etcdkv.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	endpoint := embedded(t)
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = raw.Close() })
	n := 0
	kvtest.Run(t, func(t *testing.T) kvtest.Target {
		n++
		return kvtest.Target{Store: open(t, endpoint, nil), Prefix: fmt.Sprintf("/t%d/", n), Compact: func() {
			r, err := raw.Get(context.Background(), "x")
			require.NoError(t, err)
			_, err = raw.Compact(context.Background(), r.Header.Revision)
			require.NoError(t, err)
		}}
	}, func(t *testing.T, f func(t *testing.T)) { f(t) })
}

func TestTheVersionIsChecked(t *testing.T) {
	v, err := open(t, embedded(t), nil).CheckVersion(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, v)
}

// proxy stands between client and etcd and can swallow either direction or hold it up.
type proxy struct {
	target string
	l      net.Listener
	mu     sync.Mutex
	cond   *sync.Cond
	up     bool // requests pass
	down   bool // answers pass
	delay  time.Duration
	conns  []net.Conn
}

func newProxy(t *testing.T, endpoint string) *proxy {
	u, err := url.Parse(endpoint)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{target: u.Host, l: l, up: true, down: true}
	p.cond = sync.NewCond(&p.mu)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", p.target)
			if err != nil {
				_ = c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, s)
			p.mu.Unlock()
			go p.pump(c, s, &p.up)
			go p.pump(s, c, &p.down)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		p.set(true, true, 0)
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.conns {
			_ = c.Close()
		}
	})
	return p
}

func (p *proxy) set(up, down bool, delay time.Duration) {
	p.mu.Lock()
	p.up, p.down, p.delay = up, down, delay
	p.mu.Unlock()
	p.cond.Broadcast()
}

// pump forwards; what arrives while its direction is closed waits, as in a network that comes back before TCP gives up.
func (p *proxy) pump(from, to net.Conn, open *bool) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.mu.Lock()
			for !*open {
				p.cond.Wait()
			}
			d := p.delay
			p.mu.Unlock()
			if d > 0 {
				time.Sleep(d) // the network's delay
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) endpoint() string { return "http://" + p.l.Addr().String() }

// E13: the answer is lost although the transaction was applied.
func TestALostAnswerIsUnknownAndTheSameTransactionAgainIsRefusedWithMyNonce(t *testing.T) {
	endpoint := embedded(t)
	p := newProxy(t, endpoint)
	s := open(t, p.endpoint(), func(c *etcdkv.Config) { c.CallTimeout = 500 * time.Millisecond })
	_, err := kv.Commit(t.Context(), s, kv.Txn{Op: "warm", Changes: []kv.Change{{Key: "warm"}}})
	require.NoError(t, err)
	tx := kv.Txn{Op: "claim", Observe: "k", Guards: []kv.Guard{{Key: "k", Kind: kv.NotCreated}}, Changes: []kv.Change{{Key: "k", Value: []byte("nonce-1")}}}
	p.set(true, false, 0)
	r, err := kv.Commit(t.Context(), s, tx)
	require.ErrorIs(t, err, kv.ErrUnknown)
	require.False(t, r.Applied)
	p.set(true, true, 0)
	require.Eventually(t, func() bool {
		r, err = kv.Commit(t.Context(), s, tx)
		return err == nil
	}, 20*time.Second, 50*time.Millisecond)
	require.False(t, r.Applied, "it was applied the first time")
	require.Equal(t, "nonce-1", string(r.Observed.Value), "and the refusal says by whom")
}

// E13, E14: the request arrives long after the caller has given up; meanwhile somebody else decided.
func TestALateDuplicateIsRefused(t *testing.T) {
	endpoint := embedded(t)
	p := newProxy(t, endpoint)
	mine := open(t, p.endpoint(), func(c *etcdkv.Config) { c.CallTimeout = 500 * time.Millisecond })
	other := open(t, endpoint, nil)
	_, err := kv.Commit(t.Context(), mine, kv.Txn{Op: "warm", Changes: []kv.Change{{Key: "warm"}}})
	require.NoError(t, err)
	p.set(false, true, 0)
	_, err = kv.Commit(t.Context(), mine, kv.Txn{Op: "claim", Guards: []kv.Guard{{Key: "k", Kind: kv.NotCreated}}, Changes: []kv.Change{{Key: "k", Value: []byte("late")}}})
	require.ErrorIs(t, err, kv.ErrUnknown)
	r, err := kv.Commit(t.Context(), other, kv.Txn{Op: "claim", Guards: []kv.Guard{{Key: "k", Kind: kv.NotCreated}}, Changes: []kv.Change{{Key: "k", Value: []byte("winner")}}})
	require.NoError(t, err)
	require.True(t, r.Applied)
	p.set(true, true, 0)
	require.Never(t, func() bool {
		it, err := other.Get(t.Context(), "k")
		return err == nil && string(it.Value) != "winner"
	}, 2*time.Second, 50*time.Millisecond)
}

// E12: a connection that is silent without being closed.
func TestASilentWatchIsRebuiltAndLosesNothing(t *testing.T) {
	endpoint := embedded(t)
	p := newProxy(t, endpoint)
	watched := open(t, p.endpoint(), func(c *etcdkv.Config) { c.SilentWatch = 500 * time.Millisecond })
	direct := open(t, endpoint, nil)
	ch := watched.Watch(t.Context(), "w/", 1)
	put := func(i int) {
		_, err := kv.Commit(t.Context(), direct, kv.Txn{Op: "put", Changes: []kv.Change{{Key: "w/k", Value: fmt.Appendf(nil, "%d", i)}}})
		require.NoError(t, err)
	}
	next := 0
	read := func() {
		select {
		case b := <-ch:
			require.NoError(t, b.Err)
			for _, e := range b.Events {
				require.Equal(t, fmt.Sprint(next), string(e.Item.Value), "each once, in order")
				next++
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the watch did not come back")
		}
	}
	put(0)
	read()
	p.set(true, false, 0)
	for i := 1; i < 10; i++ {
		put(i)
	}
	time.Sleep(3 * time.Second) // long enough to be torn down
	p.set(true, true, 0)
	for next < 10 {
		read()
	}
}
