package simtest

import (
	"errors"
	"sort"
	"time"

	"github.com/rota-dev/rota/executor/engine"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/scheduler"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// node is a process with a clock and a network.
type node struct {
	w              *World
	name           string
	life           int
	dead, paused   bool
	frozen         bool // its whole host stands still
	cutTo, cutFrom bool
	rate           float64
	wallOff        time.Duration
	parked         []func()
}

func (n *node) now() lease.Now {
	return lease.Now{Wall: epoch.Add(n.w.now + n.wallOff), Boot: time.Duration(float64(n.w.now) * n.rate)}
}

// do runs f on the node in the life in which it was arranged: never after a crash, later while paused.
func (n *node) do(life int, f func()) {
	if n.dead || n.life != life {
		return
	}
	if n.paused {
		n.parked = append(n.parked, func() { n.do(life, f) })
		return
	}
	f()
}

func (n *node) after(d time.Duration, f func()) {
	life := n.life
	n.w.at(d, func() { n.do(life, f) })
}

func (n *node) resume() {
	if !n.paused {
		return
	}
	n.paused, n.frozen = false, false
	parked := n.parked
	n.parked = nil
	for _, f := range parked {
		f()
	}
}

// call runs f at the store, maybe late, maybe twice, and answers with its result or with an error that tells nothing.
func (n *node) call(f func() any, answer func(any, error)) {
	w, life, answered := n.w, n.life, false
	reply := func(r any, err error) {
		n.do(life, func() {
			if !answered {
				answered = true
				answer(r, err)
			}
		})
	}
	delay := w.between(ms, 8*ms)
	if !w.opt.NoFaults && w.chance(0.02) {
		delay = w.between(50*ms, 4*time.Second) // may take effect after the caller has given up
	}
	if !n.cutTo {
		w.at(delay, func() {
			if w.down {
				return
			}
			r := f()
			if !w.opt.NoFaults && w.chance(0.01) {
				r = f() // a client that retries by itself: the caller sees the second answer
			}
			if n.cutFrom || !w.opt.NoFaults && w.chance(0.01) {
				return
			}
			back := w.between(ms, 8*ms)
			if !w.opt.NoFaults && w.chance(0.02) {
				back = w.between(50*ms, 950*ms)
			}
			w.at(back, func() { reply(r, nil) })
		})
	}
	w.at(time.Second, func() { reply(nil, kv.ErrUnknown) })
}

// follow feeds a family to f as a watch does: first everything, then changes in order; on compaction or doubt everything again.
func (n *node) follow(fam store.Family, sub string, f func(store.Update)) {
	w := n.w
	prefix := w.st.Prefix("sim", fam, sub)
	rev := int64(-1)
	var poll func()
	poll = func() {
		n.after(w.between(5*ms, 40*ms), poll)
		if n.cutTo || n.cutFrom || w.down {
			return
		}
		u := store.Update{Namespace: "sim", Family: fam, Revision: w.core.Revision()}
		events, err := w.core.Since(prefix, rev)
		if rev < 0 || err != nil || !w.opt.NoFaults && w.chance(0.0005) {
			u.Reset = true
			for _, it := range w.core.List(prefix) {
				u.Items = append(u.Items, w.st.Decode(kv.Event{Item: it}))
			}
		} else {
			for _, e := range events {
				u.Items = append(u.Items, w.st.Decode(e))
			}
		}
		rev = u.Revision
		if u.Reset || len(u.Items) > 0 {
			f(u)
		}
	}
	poll()
}

// leaseCall carries out the effects that executors and schedulers share.
func (n *node) leaseCall(effect any, register func(lease.Register) kv.Txn, step func(any)) bool {
	w := n.w
	switch e := effect.(type) {
	case lease.Grant:
		n.call(func() any { return w.core.Grant(w.now, e.TTL) }, func(r any, err error) {
			id, _ := r.(kv.LeaseID)
			step(lease.Granted{Seq: e.Seq, Lease: id, TTL: e.TTL, Err: err})
		})
	case lease.Register:
		n.call(func() any { return w.apply(register(e)) }, func(r any, err error) {
			res, _ := r.(kv.Result)
			if err != nil {
				res = kv.Result{Err: err}
			}
			step(lease.Registered{Seq: e.Seq, Result: res})
		})
	case lease.Renew:
		n.call(func() any { return w.core.Renew(w.now, e.Lease) }, func(r any, err error) {
			if ok, _ := r.(bool); err == nil && !ok {
				err = kv.ErrLeaseNotFound
			}
			step(lease.Renewed{Seq: e.Seq, Err: err})
		})
	case lease.Revoke:
		n.call(func() any { w.core.Revoke(e.Lease); return nil }, func(any, error) {})
	default:
		return false
	}
	return true
}

const ttl = 3 * time.Second

// exec is an executor process with the real engine.
type exec struct {
	node
	eng   *engine.Engine
	procs map[int64]*proc
	until time.Duration // trust as last pushed to the shims
	timer int
}

// proc is one handler below its shim.
type proc struct {
	x      *exec
	life   int
	seq    int64
	start  engine.Start
	alive  bool
	frozen bool
}

func (x *exec) boot() {
	x.life++
	x.dead, x.paused, x.frozen, x.parked = false, false, false, nil
	x.procs, x.until = map[int64]*proc{}, 0
	w := x.w
	newID := w.id
	if w.opt.SharedKey {
		newID = func() string { return "shared" }
	}
	x.eng = engine.New(engine.Config{
		Executor: x.name, Namespaces: []string{"sim"}, Mutant: w.opt.Engine,
		Lease: lease.Config{TTL: ttl, Margin: 600 * ms, NewID: newID, Mutant: w.opt.Lease},
	})
	for _, f := range []store.Family{store.Jobs, store.Commands, store.Executors} {
		x.follow(f, "", func(u store.Update) { x.step(u) })
	}
	x.follow(store.Assignments, x.name, func(u store.Update) { x.step(u) })
	x.step(lease.Tick{})
}

func (x *exec) presence() store.Presence {
	return store.Presence{State: store.Ready, Shell: true, Started: epoch.Add(x.w.now)}
}

func (x *exec) step(in any) {
	w := x.w
	for _, effect := range append([]any{}, x.eng.Step(in, x.now())...) {
		if x.leaseCall(effect, func(r lease.Register) kv.Txn {
			t := w.st.RegisterTxn([]string{"sim"}, jobs.Holder{Executor: x.name, Incarnation: r.Incarnation}, x.presence(), r.Lease)
			if w.opt.SharedKey {
				t.Guards = nil
			}
			return t
		}, x.step) {
			continue
		}
		switch e := effect.(type) {
		case engine.Commit:
			t := w.st.Txn(e.Commit)
			if e.Commit.Mod < 0 { // mutant
				t.Guards = t.Guards[:1]
			}
			x.call(func() any { return w.apply(t) }, func(r any, err error) {
				res, _ := r.(kv.Result)
				if err != nil {
					res = kv.Result{Err: err}
				}
				w.log("%s commit %s %s mod=%d: applied=%v rev=%d err=%v", x.name, e.Commit.Op, w.check.key(e.Commit.Shard), e.Commit.Mod, res.Applied, res.Revision, res.Err)
				x.step(engine.Committed{Seq: e.Seq, Shard: e.Commit.Shard, Result: res})
			})
		case engine.Settle:
			x.call(func() any { return w.apply(w.st.SettleTxn(e.Job, e.Command)) }, func(any, error) {})
		case engine.Announce:
			held, id := x.eng.Me(), x.leaseOf()
			x.call(func() any { return w.apply(w.st.PresenceTxn([]string{"sim"}, held, x.presence(), id)) }, func(any, error) {})
		case engine.Pulse:
			held, id, p := x.eng.Me(), x.leaseOf(), store.Pulse{Wall: x.now().Wall, Running: e.Running}
			x.call(func() any { return w.apply(w.st.PulseTxn([]string{"sim"}, held, p, id)) }, func(any, error) {})
		case engine.Load:
			x.load(e)
		case engine.Start:
			x.start(e)
		case engine.Cancel:
			if p := x.procs[e.Seq]; p != nil {
				x.after(w.between(0, 60*ms), func() { x.end(p, engine.Outcome{Phase: jobs.Failed, Reason: string(e.Cause)}) })
			}
		case lease.Trusted:
			x.until = e.Until
		case lease.Fenced:
			w.log("%s fenced: %v", x.name, e.Cause)
		case engine.Note:
			if e.Run != nil {
				w.log("%s note %d %s #%d %s %s", x.name, e.Kind, e.Run.ID, e.Run.Attempt, e.Run.Phase, e.Text)
			}
		}
	}
	x.arm()
}

// leaseOf is the lease of the present incarnation, found where the store keeps it.
func (x *exec) leaseOf() kv.LeaseID {
	me := x.eng.Me()
	return x.w.core.Get(x.w.st.Prefix("sim", store.Executors, me.Executor) + me.Incarnation).Lease
}

func (x *exec) load(e engine.Load) {
	w := x.w
	x.call(func() any {
		out := map[int]store.RecordItem{}
		for _, n := range e.Shards {
			k := store.ShardKey{JobKey: e.Job, UID: e.UID, Shard: n}
			if it := w.core.Get(w.check.key(k)); it.Exists() {
				out[n] = w.st.Decode(kv.Event{Item: it}).(store.RecordItem)
			}
		}
		return out
	}, func(r any, err error) {
		recs, _ := r.(map[int]store.RecordItem)
		x.step(engine.Loaded{Job: e.Job, UID: e.UID, Shards: e.Shards, Records: recs, Err: err})
	})
}

// arm sets the one timer.
func (x *exec) arm() {
	x.timer++
	n := x.timer
	d := time.Duration(float64(x.eng.Wake()-x.now().Boot) / x.rate)
	x.after(min(max(d, 0)+ms/2, 200*ms), func() {
		if x.timer == n {
			x.step(lease.Tick{})
		}
	})
}

func (x *exec) start(e engine.Start) {
	w := x.w
	p := &proc{x: x, life: x.life, seq: e.Seq, start: e, alive: true}
	x.procs[e.Seq] = p
	w.Starts++
	w.check.started(p)
	d := w.between(50*ms, 900*ms)
	if w.chance(0.15) {
		d = w.between(time.Second, 9*time.Second)
	}
	w.at(d, func() { x.exits(p) })
	x.shim(p)
}

// exits lets the handler end by itself; a frozen one ends later.
func (x *exec) exits(p *proc) {
	if p.frozen {
		x.w.at(100*ms, func() { x.exits(p) })
		return
	}
	if !p.alive {
		return
	}
	out := engine.Outcome{Phase: jobs.Succeeded}
	if x.w.chance(0.1) {
		out = engine.Outcome{Phase: jobs.Failed, Reason: "exit 1"}
	}
	x.end(p, out)
}

// end kills or ends the handler and reports it to its executor, if that still is the same process.
func (x *exec) end(p *proc, o engine.Outcome) {
	if !p.alive {
		return
	}
	p.alive = false
	x.w.check.ended(p)
	x.do(p.life, func() {
		delete(x.procs, p.seq)
		x.step(engine.Ended{Seq: p.seq, Outcome: o})
	})
}

// shim is a process of its own: it goes on while its executor is stopped or dead, and kills at the trust deadline.
func (x *exec) shim(p *proc) {
	if !p.alive {
		return
	}
	if !x.w.opt.NoShim && !p.frozen && (x.dead || x.life != p.life || x.now().Boot >= x.until) {
		x.w.log("shim of %s kills %s", x.name, p.start.Run.ID)
		x.end(p, engine.Outcome{Phase: jobs.Failed, Reason: "killed by the shim"})
		return
	}
	x.w.at(50*ms, func() { x.shim(p) })
}

func (x *exec) kill() {
	x.dead = true
	x.life++
}

func (x *exec) pause(host bool) {
	x.paused, x.frozen = true, host
	if !host {
		return
	}
	for _, p := range x.sorted() {
		if p.alive {
			p.frozen = true
			x.w.check.ended(p) // a frozen process does nothing
		}
	}
}

func (x *exec) resume() {
	if x.frozen {
		for _, p := range x.sorted() {
			if !p.alive || !p.frozen {
				continue
			}
			p.frozen = false
			if x.now().Boot >= x.until && !x.w.opt.NoShim {
				p.alive = false // the shim is the first to run
				x.do(p.life, func() {
					delete(x.procs, p.seq)
					x.step(engine.Ended{Seq: p.seq, Outcome: engine.Outcome{Phase: jobs.Failed}})
				})
				continue
			}
			x.w.check.thawed(p)
		}
	}
	x.node.resume()
}

func (x *exec) sorted() []*proc {
	out := make([]*proc, 0, len(x.procs))
	for _, p := range x.procs {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].seq < out[j].seq })
	return out
}

