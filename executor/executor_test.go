package executor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rota-dev/rota/executor"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/scheduler"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
	"github.com/rota-dev/rota/store/memkv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store in memory with a scheduler.
type world struct {
	t    *testing.T
	kv   *memkv.Store
	st   *store.Store
	stop []func()
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, kv: memkv.New()}
	w.st = store.New(w.kv, "")
	require.NoError(t, w.st.EnsureNamespace(t.Context(), "n"))
	w.run(func(ctx context.Context) error {
		return scheduler.New(scheduler.Config{Store: w.st, Server: "s", Log: quiet, Clock: lease.Virtual}).Run(ctx)
	})
	return w
}

var quiet = slog.New(slog.DiscardHandler)

// run starts an actor; the returned function ends it and waits.
func (w *world) run(f func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	end = func() {
		once.Do(func() {
			cancel()
			require.NoError(w.t, <-done)
		})
	}
	w.stop = append(w.stop, end)
	return end
}

func (w *world) close() {
	for i := len(w.stop) - 1; i >= 0; i-- {
		w.stop[i]()
	}
	time.Sleep(time.Minute) // leases of the past run out inside the bubble
}

func (w *world) executor(id string, change func(*executor.Config)) *executor.Executor {
	cfg := executor.Config{Store: w.kv, Namespaces: []string{"n"}, ID: id, Log: quiet, Clock: lease.Virtual}
	if change != nil {
		change(&cfg)
	}
	x, err := executor.New(cfg)
	require.NoError(w.t, err)
	return x
}

func job(name string, every time.Duration, change func(*jobs.Job)) jobs.Job {
	j := jobs.Job{Metadata: jobs.Metadata{Namespace: "n", Name: name}, Spec: jobs.Spec{
		Schedule: &jobs.Schedule{Every: jobs.Duration(every)}, Shards: jobs.Shards{Count: 1}, Run: jobs.RunSpec{Handler: "h"},
	}}
	if change != nil {
		change(&j)
	}
	return j
}

// record reads the only record of a job.
func (w *world) record(name string, shard int) jobs.Record {
	it, err := w.st.ReadJob(context.Background(), store.JobKey{Namespace: "n", Name: name})
	require.NoError(w.t, err)
	r, err := w.st.ReadRecord(context.Background(), store.ShardKey{JobKey: it.JobKey, UID: it.UID, Shard: shard})
	require.NoError(w.t, err)
	return r.Record
}

type log struct {
	mu   sync.Mutex
	runs []string
}

func (l *log) add(format string, a ...any) {
	l.mu.Lock()
	l.runs = append(l.runs, fmt.Sprintf(format, a...))
	l.mu.Unlock()
}

func (l *log) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.runs...)
}

func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		f(t, w)
	})
}

func TestEveryTickIsRunOnceOnTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x := w.executor("x", nil)
		var mu sync.Mutex
		ticks := map[time.Time]int{}
		x.Handle("h", func(_ context.Context, r *executor.Run) error {
			mu.Lock()
			defer mu.Unlock()
			ticks[r.Tick]++
			require.Less(t, time.Since(r.Tick), 5*time.Millisecond, "virtual time: no reason to be late")
			require.Equal(t, 1, r.Attempt)
			require.Positive(t, r.Token)
			return nil
		})
		require.NoError(t, x.Define(job("j", time.Second, nil)))
		w.run(x.Run)
		time.Sleep(60 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, len(ticks), 58)
		for tick, n := range ticks {
			require.Equal(t, 1, n, tick)
		}
	})
}

func TestSteadyStateCostsOnePutForEachRun(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		ops := map[string]int{}
		w.kv.SetFault(func(verb, op string) memkv.Fault {
			if verb == "submit" {
				mu.Lock()
				ops[op]++
				mu.Unlock()
			}
			return memkv.Fault{}
		})
		x := w.executor("x", nil)
		x.Handle("h", func(context.Context, *executor.Run) error { return nil })
		require.NoError(t, x.Define(job("j", time.Second, func(j *jobs.Job) { j.Spec.Shards.Count = 10 })))
		w.run(x.Run)
		time.Sleep(5 * time.Second)
		mu.Lock()
		clear(ops)
		mu.Unlock()
		time.Sleep(100 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.InDelta(t, 1000, ops["finish"], 20)
		require.Zero(t, ops["arm"]+ops["progress"]+ops["account"], "%v", ops)
	})
}

