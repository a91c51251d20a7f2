package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// Config of a console.
type Config struct {
	Store   *store.Store
	Listen  string // host:port; port 0 takes a free one
	Version string
	Log     *slog.Logger
	// Registry is served at /metrics and receives the console's own metrics.
	Registry *prometheus.Registry
	// Ready says why the process is not ready; nil when it is. Optional.
	Ready func(context.Context) error
	// ReadLog returns the full output of a run's attempt when an executor of this process keeps it. Optional.
	ReadLog func(run string, attempt int) ([]byte, error)
}

// Console is the actor.
type Console struct {
	cfg      Config
	server   *http.Server
	listener net.Listener
	duration *prometheus.HistogramVec

	mu     sync.Mutex // guards view and advice
	view   *store.View
	advice store.Advice
}

// maxBody bounds every request.
const maxBody = jobs.MaxFileBytes + 1<<10

// New checks the configuration and builds the routes; it starts nothing.
func New(cfg Config) (*Console, error) {
	host, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", cfg.Listen, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("refusing to listen on %s: there is no access control yet, so only loopback addresses are served; put a proxy that authenticates in front", cfg.Listen)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	c := &Console{cfg: cfg, view: store.NewView(), advice: store.NewAdvice()}
	c.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "rota_http_request_duration_seconds", Help: "Duration of HTTP requests.", Buckets: prometheus.DefBuckets, NativeHistogramBucketFactor: 1.1,
	}, []string{"method", "route", "status"})
	cfg.Registry.MustRegister(c.duration)
	cross := http.NewCrossOriginProtection()
	c.server = &http.Server{
		Handler: http.MaxBytesHandler(cross.Handler(c.routes()), maxBody), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return c, nil
}

// Listen binds the address, so that Addr is known before Run.
func (c *Console) Listen() error {
	l, err := net.Listen("tcp", c.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	c.listener = l
	return nil
}

// URL of the bound address.
func (c *Console) URL() string { return "http://" + c.listener.Addr().String() }

// Run serves until ctx ends, then lets requests in flight finish for up to 5 s.
func (c *Console) Run(ctx context.Context) error {
	if c.listener == nil {
		if err := c.Listen(); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feed := &store.Feed{Store: c.cfg.Store, Families: []store.Family{store.Executors, store.Pulses}, Update: func(u store.Update) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.advice.Observe(c.view, u, time.Now())
		c.view.Apply(u)
	}}
	wg.Go(func() { feed.Run(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = c.server.Shutdown(bye)
	})
	if err := c.server.Serve(c.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func (c *Console) routes() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.Use(gin.CustomRecoveryWithWriter(nil, func(gc *gin.Context, p any) {
		c.cfg.Log.Error("request panicked", "path", gc.Request.URL.Path, "panic", p)
		gc.AbortWithStatusJSON(http.StatusInternalServerError, problem(500, "internal", "internal error", ""))
	}), c.measure)
	g.NoRoute(func(gc *gin.Context) {
		gc.Header("Content-Type", "application/problem+json")
		gc.JSON(http.StatusNotFound, problem(404, "not_found", "no such path: "+gc.Request.URL.Path, "The API is described at /openapi.json."))
	})
	g.GET("/livez", func(gc *gin.Context) { gc.String(http.StatusOK, "ok\n") })
	g.GET("/readyz", func(gc *gin.Context) {
		ctx, cancel := context.WithTimeout(gc, 2*time.Second)
		defer cancel()
		_, err := c.cfg.Store.Ping(ctx)
		if err == nil && c.cfg.Ready != nil {
			err = c.cfg.Ready(ctx)
		}
		if err != nil {
			gc.String(http.StatusServiceUnavailable, "not ready: %v\n", err)
			return
		}
		gc.String(http.StatusOK, "ok\n")
	})
	g.GET("/metrics", gin.WrapH(promhttp.HandlerFor(c.cfg.Registry, promhttp.HandlerOpts{EnableOpenMetrics: true})))

	conf := huma.DefaultConfig("Rota", c.cfg.Version)
	conf.OpenAPIPath, conf.DocsPath, conf.SchemasPath = "/openapi", "", ""
	conf.CreateHooks = nil
	conf.Info.Description = "Distributed, sharded job scheduler."
	h := humagin.New(g, conf)
	c.register(h)
	return g
}

func (c *Console) measure(gc *gin.Context) {
	start := time.Now()
	gc.Header("X-Content-Type-Options", "nosniff")
	gc.Next()
	route := gc.FullPath()
	if route == "" {
		route = "other"
	}
	c.duration.WithLabelValues(gc.Request.Method, route, fmt.Sprint(gc.Writer.Status())).Observe(time.Since(start).Seconds())
}

func problem(status int, code, detail, hint string) *api.Problem {
	return &api.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Hint: hint}
}

func init() {
	// huma builds its own errors (validation, unknown content types) through this variable.
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		code := map[int]string{400: "bad_request", 404: "not_found", 409: "conflict", 412: "precondition_failed", 413: "too_large", 422: "invalid", 503: "unavailable"}[status]
		if code == "" {
			code = "internal"
			if status < 500 {
				code = "bad_request"
			}
		}
		p := problem(status, code, msg, "")
		for _, e := range errs {
			var d *huma.ErrorDetail
			if errors.As(e, &d) {
				p.Errors = append(p.Errors, api.Field{Location: d.Location, Message: d.Location + ": " + d.Message})
			} else if e != nil {
				p.Errors = append(p.Errors, api.Field{Message: e.Error()})
			}
		}
		return p
	}
}

// fail turns an error into a problem: the one place that knows which is which.
func fail(err error) error {
	var p *api.Problem
	var fe jobs.FieldErrors
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p):
		return p
	case errors.As(err, &fe):
		p := problem(422, "invalid", "the definition has mistakes", "")
		for _, e := range fe {
			loc := e.Path
			if e.Line > 0 {
				loc = fmt.Sprintf("%d:%d", e.Line, e.Column)
			}
			p.Errors = append(p.Errors, api.Field{Location: loc, Message: e.Error()})
		}
		return p
	case errors.Is(err, store.ErrNotFound):
		return problem(404, "not_found", err.Error(), "")
	case errors.Is(err, store.ErrConflict):
		return problem(409, "conflict", err.Error(), "Read it again and repeat.")
	case errors.Is(err, kv.ErrUnknown), errors.Is(err, context.DeadlineExceeded):
		return problem(503, "unavailable", err.Error(), "etcd does not answer; the request is safe to repeat.")
	case errors.Is(err, kv.ErrRefused):
		return problem(422, "invalid", err.Error(), "")
	}
	return problem(500, "internal", err.Error(), "")
}

func version(v string) api.Version { return api.Version{Version: v, Go: runtime.Version(), API: "v1"} }
