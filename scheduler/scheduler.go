package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// Config of a scheduler.
type Config struct {
	Store   *store.Store
	Server  string // name of this server, shown as the leader
	Version string
	TTL     time.Duration // of the term; default 5 s
	// Debounce is how long changes are collected before planning; default 100 ms. SlowTick replans without any; default 10 s.
	Debounce, SlowTick time.Duration
	Log                *slog.Logger
	Registerer         prometheus.Registerer // may be nil
	// Clock reads the clocks; default lease.Read. Tests under virtual time replace it.
	Clock func() lease.Now
}

// Scheduler is the actor. Create it with New; Run it once.
type Scheduler struct {
	cfg     Config
	metrics *metrics
	machine *lease.Machine
	keeper  *lease.Keeper

	inbox chan any
	ctx   context.Context
	view  *store.View
	mem   *Memory
	term  string

	ups     map[store.JobKey]context.CancelFunc
	upUIDs  map[store.JobKey]int64
	workers sync.WaitGroup

	mu      sync.Mutex // guards leading
	leading bool
}

type planNow struct{}

type learnt struct {
	key   store.JobKey
	uid   int64
	reset bool
	items []any
}

// applied says that a decision was committed; incomplete: some answers are unknown, so look again.
type applied struct{ incomplete bool }

// New checks the configuration; it starts nothing.
func New(cfg Config) *Scheduler {
	if cfg.TTL == 0 {
		cfg.TTL = lease.DefaultTTL
	}
	if cfg.Debounce == 0 {
		cfg.Debounce = 100 * time.Millisecond
	}
	if cfg.SlowTick == 0 {
		cfg.SlowTick = 10 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = lease.Read
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Scheduler{
		cfg: cfg, metrics: newMetrics(cfg.Registerer), inbox: make(chan any, 1024), view: store.NewView(), mem: NewMemory(),
		machine: lease.New(lease.Config{TTL: cfg.TTL, NewID: lease.NewID}),
		ups:     map[store.JobKey]context.CancelFunc{}, upUIDs: map[store.JobKey]int64{},
	}
}

// Leading says whether this scheduler is elected. Safe for concurrent use; for display only.
func (s *Scheduler) Leading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading
}

func (s *Scheduler) setLeading(v bool) {
	s.mu.Lock()
	s.leading = v
	s.mu.Unlock()
	s.metrics.leader.Set(map[bool]float64{true: 1}[v])
}

// Run campaigns, leads, and returns when ctx ends, giving the term back.
func (s *Scheduler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	s.ctx = ctx
	defer s.workers.Wait()
	defer cancel()
	s.keeper = &lease.Keeper{
		Store: s.cfg.Store.KV,
		Registration: func(term string, id kv.LeaseID) kv.Txn {
			return s.cfg.Store.LeadTxn(term, store.Leader{Server: s.cfg.Server, Since: time.Now().UTC(), Version: s.cfg.Version}, id)
		},
		Post: s.post,
	}
	feed := &store.Feed{
		Store: s.cfg.Store, Families: []store.Family{store.Jobs, store.Executors, store.Pulses, store.Drains, store.Assignments, store.Rounds},
		Update: func(u store.Update) { s.post(u) },
		Error:  func(err error) { s.cfg.Log.Warn("following the store", "error", err) },
	}
	s.workers.Go(func() { feed.Run(ctx) })
	s.loop(ctx)
	// Give the term back at best effort; expiry is the net.
	s.leaseStep(lease.Stop{})
	s.keeper.Wait()
	s.setLeading(false)
	return nil
}

func (s *Scheduler) post(in any) {
	select {
	case s.inbox <- in:
	case <-s.ctx.Done():
	}
}

func (s *Scheduler) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	slow := time.NewTicker(s.cfg.SlowTick)
	defer slow.Stop()
	collect := time.NewTicker(time.Minute)
	defer collect.Stop()
	var debounce <-chan time.Time
	busy := false // a decision is being applied; plan again afterwards
	again := false
	want := func() {
		if busy {
			again = true
		} else if debounce == nil {
			debounce = time.After(s.cfg.Debounce)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case in := <-s.inbox:
			switch in := in.(type) {
			case store.Update:
				s.mem.Observe(s.view, in, time.Now())
				s.view.Apply(in)
				if in.Family == store.Pulses {
					break // clocks are looked at with the next plan
				}
				s.followUpstreams(ctx)
				want()
			case learnt:
				s.mem.Learn(in.key, in.uid, in.reset, in.items)
				want()
			case planNow:
				want()
			case applied:
				busy = false
				if again || in.incomplete {
					again = false
					want()
				}
			default:
				s.leaseStep(in)
			}
		case <-timer.C:
			s.leaseStep(lease.Tick{})
		case <-slow.C:
			want()
		case <-collect.C:
			s.collect(ctx)
		case <-debounce:
			debounce = nil
			if s.term != "" && !busy {
				busy = s.plan()
			}
		}
		timer.Reset(max(0, min(s.machine.Wake()-s.cfg.Clock().Boot, 500*time.Millisecond)))
	}
}

