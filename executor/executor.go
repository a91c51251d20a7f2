package executor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rota-dev/rota/cron"
	"github.com/rota-dev/rota/executor/engine"
	"github.com/rota-dev/rota/executor/shell"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/etcdkv"
	"github.com/rota-dev/rota/store/kv"
)

// Config of an executor. Only Namespaces and one of Endpoints and Store are required.
type Config struct {
	Endpoints          []string // of etcd
	Username, Password string
	TLS                *tls.Config
	Store              kv.Store // instead of Endpoints; it is not closed
	Prefix             string   // of all keys; default /rota/v1/

	Namespaces   []string
	ID           string // default: host name and process id
	Labels       map[string]string
	Capacity     int           // relative to other executors; default 1
	Concurrency  int           // attempts at a time; 0: no limit
	LeaseTTL     time.Duration // default 5 s, at least 2 s
	DrainTimeout time.Duration // how long running handlers may take after the context ended; default 60 s

	Shell   bool   // run shell commands too
	WorkDir string // of shell commands, with their logs; default ./.rota-work

	Log        *slog.Logger
	Registerer prometheus.Registerer
	Version    string
	// Clock reads the clocks; default lease.Read. Tests under virtual time replace it.
	Clock func() lease.Now
}

func (c *Config) complete() error {
	var errs []error
	if len(c.Endpoints) == 0 && c.Store == nil {
		errs = append(errs, errors.New("no etcd endpoint given"))
	}
	if len(c.Namespaces) == 0 {
		errs = append(errs, errors.New("no namespace given"))
	}
	for _, ns := range c.Namespaces {
		if msg := jobs.ValidNamespace(ns); msg != "" {
			errs = append(errs, fmt.Errorf("namespace %s", msg))
		}
	}
	host, _ := os.Hostname()
	if c.ID == "" {
		c.ID = strings.Trim(strings.Map(func(r rune) rune {
			if store.ValidID(string(r)) || r == '-' || r == '.' {
				return r
			}
			return '-'
		}, host), "-.") + "-" + strconv.Itoa(os.Getpid())
	}
	if !store.ValidID(c.ID) {
		errs = append(errs, fmt.Errorf("id %q: use at most 128 letters, digits, '-', '_' and '.'", c.ID))
	}
	if c.Capacity < 0 || c.Concurrency < 0 {
		errs = append(errs, errors.New("capacity and concurrency cannot be negative"))
	}
	c.Capacity = max(c.Capacity, 1)
	if c.LeaseTTL == 0 {
		c.LeaseTTL = lease.DefaultTTL
	}
	if c.LeaseTTL < lease.MinTTL {
		errs = append(errs, fmt.Errorf("lease TTL %v: at least %v", c.LeaseTTL, lease.MinTTL))
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = time.Minute
	}
	if c.WorkDir == "" {
		c.WorkDir = ".rota-work"
	}
	if c.Clock == nil {
		c.Clock = lease.Read
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Version == "" {
		c.Version = buildVersion()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("executor: %w", err)
	}
	return nil
}

func buildVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "devel"
}

// Executor is the actor. Create it with New, add handlers, Run it once.
type Executor struct {
	cfg      Config
	handlers map[string]Handler
	defines  []jobs.Job
	metrics  *metrics

	store   *store.Store
	engine  *engine.Engine
	keeper  *lease.Keeper
	runner  *shell.Runner
	started time.Time
	zones   string
	lease   kv.LeaseID
	cancels map[int64]context.CancelCauseFunc
	begun   int64 // handlers started so far
	runs    sync.WaitGroup
	loads   sync.WaitGroup

	mu     sync.Mutex // guards inbox and ready
	inbox  []any
	notify chan struct{}
	ready  bool
}

// New checks the configuration; it starts nothing and dials nothing.
func New(cfg Config) (*Executor, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Executor{
		cfg: cfg, handlers: map[string]Handler{}, metrics: newMetrics(cfg.Registerer, cfg.ID),
		cancels: map[int64]context.CancelCauseFunc{}, notify: make(chan struct{}, 1),
	}, nil
}

// ID of the executor.
func (x *Executor) ID() string { return x.cfg.ID }

// Handle registers a handler under a name. It panics when the name is taken; call it before Run.
func (x *Executor) Handle(name string, h Handler) {
	if _, taken := x.handlers[name]; taken || name == "" {
		panic(fmt.Sprintf("executor: handler %q is registered twice or has no name", name))
	}
	x.handlers[name] = h
}

