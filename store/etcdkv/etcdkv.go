// Package etcdkv is the storage contract on etcd (client v3).
//
// Two clients: one for reads and watches, one for writes that never retries by itself (MaxUnaryRetries 1), because a retry
// that the caller cannot see turns a definite refusal into a lie. Every call has a deadline. Transactions go through a
// group commit, see group.go. Every watch requires a leader, asks for progress when it has been silent, and is rebuilt when
// it stays silent.
package etcdkv

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rota-dev/rota/store/kv"
)

// Config says how to reach etcd.
type Config struct {
	Endpoints []string
	Username  string
	Password  string
	TLS       *tls.Config
	// CallTimeout bounds every call; default 3 s.
	CallTimeout time.Duration
	// SilentWatch is how long a watch may be silent, after it was asked for progress, before it is rebuilt; default 5 s.
	SilentWatch time.Duration
	// ObserveGroup, when set, is told the size and duration of each group commit.
	ObserveGroup func(op string, size int, took time.Duration)
}

// Store is a [kv.Store] on etcd. Close it when done.
type Store struct {
	cfg   Config
	read  *clientv3.Client
	write *clientv3.Client
	group *group
}

const pageSize = 1000

// Open connects lazily: it fails only on a malformed configuration.
func Open(cfg Config) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("open etcd: no endpoint given")
	}
	if cfg.CallTimeout == 0 {
		cfg.CallTimeout = 3 * time.Second
	}
	if cfg.SilentWatch == 0 {
		cfg.SilentWatch = 5 * time.Second
	}
	if cfg.ObserveGroup == nil {
		cfg.ObserveGroup = func(string, int, time.Duration) {}
	}
	base := clientv3.Config{
		Endpoints: cfg.Endpoints, Username: cfg.Username, Password: cfg.Password, TLS: cfg.TLS,
		DialTimeout: cfg.CallTimeout, DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: time.Second,
		MaxCallRecvMsgSize: 64 << 20, Logger: zap.NewNop(),
		BackoffWaitBetween: 50 * time.Millisecond,
	}
	read, err := clientv3.New(base)
	if err != nil {
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	base.MaxUnaryRetries = 1
	write, err := clientv3.New(base)
	if err != nil {
		_ = read.Close()
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	s := &Store{cfg: cfg, read: read, write: write}
	s.group = newGroup(s.commit)
	return s, nil
}

// Close waits for the commits in flight and closes both clients.
func (s *Store) Close() error {
	s.group.close()
	return errors.Join(s.read.Close(), s.write.Close())
}

func (s *Store) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.cfg.CallTimeout)
}

// Get implements [kv.Store] with a linearizable read.
func (s *Store) Get(ctx context.Context, key string) (kv.Item, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	r, err := s.read.Get(ctx, key)
	if err != nil {
		return kv.Item{}, classify("get", err)
	}
	if len(r.Kvs) == 0 {
		return kv.Item{Key: key}, nil
	}
	return item(r.Kvs[0]), nil
}

// List implements [kv.Store].
func (s *Store) List(ctx context.Context, req kv.ListRequest) (kv.Page, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	from := req.Prefix
	if req.After != "" {
		from = req.After + "\x00"
	}
	limit := req.Limit
	if limit == 0 {
		limit = pageSize
	}
	opts := []clientv3.OpOption{
		clientv3.WithRange(clientv3.GetPrefixRangeEnd(req.Prefix)), clientv3.WithLimit(int64(limit)),
	}
	if req.Revision != 0 {
		opts = append(opts, clientv3.WithRev(req.Revision))
	}
	r, err := s.read.Get(ctx, from, opts...)
	if err != nil {
		return kv.Page{}, classify("list", err)
	}
	p := kv.Page{Revision: r.Header.Revision, More: r.More, Items: make([]kv.Item, len(r.Kvs))}
	for i, k := range r.Kvs {
		p.Items[i] = item(k)
	}
	return p, nil
}

// Grant implements [kv.Store]; etcd counts whole seconds and rounds up.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (kv.LeaseID, time.Duration, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	r, err := s.write.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, 0, classify("grant", err)
	}
	return kv.LeaseID(r.ID), time.Duration(r.TTL) * time.Second, nil
}

// Renew implements [kv.Store] with one unary keep-alive, so that the caller knows when it was sent.
func (s *Store) Renew(ctx context.Context, id kv.LeaseID) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	r, err := s.write.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	if err != nil {
		return classify("renew", err)
	}
	if r.TTL <= 0 {
		return fmt.Errorf("renew: %w", kv.ErrLeaseNotFound)
	}
	return nil
}

// Revoke implements [kv.Store].
func (s *Store) Revoke(ctx context.Context, id kv.LeaseID) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	_, err := s.write.Revoke(ctx, clientv3.LeaseID(id))
	if err = classify("revoke", err); errors.Is(err, kv.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// Submit implements [kv.Store] through the group commit.
func (s *Store) Submit(t kv.Txn, done func(kv.Result)) { s.group.add(t, done) }

// classify says which errors are definite; everything else is ambiguous. NOSPACE is ambiguous: etcd checks its quota after
// applying.
func classify(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || status.Code(err) == codes.NotFound && strings.Contains(err.Error(), "lease") {
		return fmt.Errorf("%s: %w", op, kv.ErrLeaseNotFound)
	}
	for _, definite := range []error{
		rpctypes.ErrTooManyOps, rpctypes.ErrDuplicateKey, rpctypes.ErrEmptyKey, rpctypes.ErrRequestTooLarge,
		rpctypes.ErrTooManyRequests, rpctypes.ErrPermissionDenied, rpctypes.ErrFutureRev, rpctypes.ErrUserEmpty,
		rpctypes.ErrAuthFailed,
	} {
		if errors.Is(err, definite) {
			return fmt.Errorf("%s: %w: %w", op, kv.ErrRefused, err)
		}
	}
	if errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("%s: %w", op, kv.ErrCompacted)
	}
	return fmt.Errorf("%s: %w: %w", op, kv.ErrUnknown, err)
}

// MinVersions are the oldest patch releases without known holes in nested transactions and watch authorization.
var MinVersions = map[string]int{"3.5": 33, "3.6": 14, "3.7": 1}

// CheckVersion refuses an etcd that is too old for the protocol. It returns the version found.
func (s *Store) CheckVersion(ctx context.Context) (string, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	var last error
	for _, ep := range s.read.Endpoints() {
		st, err := s.read.Status(ctx, ep)
		if err != nil {
			last = err
			continue
		}
		return st.Version, versionOK(st.Version)
	}
	return "", fmt.Errorf("ask etcd for its version: %w", last)
}

func versionOK(v string) error {
	var major, minor, patch int
	if _, err := fmt.Sscanf(v, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return fmt.Errorf("etcd version %q is not understood", v)
	}
	lowest, known := MinVersions[fmt.Sprintf("%d.%d", major, minor)]
	if known && patch >= lowest || major > 3 || major == 3 && minor > 7 {
		return nil
	}
	return fmt.Errorf("etcd %s is too old: Rota needs at least 3.5.33, 3.6.14 or 3.7.1 (nested transactions, watch authorization)", v)
}