func (s *Scheduler) leaseStep(in any) {
	for _, effect := range s.machine.Step(in, s.cfg.Clock()) {
		if s.keeper.Do(s.ctx, effect, s.cfg.TTL) {
			continue
		}
		switch f := effect.(type) {
		case lease.Held:
			s.term = f.Incarnation
			s.setLeading(true)
			s.cfg.Log.Info("elected", "term", s.term)
			s.workers.Go(func() { s.watchTerm(f.Incarnation, f.Revision) })
			go s.post(planNow{})
		case lease.Fenced:
			s.cfg.Log.Warn("term ended", "term", f.Incarnation, "cause", f.Cause)
			s.term = ""
			s.setLeading(false)
			s.leaseStep(lease.Released{Lease: f.Lease}) // what is in flight is guarded by the term
		}
	}
}

// watchTerm fences as soon as the term's key is seen deleted.
func (s *Scheduler) watchTerm(term string, rev int64) {
	for b := range s.cfg.Store.WatchTerm(s.ctx, term, rev) {
		for _, e := range b.Events {
			if e.Deleted {
				s.post(lease.KeyGone{Incarnation: term})
				return
			}
		}
	}
}

// plan decides and has the decision applied by a worker; it says whether there was anything to apply.
func (s *Scheduler) plan() bool {
	start := time.Now()
	d := Decide(s.cfg.Store, s.view, s.mem, s.term, start)
	s.metrics.plan.Observe(time.Since(start).Seconds())
	s.metrics.observe(s.view)
	for _, k := range unplacedKeys(d.Unplaced) {
		s.cfg.Log.Debug("no owner", "namespace", k.Namespace, "job", k.Name, "reason", d.Unplaced[k])
	}
	if len(d.Assign) == 0 && len(d.Rounds) == 0 {
		return false
	}
	for reason, n := range d.Moves {
		s.cfg.Log.Info("moving shards", "count", n, "reason", reason)
	}
	s.workers.Go(func() {
		s.post(applied{incomplete: !s.apply(d)})
	})
	return true
}

// apply commits a decision and says whether every answer is known. Refusals need no handling: what changed meanwhile leads to
// another decision.
func (s *Scheduler) apply(d Decision) (complete bool) {
	complete = true
	results := s.submit(d.Assign)
	refused := 0
	for _, r := range results {
		complete = complete && r.Err == nil
		if r.Err == nil && !r.Applied {
			refused++
		}
	}
	s.metrics.refused.Add(float64(refused))
	for reason, n := range d.Moves {
		s.metrics.moves.WithLabelValues(reason).Add(float64(n))
	}
	for _, step := range d.Rounds {
		ok := true
		for _, r := range s.submit(step.Commands) {
			ok = ok && r.Err == nil // refused: it exists, or the term ended, which refuses the advance too
		}
		if ok {
			ok = s.submit([]kv.Txn{step.Advance})[0].Err == nil
		}
		complete = complete && ok
	}
	return complete
}

func (s *Scheduler) submit(txns []kv.Txn) []kv.Result {
	out := make([]kv.Result, len(txns))
	var wg sync.WaitGroup
	wg.Add(len(txns))
	for i, t := range txns {
		s.cfg.Store.KV.Submit(t, func(r kv.Result) {
			out[i] = r
			wg.Done()
		})
	}
	wg.Wait() // every submission answers within the store's own deadline
	return out
}

// followUpstreams watches the records of exactly those jobs that others run after.
func (s *Scheduler) followUpstreams(ctx context.Context) {
	ups := Upstreams(s.view)
	for k, cancel := range s.ups {
		if ups[k] != s.upUIDs[k] {
			cancel()
			delete(s.ups, k)
			delete(s.upUIDs, k)
		}
	}
	for k, uid := range ups {
		if s.ups[k] != nil {
			continue
		}
		fctx, cancel := context.WithCancel(ctx)
		s.ups[k], s.upUIDs[k] = cancel, uid
		s.workers.Go(func() {
			s.cfg.Store.FollowRecords(fctx, k, uid, func(u store.Update) {
				s.post(learnt{k, uid, u.Reset, u.Items})
			}, nil)
		})
	}
}