// Define registers a job's definition when Run starts, if it is absent or differs. Metadata.Namespace defaults to the first
// of the executor's.
func (x *Executor) Define(j jobs.Job) error {
	if j.APIVersion == "" {
		j.APIVersion, j.Kind = jobs.APIVersion, "Job"
	}
	if j.Metadata.Namespace == "" {
		j.Metadata.Namespace = x.cfg.Namespaces[0]
	}
	if j.Spec.Shards.Count == 0 && !j.Spec.Shards.PerExecutor {
		j.Spec.Shards.Count = 1
	}
	if errs := j.Validate(); len(errs) > 0 {
		return fmt.Errorf("define job %s: %w", j.Metadata.Name, errs)
	}
	x.defines = append(x.defines, j)
	return nil
}

// Ready says whether the executor is registered and has listed everything. Safe for concurrent use.
func (x *Executor) Ready() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ready
}

// LogPath is where the output of a run's attempt is kept, when this executor runs shell commands.
func (x *Executor) LogPath(run string, attempt int) string {
	if x.runner == nil {
		return ""
	}
	return x.runner.LogPath(logName(run, attempt))
}

func logName(run string, attempt int) string { return fmt.Sprintf("%s.%d", run, attempt) }

// Run registers, fires and runs until ctx ends; then it drains: nothing new is started, running handlers have DrainTimeout to
// end, and the incarnation is given back. It returns nil after a complete drain.
func (x *Executor) Run(ctx context.Context) error {
	if err := x.open(); err != nil {
		return err
	}
	if x.cfg.Store == nil {
		defer func() { _ = x.store.KV.(*etcdkv.Store).Close() }()
	}
	if err := x.prepare(ctx); err != nil {
		return err
	}
	x.started, x.zones = time.Now().UTC(), cron.ZoneData()
	x.engine = engine.New(engine.Config{
		Executor: x.cfg.ID, Namespaces: x.cfg.Namespaces, Slots: x.cfg.Concurrency,
		Lease: lease.Config{TTL: x.cfg.LeaseTTL, NewID: lease.NewID},
	})
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	x.keeper = &lease.Keeper{Store: x.store.KV, Registration: func(inc string, id kv.LeaseID) kv.Txn {
		return x.store.RegisterTxn(x.cfg.Namespaces, jobs.Holder{Executor: x.cfg.ID, Incarnation: inc}, x.presence(store.Ready), id)
	}, Post: x.post}
	var follows sync.WaitGroup
	for _, ns := range x.cfg.Namespaces {
		for f, sub := range map[store.Family]string{store.Jobs: "", store.Commands: "", store.Executors: "", store.Assignments: x.cfg.ID} {
			follows.Go(func() {
				x.store.Follow(work, ns, f, sub, func(u store.Update) { x.post(u) }, func(err error) {
					x.cfg.Log.Warn("following the store", "namespace", ns, "family", f, "error", err)
				})
			})
		}
	}
	if x.runner != nil {
		follows.Go(func() { x.sweep(work) })
	}
	err := x.loop(ctx, work)
	stop()
	follows.Wait()
	x.loads.Wait()
	x.keeper.Wait()
	return err
}

