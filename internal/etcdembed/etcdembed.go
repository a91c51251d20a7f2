// Package etcdembed runs one real etcd member inside this process, for dev mode, small installations and tests.
package etcdembed

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// Config of the member.
type Config struct {
	Dir string // data directory; created with 0700
	// ClientAddr is host:port for clients; port 0 takes a free one. Default 127.0.0.1:0.
	ClientAddr string
	// UnsafeNoFsync trades durability for speed; tests only.
	UnsafeNoFsync bool
	// QuotaBytes limits the database; 0 keeps 2 GiB.
	QuotaBytes int64
}

// Server is a running member.
type Server struct {
	Endpoint string
	etcd     *embed.Etcd
}

// Start returns when the member serves, or with the reason why it does not.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start embedded etcd: %w", err)
	}
	if cfg.ClientAddr == "" {
		cfg.ClientAddr = "127.0.0.1:0"
	}
	client, err := freeURL(cfg.ClientAddr)
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd: %w", err)
	}
	peer, err := freeURL("127.0.0.1:0") // a single member has no peers, yet must name an address
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd: %w", err)
	}
	c := embed.NewConfig()
	c.Dir, c.Name = cfg.Dir, "rota"
	c.LogLevel, c.LogOutputs = "fatal", []string{"stderr"} // failures to start come back as errors; the rest is noise of closing
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.UnsafeNoFsync = cfg.UnsafeNoFsync
	c.AutoCompactionMode, c.AutoCompactionRetention = "periodic", "10m"
	c.QuotaBackendBytes = cfg.QuotaBytes
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
		return &Server{Endpoint: client.String(), etcd: e}, nil
	case err := <-e.Err():
		e.Close()
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, err)
	case <-time.After(30 * time.Second):
		e.Close()
		return nil, fmt.Errorf("start embedded etcd in %s: not ready within 30 s", cfg.Dir)
	case <-ctx.Done():
		e.Close()
		return nil, context.Cause(ctx)
	}
}

// Close stops the member.
func (s *Server) Close() { s.etcd.Close() }

func freeURL(addr string) (url.URL, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return url.URL{}, err
	}
	if port == "0" {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return url.URL{}, err
		}
		addr = l.Addr().String()
		if err := l.Close(); err != nil {
			return url.URL{}, err
		}
		host, port, _ = net.SplitHostPort(addr)
	}
	return url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}, nil
}