// sched is a server process with the real decisions of the scheduler.
type sched struct {
	node
	machine *lease.Machine
	view    *store.View
	mem     *scheduler.Memory
	term    string
	ups     map[store.JobKey]int64
}

func (s *sched) boot() {
	s.life++
	s.dead, s.paused, s.parked = false, false, nil
	s.view, s.mem, s.term, s.ups = store.NewView(), scheduler.NewMemory(), "", map[store.JobKey]int64{}
	s.view.Namespaces["sim"] = store.NamespaceItem{Name: "sim"}
	s.machine = lease.New(lease.Config{TTL: ttl, Margin: 600 * ms, NewID: s.w.id})
	for _, f := range []store.Family{store.Jobs, store.Executors, store.Pulses, store.Drains, store.Assignments, store.Rounds} {
		s.follow(f, "", func(u store.Update) {
			s.mem.Observe(s.view, u, s.now().Wall)
			s.view.Apply(u)
			s.followUps()
		})
	}
	s.loop()
}

func (s *sched) followUps() {
	ups := scheduler.Upstreams(s.view)
	for k, uid := range ups {
		if s.ups[k] != uid {
			s.ups[k] = uid
			s.follow(store.Records, k.Name+"/"+itoa(uid), func(u store.Update) {
				if s.ups[k] == uid {
					s.mem.Learn(k, uid, u.Reset, u.Items)
				}
			})
		}
	}
}