func TestAFailedRunIsRetriedWithBackoffAndThenFails(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x := w.executor("x", nil)
		var l log
		var begin time.Time
		x.Handle("h", func(_ context.Context, r *executor.Run) error {
			if r.Attempt == 1 {
				begin = time.Now()
			}
			l.add("%d after %v", r.Attempt, time.Since(begin).Round(time.Second))
			return errors.New("boom")
		})
		require.NoError(t, x.Define(job("j", time.Minute, func(j *jobs.Job) {
			j.Spec.Run.Retry = &jobs.Retry{Attempts: 3, Backoff: jobs.Duration(2 * time.Second), MaxBackoff: jobs.Duration(3 * time.Second)}
		})))
		w.run(x.Run)
		time.Sleep(80 * time.Second)
		require.Equal(t, []string{"1 after 0s", "2 after 2s", "3 after 5s"}, l.all())
		last := w.record("j", 0).Last
		require.Equal(t, jobs.Failed, last.Phase)
		require.Equal(t, "boom", last.Reason)
		require.Equal(t, 3, last.Attempt)
	})
}

func TestOutcomesAreRefined(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x := w.executor("x", nil)
		var l log
		x.Handle("retry", func(_ context.Context, r *executor.Run) error {
			l.add("retry %d", r.Attempt)
			if r.Attempt < 3 {
				return executor.Retry(errors.New("not yet"), time.Second)
			}
			r.Result(map[string]int{"n": 1})
			r.Progress(100, "done")
			return nil
		})
		x.Handle("fail", func(_ context.Context, r *executor.Run) error {
			l.add("fail %d", r.Attempt)
			return executor.Fail(errors.New("no"))
		})
		x.Handle("skip", func(context.Context, *executor.Run) error { return executor.Skip("nothing to do") })
		x.Handle("panic", func(context.Context, *executor.Run) error { panic("at the disco") })
		for _, h := range []string{"retry", "fail", "skip", "panic"} {
			require.NoError(t, x.Define(job(h, time.Minute, func(j *jobs.Job) {
				j.Spec.Run.Handler = h
				if h == "fail" {
					j.Spec.Run.Retry = &jobs.Retry{Attempts: 5}
				}
			})))
		}
		w.run(x.Run)
		time.Sleep(80 * time.Second)
		require.ElementsMatch(t, []string{"retry 1", "retry 2", "retry 3", "fail 1"}, l.all())
		last := w.record("retry", 0).Last
		require.Equal(t, jobs.Succeeded, last.Phase)
		require.Equal(t, "done", last.Message)
		require.JSONEq(t, `{"n":1}`, string(last.Result))
		last = w.record("skip", 0).Last
		require.Equal(t, jobs.Skipped, last.Phase)
		require.Equal(t, "nothing to do", last.Reason)
		last = w.record("panic", 0).Last
		require.Equal(t, jobs.Failed, last.Phase)
		require.Contains(t, last.Reason, "at the disco")
		require.Contains(t, last.Output, "executor_test.go")
	})
}

