// Package app builds each role from its configuration, in order, and takes it down in reverse.
package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/rota-dev/rota/console"
	"github.com/rota-dev/rota/executor"
	"github.com/rota-dev/rota/executor/shell"
	"github.com/rota-dev/rota/internal/etcdembed"
	"github.com/rota-dev/rota/scheduler"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/etcdkv"
)

// Etcd says how to reach etcd.
type Etcd struct {
	Endpoints     []string
	User          string // name:password
	Cert, Key, CA string // files
}

// TLS builds the client configuration; nil without any file.
func (e Etcd) TLS() (*tls.Config, error) {
	if e.Cert == "" && e.Key == "" && e.CA == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CA != "" {
		pem, err := os.ReadFile(e.CA)
		if err != nil {
			return nil, fmt.Errorf("etcd CA: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd CA: %s holds no certificate", e.CA)
		}
	}
	if e.Cert != "" || e.Key != "" {
		// Read at each handshake, so that rotated files are taken up without a restart.
		if _, err := tls.LoadX509KeyPair(e.Cert, e.Key); err != nil {
			return nil, fmt.Errorf("etcd client certificate: %w", err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			p, err := tls.LoadX509KeyPair(e.Cert, e.Key)
			return &p, err
		}
	}
	return c, nil
}

func (e Etcd) open(reg prometheus.Registerer) (*etcdkv.Store, error) {
	t, err := e.TLS()
	if err != nil {
		return nil, err
	}
	user, password, _ := strings.Cut(e.User, ":")
	sizes := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "rota_server_etcd_group_size", Help: "Transactions in one group commit of the server.", Buckets: prometheus.ExponentialBuckets(1, 2, 8),
	})
	reg.MustRegister(sizes)
	return etcdkv.Open(etcdkv.Config{
		Endpoints: e.Endpoints, Username: user, Password: password, TLS: t,
		ObserveGroup: func(_ string, n int, _ time.Duration) { sizes.Observe(float64(n)) },
	})
}

// Server is the configuration of the server role.
type Server struct {
	Etcd     Etcd
	Embedded string // directory of an embedded etcd; "" uses Etcd
	Listen   string
	Name     string
	Log      *slog.Logger
	// ReadLog is for roles that share the process with executors.
	ReadLog  func(run string, attempt int) ([]byte, error)
	Registry *prometheus.Registry
	// Started is told the URL of the console and the etcd endpoints once both serve.
	Started func(url string, endpoints []string)
}

// Version of this build.
func Version() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "0.1.0-devel"
}