func (s *sched) loop() {
	s.step(lease.Tick{})
	if s.term != "" && len(s.view.Jobs) > 0 {
		s.decide()
	}
	s.after(s.w.between(50*ms, 150*ms), s.loop)
}

func (s *sched) step(in any) {
	for _, effect := range s.machine.Step(in, s.now()) {
		if s.leaseCall(effect, func(r lease.Register) kv.Txn {
			return s.w.st.LeadTxn(r.Incarnation, store.Leader{Server: s.name}, r.Lease)
		}, s.step) {
			continue
		}
		switch e := effect.(type) {
		case lease.Held:
			s.term = e.Incarnation
			s.w.log("%s elected", s.name)
		case lease.Fenced:
			s.term = ""
			s.step(lease.Released{Lease: e.Lease})
		}
	}
}

func (s *sched) decide() {
	w := s.w
	d := scheduler.Decide(w.st, s.view, s.mem, s.term, s.now().Wall)
	for _, t := range d.Assign {
		s.call(func() any { return w.apply(t) }, func(any, error) {})
	}
	for _, r := range d.Rounds {
		pending, failed := len(r.Commands), false
		advance := func() {
			if !failed {
				s.call(func() any { return w.apply(r.Advance) }, func(any, error) {})
			}
		}
		if pending == 0 {
			advance()
		}
		for _, t := range r.Commands {
			s.call(func() any { return w.apply(t) }, func(r any, err error) {
				res, _ := r.(kv.Result)
				failed = failed || err != nil || errors.Is(res.Err, kv.ErrUnknown)
				if pending--; pending == 0 {
					advance()
				}
			})
		}
	}
}