func TestATimeoutCancelsWithItsCause(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x := w.executor("x", nil)
		x.Handle("h", func(ctx context.Context, _ *executor.Run) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.NoError(t, x.Define(job("j", time.Minute, func(j *jobs.Job) { j.Spec.Run.Timeout = jobs.Duration(3 * time.Second) })))
		w.run(x.Run)
		time.Sleep(70 * time.Second)
		last := w.record("j", 0).Last
		require.Equal(t, jobs.TimedOut, last.Phase)
		require.InDelta(t, 3000, last.EndedAt-last.StartedAt, 50)
	})
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		policy jobs.Overlap
		want   string
	}{{jobs.OverlapSkip, "skip"}, {jobs.OverlapQueue, "queue"}, {jobs.OverlapReplace, "replace"}} {
		t.Run(string(c.policy), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				x := w.executor("x", nil)
				var l log
				x.Handle("h", func(ctx context.Context, r *executor.Run) error {
					l.add("%d", r.Tick.Unix()%60)
					select {
					case <-time.After(25 * time.Second):
						return nil
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				})
				require.NoError(t, x.Define(job("j", 10*time.Second, func(j *jobs.Job) { j.Spec.Schedule.Overlap = c.policy })))
				w.run(x.Run)
				time.Sleep(75 * time.Second) // starts at :00; the first tick is :10
				switch c.policy {
				case jobs.OverlapSkip: // 10-35, 40-65, 70
					require.Equal(t, []string{"10", "40", "10"}, l.all())
				case jobs.OverlapQueue: // 10-35, then 20 (30 was skipped), which ends at 60; then 40 of those due meanwhile
					require.Equal(t, []string{"10", "20", "40"}, l.all())
				case jobs.OverlapReplace:
					require.Equal(t, []string{"10", "20", "30", "40", "50", "0", "10"}, l.all())
				}
			})
		})
	}
}

func TestMisfirePolicies(t *testing.T) {
	for _, c := range []struct {
		policy jobs.Misfire
		want   []string
	}{
		{jobs.MisfireOnce, []string{"10", "20", "50", "0"}},
		{jobs.MisfireAll, []string{"10", "20", "30", "40", "50", "0"}},
		{jobs.MisfireNone, []string{"10", "20", "0"}},
	} {
		t.Run(string(c.policy), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				var l log
				x := func() *executor.Executor {
					x := w.executor("x", nil)
					x.Handle("h", func(_ context.Context, r *executor.Run) error { l.add("%d", r.Tick.Unix()%60); return nil })
					require.NoError(t, x.Define(job("j", 10*time.Second, func(j *jobs.Job) { j.Spec.Schedule.Misfire = c.policy })))
					return x
				}
				end := w.run(x().Run)
				time.Sleep(25 * time.Second)
				end()
				time.Sleep(30 * time.Second) // :25 to :55 nobody is there
				w.run(x().Run)
				time.Sleep(10 * time.Second)
				require.Equal(t, c.want, l.all())
			})
		})
	}
}

func TestDrainEndsRunningHandlersCleanlyAndHandsTheRestOver(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var l log
		start := func(id string) func() {
			x := w.executor(id, nil)
			x.Handle("h", func(_ context.Context, r *executor.Run) error {
				l.add("%s start %d", id, r.Tick.Unix()%60)
				time.Sleep(4 * time.Second)
				l.add("%s end %d", id, r.Tick.Unix()%60)
				return nil
			})
			require.NoError(t, x.Define(job("j", 10*time.Second, nil)))
			return w.run(x.Run)
		}
		end := start("a")
		time.Sleep(5 * time.Second)
		start("b")
		time.Sleep(6 * time.Second) // :11, a runs the tick :10
		end()                       // waits for its end
		require.Equal(t, []string{"a start 10", "a end 10"}, l.all())
		require.Equal(t, jobs.Succeeded, w.record("j", 0).Last.Phase)
		time.Sleep(10 * time.Second)
		require.Contains(t, l.all(), "b start 20")
	})
}

// E13, E15: answers are lost; nothing is started twice, nothing is forgotten.
func TestLostAnswersCostNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := 0
		var mu sync.Mutex
		w.kv.SetFault(func(verb, op string) memkv.Fault {
			if verb != "submit" || op == "register" || op == "lead" {
				return memkv.Fault{}
			}
			mu.Lock()
			defer mu.Unlock()
			n++
			switch n % 5 {
			case 0:
				return memkv.Fault{After: kv.ErrUnknown}
			case 2:
				return memkv.Fault{Before: kv.ErrUnknown}
			}
			return memkv.Fault{}
		})
		x := w.executor("x", nil)
		starts := map[string]int{}
		span := map[int][]int64{}
		x.Handle("h", func(_ context.Context, r *executor.Run) error {
			mu.Lock()
			span[r.Shard] = append(span[r.Shard], r.Tick.Unix())
			starts[fmt.Sprintf("%d/%d#%d", r.Shard, r.Tick.Unix(), r.Attempt)]++
			mu.Unlock()
			return nil
		})
		require.NoError(t, x.Define(job("j", time.Second, func(j *jobs.Job) { j.Spec.Shards.Count, j.Spec.Schedule.Misfire = 5, jobs.MisfireAll })))
		w.run(x.Run)
		time.Sleep(60 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, span, 5)
		for shard, ticks := range span {
			require.Greater(t, len(ticks), 50)
			for i, tick := range ticks {
				require.Equal(t, ticks[0]+int64(i), tick, "shard %d: every tick, in order", shard)
			}
		}
		for id, k := range starts {
			require.Equal(t, 1, k, id)
		}
	})
}

