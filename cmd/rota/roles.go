package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/rota-dev/rota/console/client"
	"github.com/rota-dev/rota/domains/order"
	"github.com/rota-dev/rota/executor"
	"github.com/rota-dev/rota/internal/app"
	"github.com/rota-dev/rota/lease"
)

func etcdFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSlice("etcd", nil, "etcd endpoints, such as http://10.0.0.1:2379")
	f.String("etcd-user", "", "user:password of etcd")
	f.String("etcd-cert", "", "client certificate file")
	f.String("etcd-key", "", "key file of the client certificate")
	f.String("etcd-ca", "", "CA certificate file of etcd")
}

func etcdOf(cmd *cobra.Command) app.Etcd {
	f := cmd.Flags()
	var e app.Etcd
	e.Endpoints, _ = f.GetStringSlice("etcd")
	e.User, _ = f.GetString("etcd-user")
	e.Cert, _ = f.GetString("etcd-cert")
	e.Key, _ = f.GetString("etcd-key")
	e.CA, _ = f.GetString("etcd-ca")
	return e
}

func devCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dev [-f FILE|DIR ...]", Short: "All roles in one process: embedded etcd, server, executors", Args: args(cobra.NoArgs),
		Example: "  rota dev -f jobs/ --listen 127.0.0.1:8080\n  rota get jobs",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd, slog.LevelWarn)
			if err != nil {
				return err
			}
			files, _ := cmd.Flags().GetStringArray("file")
			dir, _ := cmd.Flags().GetString("data-dir")
			listen, _ := cmd.Flags().GetString("listen")
			var docs []document
			if len(files) > 0 {
				if docs, err = readFiles(files); err != nil {
					return err
				}
			}
			d := app.Dev{DataDir: dir, Listen: listen, Log: log,
				Apply: func(ctx context.Context, url string) error {
					c := &conn{Client: client.Client{Server: url}, namespace: "default", out: os.Stderr}
					return c.apply(ctx, docs, false)
				},
				Ready: func(url string) {
					fmt.Fprintf(os.Stderr, "rota dev: serving at %s, data in %s; stop with Ctrl-C\n", url, dir)
				},
			}
			return d.Run(cmd.Context())
		},
	}
	cmd.Flags().StringArrayP("file", "f", nil, "definitions to apply at start: files or directories")
	cmd.Flags().String("data-dir", ".rota", "where etcd and logs are kept")
	cmd.Flags().String("listen", "127.0.0.1:8080", "address of the console")
	return cmd
}

func demoCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "demo", Short: "The main job over a stream of orders: order-auto-cancel in 8 shards, every second", Args: args(cobra.NoArgs),
		Long: `Loads orders into a SQLite shop, plays them on their own clock, and lets order-auto-cancel cancel
those that are not paid within 30 minutes of placement. Ends with an account that is checked against
one query over the input. Killed half-way, it resumes from its data directory.

The file is CSV with a header and the columns order_id, placed_at, paid_at (RFC 3339; paid_at may be
empty). Without a file a sample is generated.`,
		Example: "  rota demo --once -o json\n  rota demo --orders orders.csv --speed 86400",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd, slog.LevelError)
			if err != nil {
				return err
			}
			f := cmd.Flags()
			d := app.Demo{Log: log, Status: os.Stderr}
			d.Orders, _ = f.GetString("orders")
			d.Speed, _ = f.GetFloat64("speed")
			d.DataDir, _ = f.GetString("data-dir")
			d.Listen, _ = f.GetString("listen")
			d.Once, _ = f.GetBool("once")
			if d.Speed < 0 {
				return usage("--speed %v: must be positive", d.Speed)
			}
			format, _ := f.GetString("output")
			if format != "" && format != "json" {
				return usage("--output %q: json, or nothing", format)
			}
			ended := false
			d.Account = func(a order.Account) {
				ended = true
				if format == "json" {
					_ = json.NewEncoder(os.Stdout).Encode(a)
				}
			}
			if err := d.Run(cmd.Context()); err != nil {
				return err
			}
			if !ended {
				return fmt.Errorf("stopped before the end; run it again with the same --data-dir to resume")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.String("orders", "", "CSV file of orders")
	f.Float64("speed", 0, "seconds of the data's clock per second; default: so that all takes about 20 s")
	f.String("data-dir", ".rota-demo", "where etcd and the shop's database are kept")
	f.String("listen", "127.0.0.1:0", "address of the console")
	f.Bool("once", false, "end after the closing account instead of keeping the console up")
	f.StringP("output", "o", "", "json: print the account as one JSON object on stdout")
	return cmd
}

func serverCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "server", Short: "Console, HTTP API and, while elected, the scheduler", Args: args(cobra.NoArgs),
		Example: "  rota server --etcd http://10.0.0.1:2379,http://10.0.0.2:2379 --listen 127.0.0.1:8080\n  rota server --embedded-etcd /var/lib/rota",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd, slog.LevelInfo)
			if err != nil {
				return err
			}
			s := app.Server{Etcd: etcdOf(cmd), Log: log}
			s.Listen, _ = cmd.Flags().GetString("listen")
			s.Embedded, _ = cmd.Flags().GetString("embedded-etcd")
			if (s.Embedded == "") == (len(s.Etcd.Endpoints) == 0) {
				return usage("give either --etcd or --embedded-etcd")
			}
			if db, _ := cmd.Flags().GetString("db"); db != "" {
				log.Warn("this version keeps no history; --db is not used yet")
			}
			return s.Run(cmd.Context())
		},
	}
	etcdFlags(cmd)
	cmd.Flags().String("db", "", "history: sqlite:PATH or postgres://... (not used by this version)")
	cmd.Flags().String("listen", "127.0.0.1:8080", "address of the console; loopback only, until there is access control")
	cmd.Flags().String("embedded-etcd", "", "run etcd in this process, with its data in this directory")
	return cmd
}

func executorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "executor", Short: "Take shards and run shell commands", Args: args(cobra.NoArgs),
		Long: `Takes shards of the jobs of its namespaces and runs their shell commands. Handlers in Go run in your
own program: see package executor.

SIGTERM drains: nothing new is started, what runs may end within --drain-timeout, shards are handed
over at once. A second signal leaves at once; supervisors kill what was running.`,
		Example: "  rota executor --etcd http://10.0.0.1:2379 --namespace orders --label zone=a",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd, slog.LevelInfo)
			if err != nil {
				return err
			}
			f := cmd.Flags()
			e := etcdOf(cmd)
			if len(e.Endpoints) == 0 {
				return usage("--etcd is required")
			}
			reg := app.NewRegistry()
			cfg := executor.Config{Endpoints: e.Endpoints, Shell: true, Log: log, Registerer: reg, Version: app.Version()}
			cfg.Username, cfg.Password, _ = strings.Cut(e.User, ":")
			if cfg.TLS, err = e.TLS(); err != nil {
				return err
			}
			cfg.Namespaces, _ = f.GetStringSlice("namespace")
			cfg.ID, _ = f.GetString("id")
			labels, _ := f.GetStringSlice("label")
			if cfg.Labels, err = pairs(labels, "label"); err != nil {
				return err
			}
			cfg.Capacity, _ = f.GetInt("capacity")
			cfg.Concurrency, _ = f.GetInt("concurrency")
			cfg.LeaseTTL, _ = f.GetDuration("lease-ttl")
			cfg.DrainTimeout, _ = f.GetDuration("drain-timeout")
			cfg.WorkDir, _ = f.GetString("work-dir")
			x, err := executor.New(cfg)
			if err != nil {
				return usage("%w", err)
			}
			if addr, _ := f.GetString("metrics-listen"); addr != "" {
				stop, err := serveMetrics(addr, x, promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
				if err != nil {
					return err
				}
				defer stop()
			}
			return x.Run(cmd.Context())
		},
	}
	etcdFlags(cmd)
	f := cmd.Flags()
	f.StringSlice("namespace", []string{"default"}, "namespaces to work for")
	f.String("id", "", "name, stable over restarts; default host name and process id")
	f.StringSlice("label", nil, "k=v, for placement")
	f.Int("capacity", 1, "share of shards relative to other executors")
	f.Int("concurrency", 0, "attempts at a time; 0: no limit")
	f.Duration("lease-ttl", lease.DefaultTTL, "how long after its last renewal the executor counts as lost; at least 2s")
	f.Duration("drain-timeout", time.Minute, "how long running commands may take after SIGTERM")
	f.String("work-dir", ".rota-work", "working directory of commands; logs are kept below it")
	f.String("metrics-listen", "", "address for /metrics, /livez and /readyz; empty: none")
	return cmd
}

// serveMetrics serves an executor's own endpoints.
func serveMetrics(addr string, x *executor.Executor, metrics http.Handler) (stop func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !x.Ready() {
			http.Error(w, "not ready: not registered", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.Serve(l) }()
	return func() { _ = s.Close() }, nil
}