// NewRegistry returns a registry with the process's own metrics.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "rota_build_info", Help: "1; the version is a label.", ConstLabels: prometheus.Labels{"version": Version()}})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Run serves until ctx ends.
func (s Server) Run(ctx context.Context) error {
	if s.Registry == nil {
		s.Registry = NewRegistry()
	}
	if s.Embedded != "" {
		e, err := etcdembed.Start(ctx, etcdembed.Config{Dir: s.Embedded})
		if err != nil {
			return err
		}
		defer e.Close()
		s.Etcd = Etcd{Endpoints: []string{e.Endpoint}}
	}
	kv, err := s.Etcd.open(s.Registry)
	if err != nil {
		return err
	}
	defer func() { _ = kv.Close() }()
	if v, err := kv.CheckVersion(ctx); err != nil {
		if v != "" {
			return err
		}
		s.Log.Warn("etcd does not answer yet; serving anyway", "error", err)
	}
	st := store.New(kv, "")
	ensure, cancel := context.WithTimeout(ctx, 5*time.Second)
	_ = st.EnsureNamespace(ensure, "default") // best effort: writing a job creates its namespace too
	cancel()
	if s.Name == "" {
		host, _ := os.Hostname()
		s.Name = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	con, err := console.New(console.Config{Store: st, Listen: s.Listen, Version: Version(), Log: s.Log, Registry: s.Registry, ReadLog: s.ReadLog})
	if err != nil {
		return err
	}
	if err := con.Listen(); err != nil {
		return err
	}
	sch := scheduler.New(scheduler.Config{Store: st, Server: s.Name, Version: Version(), Log: s.Log, Registerer: s.Registry})
	s.Log.Info("serving", "console", con.URL(), "etcd", strings.Join(s.Etcd.Endpoints, ","), "access", "open: no access control yet, loopback only")
	if s.Started != nil {
		s.Started(con.URL(), s.Etcd.Endpoints)
	}
	return together(ctx, con.Run, sch.Run)
}

// together runs actors until one fails or ctx ends, and waits for all.
func together(ctx context.Context, actors ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]error, len(actors))
	var wg sync.WaitGroup
	for i, run := range actors {
		wg.Go(func() {
			errs[i] = run(ctx)
			cancel(errors.New("another part of the process ended"))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Dev is all roles in one process.
type Dev struct {
	Files   []string // definitions to apply at start
	DataDir string
	Listen  string
	Log     *slog.Logger
	// Apply writes the definitions to the server; the command line's own.
	Apply func(ctx context.Context, url string) error
	// Extra actors that need the running server.
	Extra func(ctx context.Context, url string, endpoints []string, reg prometheus.Registerer) error
	Ready func(url string)
}

// Run serves until ctx ends. One executor per namespace is started, also for namespaces that appear later.
func (d Dev) Run(ctx context.Context) error {
	if err := os.MkdirAll(d.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	unlock, err := lockDir(d.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	reg := NewRegistry()
	work := filepath.Join(d.DataDir, "work")
	logs, err := shell.NewRunner(work)
	if err != nil {
		return err
	}
	// The executors drain while the server and etcd still serve: their contexts end one after the other.
	serve, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	up := make(chan [2]string, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- Server{
			Embedded: filepath.Join(d.DataDir, "etcd"), Listen: d.Listen, Name: "dev", Log: d.Log, Registry: reg,
			ReadLog: func(run string, attempt int) ([]byte, error) {
				return shell.ReadLog(logs.LogPath(fmt.Sprintf("%s.%d", run, attempt)))
			},
			Started: func(url string, ends []string) { up <- [2]string{url, ends[0]} },
		}.Run(serve)
	}()
	var url, endpoint string
	select {
	case err := <-failed:
		return err
	case u := <-up:
		url, endpoint = u[0], u[1]
	}
	actors := []func(context.Context) error{func(ctx context.Context) error { return d.executors(ctx, endpoint, work, reg) }}
	if d.Extra != nil {
		actors = append(actors, func(ctx context.Context) error { return d.Extra(ctx, url, []string{endpoint}, reg) })
	} else {
		actors = append(actors, func(ctx context.Context) error {
			if d.Apply != nil {
				if err := d.Apply(ctx, url); err != nil {
					return err
				}
			}
			if d.Ready != nil {
				d.Ready(url)
			}
			<-ctx.Done()
			return nil
		})
	}
	err = together(ctx, actors...)
	stopServing()
	return errors.Join(err, <-failed)
}

func (d Dev) executors(ctx context.Context, endpoint, work string, reg prometheus.Registerer) error {
	kv, err := etcdkv.Open(etcdkv.Config{Endpoints: []string{endpoint}})
	if err != nil {
		return err
	}
	defer func() { _ = kv.Close() }()
	st := store.New(kv, "")
	var wg sync.WaitGroup
	defer wg.Wait()
	known := map[string]bool{}
	st.FollowNamespaces(ctx, func(u store.Update) {
		for _, it := range u.Items {
			ns, ok := it.(store.NamespaceItem)
			if !ok || ns.Deleted || known[ns.Name] {
				continue
			}
			known[ns.Name] = true
			id := "dev"
			if ns.Name != "default" {
				id = "dev-" + ns.Name
			}
			x, err := executor.New(executor.Config{
				Endpoints: []string{endpoint}, Namespaces: []string{ns.Name}, ID: id, Shell: true, WorkDir: work, Log: d.Log,
				Registerer: reg, DrainTimeout: 10 * time.Second, Version: Version(),
			})
			if err != nil {
				d.Log.Error("executor", "namespace", ns.Name, "error", err)
				continue
			}
			wg.Go(func() {
				if err := x.Run(ctx); err != nil {
					d.Log.Error("executor ended", "namespace", ns.Name, "error", err)
				}
			})
		}
	}, nil)
	return nil
}