// E18: the lease is revoked by hand while the executor lives.
func TestARevokedLeaseFencesAndANewIncarnationGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x := w.executor("x", nil)
		var l log
		x.Handle("h", func(ctx context.Context, r *executor.Run) error {
			select {
			case <-ctx.Done():
				l.add("cancelled: %v", context.Cause(ctx))
			case <-time.After(8 * time.Second):
				l.add("attempt %d ended", r.Attempt)
			}
			return ctx.Err()
		})
		require.NoError(t, x.Define(job("j", time.Minute, nil)))
		w.run(x.Run)
		time.Sleep(62 * time.Second)
		xs, err := w.st.ReadExecutors(t.Context(), "n")
		require.NoError(t, err)
		require.Len(t, xs, 1)
		it, err := w.kv.Get(t.Context(), "/rota/v1/n/executors/x/"+xs[0].Incarnation)
		require.NoError(t, err)
		require.NoError(t, w.kv.Revoke(t.Context(), it.Lease))
		time.Sleep(time.Second)
		require.Equal(t, []string{"cancelled: executor lost its lease"}, l.all())
		time.Sleep(15 * time.Second)
		require.Equal(t, []string{"cancelled: executor lost its lease", "attempt 2 ended"}, l.all())
		now, err := w.st.ReadExecutors(t.Context(), "n")
		require.NoError(t, err)
		require.Len(t, now, 1)
		require.NotEqual(t, xs[0].Incarnation, now[0].Incarnation)
	})
}

// S8: changes at the instant of the tick.
func TestAChangedOrRecreatedJobInheritsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x := w.executor("x", nil)
		var l log
		x.Handle("h", func(_ context.Context, r *executor.Run) error {
			l.add("%s %d", r.Params["v"], r.Tick.Unix()%60)
			return nil
		})
		require.NoError(t, x.Define(job("j", 10*time.Second, func(j *jobs.Job) { j.Spec.Run.Params = map[string]string{"v": "1"} })))
		w.run(x.Run)
		k := store.JobKey{Namespace: "n", Name: "j"}
		time.Sleep(19*time.Second + 900*time.Millisecond) // the tick :20 is armed already
		cur, err := w.st.ReadJob(t.Context(), k)
		require.NoError(t, err)
		next := *cur.Job
		next.Spec.Run.Params = map[string]string{"v": "2"}
		next.Stamp(cur.Job, time.Now())
		_, err = w.st.PutJob(t.Context(), &next, cur.Mod)
		require.NoError(t, err)
		time.Sleep(8 * time.Second)
		require.Equal(t, []string{"1 10", "2 20"}, l.all(), "the armed tick runs with the new definition")
		cur, err = w.st.ReadJob(t.Context(), k)
		require.NoError(t, err)
		require.NoError(t, w.st.DeleteJob(t.Context(), k, cur.Mod))
		fresh := job("j", 10*time.Second, func(j *jobs.Job) { j.Spec.Run.Params = map[string]string{"v": "3"} })
		fresh.Stamp(nil, time.Now())
		_, err = w.st.PutJob(t.Context(), &fresh, 0)
		require.NoError(t, err)
		time.Sleep(8 * time.Second)
		require.Equal(t, []string{"1 10", "2 20", "3 30"}, l.all())
		again, err := w.st.ReadJob(t.Context(), k)
		require.NoError(t, err)
		require.NotEqual(t, cur.UID, again.UID)
	})
}