// sweep keeps the logs of shell commands within their limits.
func (x *Executor) sweep(ctx context.Context) {
	every := time.NewTicker(5 * time.Minute)
	defer every.Stop()
	for {
		if n := x.runner.Sweep(time.Now()); n > 0 {
			x.cfg.Log.Debug("swept logs", "files", n)
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

func (x *Executor) open() error {
	if x.cfg.Store != nil {
		x.store = store.New(x.cfg.Store, x.cfg.Prefix)
		return nil
	}
	s, err := etcdkv.Open(etcdkv.Config{
		Endpoints: x.cfg.Endpoints, Username: x.cfg.Username, Password: x.cfg.Password, TLS: x.cfg.TLS, ObserveGroup: x.metrics.group,
	})
	if err != nil {
		return err
	}
	x.store = store.New(s, x.cfg.Prefix)
	return nil
}

// prepare waits for the store, creates the namespaces and registers the jobs defined in code.
func (x *Executor) prepare(ctx context.Context) error {
	if x.cfg.Shell {
		r, err := shell.NewRunner(x.cfg.WorkDir)
		if err != nil {
			return err
		}
		x.runner = r
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := x.define(ctx)
		if err == nil {
			return nil
		}
		x.cfg.Log.Warn("waiting for etcd", "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

func (x *Executor) define(ctx context.Context) error {
	if s, ok := x.store.KV.(*etcdkv.Store); ok {
		if v, err := s.CheckVersion(ctx); err != nil && v != "" {
			return err
		}
	}
	for _, ns := range x.cfg.Namespaces {
		if err := x.store.EnsureNamespace(ctx, ns); err != nil {
			return err
		}
	}
	for i := range x.defines {
		j := x.defines[i]
		cur, err := x.store.ReadJob(ctx, store.JobKey{Namespace: j.Metadata.Namespace, Name: j.Metadata.Name})
		switch {
		case errors.Is(err, store.ErrNotFound):
			j.Stamp(nil, time.Now())
		case err != nil:
			return err
		case cur.Job.SameIntent(&j):
			continue
		default:
			j.Stamp(cur.Job, time.Now())
		}
		if _, err := x.store.PutJob(ctx, &j, cur.Mod); err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return nil
}

func (x *Executor) presence(state string) store.Presence {
	host, _ := os.Hostname()
	handlers := make([]string, 0, len(x.handlers))
	for h := range x.handlers {
		handlers = append(handlers, h)
	}
	sort.Strings(handlers)
	return store.Presence{
		State: state, Labels: x.cfg.Labels, Capacity: x.cfg.Capacity, Slots: x.cfg.Concurrency, Handlers: handlers, Shell: x.cfg.Shell, Zones: x.zones,
		Version: x.cfg.Version, Host: host, Started: x.started,
	}
}

// post hands an input to the loop; it never blocks.
func (x *Executor) post(in any) {
	x.mu.Lock()
	x.inbox = append(x.inbox, in)
	x.mu.Unlock()
	select {
	case x.notify <- struct{}{}:
	default:
	}
}

// maxNap bounds how long a suspended machine can go unnoticed: timers stand still in suspend.
const maxNap = 200 * time.Millisecond

// loop steps the engine: the only goroutine that touches it.
func (x *Executor) loop(ctx, work context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	done := ctx.Done()
	var hard <-chan time.Time
	var batch []any
	for {
		select {
		case <-x.notify:
		case <-timer.C:
		case <-done:
			done = nil
			hard = time.After(x.cfg.DrainTimeout + 15*time.Second)
			x.cfg.Log.Info("draining", "executor", x.cfg.ID, "limit", x.cfg.DrainTimeout, "cause", context.Cause(ctx))
			if x.do(work, x.engine.Step(engine.Drain{Limit: x.cfg.DrainTimeout}, x.cfg.Clock())) {
				return nil
			}
		case <-hard:
			return errors.New("drain: handlers did not end in time; they are abandoned")
		}
		began := x.begun
		for more := true; more; more = x.engine.Due(x.cfg.Clock().Boot) {
			if x.do(work, x.engine.Step(lease.Tick{}, x.cfg.Clock())) {
				return nil
			}
		}
		if x.begun != began {
			runtime.Gosched() // those that were just started go first; their ends can wait
		}
		x.mu.Lock()
		batch, x.inbox = x.inbox, batch[:0]
		x.ready = x.engine.Synced()
		x.mu.Unlock()
		for i, in := range batch {
			if ended, ok := in.(engine.Ended); ok {
				x.cancels[ended.Seq](nil)
				delete(x.cancels, ended.Seq)
				x.metrics.running.Dec()
			}
			if x.do(work, x.engine.Step(in, x.cfg.Clock())) {
				return nil
			}
			batch[i] = nil
			if i%256 == 255 { // ticks that came due do not wait for the rest
				x.do(work, x.engine.Step(lease.Tick{}, x.cfg.Clock()))
			}
		}
		timer.Reset(min(max(x.engine.Wake()-x.cfg.Clock().Boot, 0), maxNap))
	}
}

// do carries out effects; it returns true when the drain is complete.
func (x *Executor) do(ctx context.Context, effects []any) (finished bool) {
	for _, effect := range effects {
		switch e := effect.(type) {
		case engine.Commit:
			x.store.KV.Submit(x.store.Txn(e.Commit), func(r kv.Result) { x.post(engine.Committed{Seq: e.Seq, Shard: e.Commit.Shard, Result: r}) })
		case engine.Start:
			x.start(ctx, e)
		case engine.Cancel:
			if cancel := x.cancels[e.Seq]; cancel != nil {
				x.cfg.Log.Info("cancelling", "executor", x.cfg.ID, "cause", string(e.Cause))
				cancel(errors.New(string(e.Cause)))
			}
		case engine.Load:
			x.loads.Go(func() { x.load(ctx, e) })
		case engine.Settle:
			x.store.KV.Submit(x.store.SettleTxn(e.Job, e.Command), func(kv.Result) {})
		case engine.Announce:
			x.store.KV.Submit(x.store.PresenceTxn(x.cfg.Namespaces, x.engine.Me(), x.presence(e.State), x.lease), func(kv.Result) {})
		case engine.Pulse:
			p := store.Pulse{Wall: x.cfg.Clock().Wall.UTC(), Running: e.Running}
			x.store.KV.Submit(x.store.PulseTxn(x.cfg.Namespaces, x.engine.Me(), p, x.lease), func(kv.Result) {})
		case engine.Finished:
			finished = true
		case engine.Note:
			x.note(e)
		case lease.Held:
			x.lease = e.Lease
			x.cfg.Log.Info("registered", "executor", x.cfg.ID, "incarnation", e.Incarnation)
		case lease.Trusted:
			if x.runner != nil {
				x.runner.Trust(e.Until)
			}
		case lease.Fenced:
			x.metrics.fenced.Inc()
			x.cfg.Log.Warn("fenced: all handlers are ended, a new incarnation begins", "executor", x.cfg.ID, "incarnation", e.Incarnation, "cause", e.Cause)
		default:
			x.keeper.Do(ctx, effect, x.cfg.LeaseTTL)
		}
	}
	return finished
}

// load reads records for the engine: a few singly, many with one listing.
func (x *Executor) load(ctx context.Context, e engine.Load) {
	in := engine.Loaded{Job: e.Job, UID: e.UID, Shards: e.Shards, Records: map[int]store.RecordItem{}}
	if len(e.Shards) <= 4 {
		for _, n := range e.Shards {
			it, err := x.store.ReadRecord(ctx, store.ShardKey{JobKey: e.Job, UID: e.UID, Shard: n})
			if err != nil {
				x.cfg.Log.Warn("reading a record", "namespace", e.Job.Namespace, "job", e.Job.Name, "shard", n, "error", err)
				in.Err = err
				break
			}
			if it.Mod != 0 {
				in.Records[n] = it
			}
		}
		x.post(in)
		return
	}
	items, corrupt, err := x.store.ReadRecords(ctx, e.Job, e.UID)
	in.Err = err
	for _, it := range items {
		in.Records[it.Shard] = it
	}
	if len(corrupt) > 0 {
		// Those shards wait; the others go on.
		bad := map[string]bool{}
		for _, c := range corrupt {
			bad[c.Key[strings.LastIndexByte(c.Key, '/')+1:]] = true
			x.cfg.Log.Error("record is not understood; its shard waits", "key", c.Key, "error", c.Err)
		}
		in.Shards = slices.DeleteFunc(slices.Clone(in.Shards), func(n int) bool { return bad[fmt.Sprintf("%06d", n)] })
	}
	x.post(in)
}

// start runs a handler in its own goroutine and reports its end.
func (x *Executor) start(ctx context.Context, e engine.Start) {
	ctx, cancel := context.WithCancelCause(ctx)
	x.cancels[e.Seq] = cancel
	x.begun++
	x.runs.Go(func() {
		x.noteStart(e)
		var out engine.Outcome
		if e.Job.Spec.Run.Kind() == "shell" {
			out = x.shell(ctx, e)
		} else {
			out = x.handler(ctx, e)
		}
		x.post(engine.Ended{Seq: e.Seq, Outcome: out})
	})
}

func (x *Executor) handler(ctx context.Context, e engine.Start) engine.Outcome {
	h := x.handlers[e.Job.Spec.Run.Handler]
	if h == nil {
		return engine.Outcome{Phase: jobs.Failed, Reason: "this executor has no handler " + e.Job.Spec.Run.Handler}
	}
	params := e.Job.Spec.Run.Params
	if len(e.Run.Params) > 0 {
		params = merged(params, e.Run.Params)
	}
	run := &Run{
		ID: e.Run.ID, Namespace: e.Shard.Namespace, Job: e.Shard.Name, Shard: e.Shard.Shard, Shards: e.Shards,
		Param: e.Job.Spec.Shards.Param(e.Shard.Shard), Tick: time.UnixMilli(e.Run.Tick).UTC(), Trigger: e.Run.Trigger, Attempt: e.Run.Attempt,
		Token: e.Run.Token, Executor: x.cfg.ID, Params: params, Log: x.cfg.Log,
	}
	return Call(ctx, h, run)
}

func merged(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		out[k] = v
	}
	return out
}