func TestTheConcurrencyLimitQueuesByDueTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x := w.executor("x", func(c *executor.Config) { c.Concurrency = 2 })
		var mu sync.Mutex
		running, most, total := 0, 0, 0
		x.Handle("h", func(context.Context, *executor.Run) error {
			mu.Lock()
			running++
			total++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		})
		require.NoError(t, x.Define(job("j", 10*time.Second, func(j *jobs.Job) { j.Spec.Shards.Count = 8 })))
		w.run(x.Run)
		time.Sleep(18 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, 2, most)
		require.Equal(t, 8, total)
	})
}

func TestCommands(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x := w.executor("x", nil)
		var l log
		x.Handle("h", func(ctx context.Context, r *executor.Run) error {
			l.add("%s %s", r.Trigger, r.Params["k"])
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			return nil
		})
		require.NoError(t, x.Define(job("j", 0, func(j *jobs.Job) { j.Spec.Schedule = nil })))
		w.run(x.Run)
		time.Sleep(time.Second)
		k := store.JobKey{Namespace: "n", Name: "j"}
		run := store.Command{Verb: store.VerbRun, Trigger: jobs.ByHand, Tick: time.Now().UnixMilli(), Params: map[string]string{"k": "v"}}
		require.NoError(t, w.st.PutCommands(t.Context(), k, []int{0}, "click", run))
		require.NoError(t, w.st.PutCommands(t.Context(), k, []int{0}, "click", run), "a retried click")
		time.Sleep(10 * time.Second)
		require.NoError(t, w.st.PutCommands(t.Context(), k, []int{0}, "click", run), "even after its end")
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"manual v"}, l.all())
		require.Equal(t, jobs.Succeeded, w.record("j", 0).Last.Phase)

		require.NoError(t, w.st.PutCommands(t.Context(), k, []int{0}, "second", run))
		time.Sleep(time.Second)
		require.NoError(t, w.st.PutCommands(t.Context(), k, []int{0}, "stop", store.Command{Verb: store.VerbStop}))
		time.Sleep(time.Second)
		require.Equal(t, jobs.Stopped, w.record("j", 0).Last.Phase)
		cmds, err := w.st.ReadCommands(t.Context(), k)
		require.NoError(t, err)
		for _, c := range cmds {
			require.NotEmpty(t, c.Command.Settled, c.ID)
		}
	})
}

func TestBadConfigurationIsRefusedWithEveryMistake(t *testing.T) {
	_, err := executor.New(executor.Config{ID: "a/b", LeaseTTL: time.Second, Capacity: -1, Namespaces: []string{"Bad"}})
	for _, part := range []string{"no etcd endpoint", "a/b", "at least 2s", "negative", "Bad"} {
		require.ErrorContains(t, err, part)
	}
}

// G9: the store is away for less than the lease, then for longer.
func TestAShortOutageOfTheStoreStopsNoHandlerAndALongOneEndsThemCleanly(t *testing.T) {
	for _, c := range []struct {
		outage time.Duration
		want   []string
	}{
		{3 * time.Second, []string{"attempt 1 of 0 ended"}},
		{12 * time.Second, []string{"attempt 1 of 0: executor lost its lease", "attempt 2 of 0 ended"}},
	} {
		t.Run(c.outage.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				x := w.executor("x", nil)
				var l log
				x.Handle("h", func(ctx context.Context, r *executor.Run) error {
					select {
					case <-ctx.Done():
						l.add("attempt %d of %d: %v", r.Attempt, r.Tick.Second(), context.Cause(ctx))
					case <-time.After(8 * time.Second):
						l.add("attempt %d of %d ended", r.Attempt, r.Tick.Second())
					}
					return ctx.Err()
				})
				require.NoError(t, x.Define(job("j", time.Minute, nil)))
				w.run(x.Run)
				time.Sleep(62 * time.Second) // the tick :00 of the next minute runs for two seconds
				w.kv.SetFault(func(string, string) memkv.Fault { return memkv.Fault{Before: kv.ErrUnknown} })
				time.Sleep(c.outage)
				w.kv.SetFault(nil)
				time.Sleep(40 * time.Second)
				require.Equal(t, c.want, l.all())
				require.Equal(t, jobs.Succeeded, w.record("j", 0).Last.Phase)
			})
		})
	}
}
