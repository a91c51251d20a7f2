package scheduler_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/lease"
	"github.com/rota-dev/rota/scheduler"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
	"github.com/rota-dev/rota/store/memkv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type world struct {
	t  *testing.T
	kv *memkv.Store
	st *store.Store
}

func bubble(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, kv: memkv.New()}
		w.st = store.New(w.kv, "")
		require.NoError(t, w.st.EnsureNamespace(t.Context(), "n"))
		f(w)
		time.Sleep(time.Hour) // whatever leases are left run out
	})
}

func (w *world) scheduler(name string) (s *scheduler.Scheduler, end func()) {
	s = scheduler.New(scheduler.Config{Store: w.st, Server: name, Log: slog.New(slog.DiscardHandler), Clock: lease.Virtual})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	var once sync.Once
	return s, func() { once.Do(func() { cancel(); <-done }) }
}

// executor makes an executor present that does nothing.
func (w *world) executor(id string) (gone func()) {
	lid, _, err := w.kv.Grant(context.Background(), 24*time.Hour)
	require.NoError(w.t, err)
	r, err := kv.Commit(context.Background(), w.kv, w.st.RegisterTxn([]string{"n"}, jobs.Holder{Executor: id, Incarnation: id + "-" + lease.NewID()},
		store.Presence{State: store.Ready, Shell: true, Started: time.Now()}, lid))
	require.NoError(w.t, err)
	require.True(w.t, r.Applied)
	return func() { require.NoError(w.t, w.kv.Revoke(context.Background(), lid)) }
}

func (w *world) job(name string, shards int, change func(*jobs.Job)) {
	j := &jobs.Job{APIVersion: jobs.APIVersion, Kind: "Job", Metadata: jobs.Metadata{Namespace: "n", Name: name}, Spec: jobs.Spec{
		Schedule: &jobs.Schedule{Every: jobs.Duration(10 * time.Second)}, Shards: jobs.Shards{Count: shards}, Run: jobs.RunSpec{Shell: "true"},
	}}
	if change != nil {
		change(j)
	}
	j.Stamp(nil, time.Now())
	_, err := w.st.PutJob(context.Background(), j, 0)
	require.NoError(w.t, err)
}

func (w *world) owners(job string) map[string]string {
	as, err := w.st.ReadAssignments(context.Background(), "n")
	require.NoError(w.t, err)
	out := map[string]string{}
	for _, a := range as {
		if a.Name == job {
			out[a.Executor] = a.Assignment.Shards.String()
		}
	}
	return out
}

func TestShardsFollowExecutors(t *testing.T) {
	bubble(t, func(w *world) {
		_, end := w.scheduler("s")
		defer end()
		goneA := w.executor("a")
		defer w.executor("b")()
		w.job("j", 4, nil)
		time.Sleep(time.Second)
		require.Equal(t, map[string]string{"a": "0,2", "b": "1,3"}, w.owners("j"))
		goneA()
		time.Sleep(time.Second)
		require.Equal(t, map[string]string{"b": "0-3"}, w.owners("j"))
		require.NoError(t, w.st.PutDrain(context.Background(), "n", "b", store.Drain{}))
		defer w.executor("c")()
		time.Sleep(time.Second)
		require.Equal(t, map[string]string{"c": "0-3"}, w.owners("j"))
	})
}

func TestWithoutAnyExecutorTheLastOwnersAreKeptForTheirReturn(t *testing.T) {
	bubble(t, func(w *world) {
		_, end := w.scheduler("s")
		defer end()
		gone := w.executor("a")
		w.job("j", 2, nil)
		time.Sleep(time.Second)
		gone()
		time.Sleep(time.Second)
		require.Equal(t, map[string]string{"a": "0-1"}, w.owners("j"))
	})
}

// S1: the leader goes; another one takes over with nothing but the store.
func TestLeadershipIsHandedOver(t *testing.T) {
	bubble(t, func(w *world) {
		a, endA := w.scheduler("a")
		time.Sleep(time.Second)
		b, endB := w.scheduler("b")
		defer endB()
		time.Sleep(time.Second)
		require.True(t, a.Leading())
		require.False(t, b.Leading())
		endA()
		time.Sleep(time.Second)
		require.True(t, b.Leading(), "a clean end gives the term back")
		w.executor("x")
		w.job("j", 1, nil)
		time.Sleep(time.Second)
		require.Equal(t, map[string]string{"x": "0"}, w.owners("j"))
	})
}

// S2, S3: whatever a deposed leader still sends is refused; two that believe they lead harm nothing.
func TestWritesOfADeposedLeaderAreRefused(t *testing.T) {
	bubble(t, func(w *world) {
		_, end := w.scheduler("s")
		defer end()
		w.executor("x")
		w.job("j", 1, nil)
		time.Sleep(time.Second)
		old := w.st.AssignTxn("a-term-that-ended", store.JobKey{Namespace: "n", Name: "j"}, "x", store.Assignment{}, 0)
		old.Guards = old.Guards[:1]
		r, err := kv.Commit(context.Background(), w.kv, old)
		require.NoError(t, err)
		require.False(t, r.Applied)
		require.Equal(t, map[string]string{"x": "0"}, w.owners("j"))
	})
}

func TestALeaderThatLosesItsLeaseStopsAndAnotherTermBegins(t *testing.T) {
	bubble(t, func(w *world) {
		s, end := w.scheduler("s")
		defer end()
		time.Sleep(time.Second)
		it, err := w.kv.Get(context.Background(), "/rota/v1/scheduler/leader")
		require.NoError(t, err)
		require.NoError(t, w.kv.Revoke(context.Background(), it.Lease))
		time.Sleep(2 * time.Second)
		require.True(t, s.Leading())
		again, err := w.kv.Get(context.Background(), "/rota/v1/scheduler/leader")
		require.NoError(t, err)
		require.Greater(t, again.Create, it.Create, "a new term")
		require.NotEqual(t, it.Lease, again.Lease)
	})
}

// settle writes the record of a shard as if it had run.
func (w *world) settle(job string, shard int, cursor time.Time) {
	it, err := w.st.ReadJob(context.Background(), store.JobKey{Namespace: "n", Name: job})
	require.NoError(w.t, err)
	key := fmt.Sprintf("/rota/v1/n/runs/%s/%d/%06d", job, it.UID, shard)
	_, err = kv.Commit(context.Background(), w.kv, kv.Txn{Changes: []kv.Change{{Key: key, Value: fmt.Appendf(nil, `{"cursor":%d,"nonce":"x"}`, cursor.UnixMilli())}}})
	require.NoError(w.t, err)
}

func (w *world) commands(job string) map[string]int {
	cs, err := w.st.ReadCommands(context.Background(), store.JobKey{Namespace: "n", Name: job})
	require.NoError(w.t, err)
	out := map[string]int{}
	for _, c := range cs {
		out[time.UnixMilli(c.Command.Tick).UTC().Format(time.TimeOnly)]++
	}
	return out
}

func TestADownstreamJobIsHandedEachTickOnceAllShardsHaveEndedIt(t *testing.T) {
	bubble(t, func(w *world) {
		_, end := w.scheduler("s")
		w.executor("x")
		w.job("up", 2, nil)
		w.job("down", 3, func(j *jobs.Job) { j.Spec.Schedule, j.Spec.After = nil, []string{"up"} })
		begin := time.Now()
		time.Sleep(25 * time.Second)
		require.Empty(t, w.commands("down"))
		w.settle("up", 0, begin.Add(20*time.Second))
		time.Sleep(time.Second)
		require.Empty(t, w.commands("down"), "the other shard has not ended")
		w.settle("up", 1, begin.Add(10*time.Second))
		time.Sleep(time.Second)
		require.Equal(t, map[string]int{"00:00:10": 3}, w.commands("down"))
		end()
		w.settle("up", 1, begin.Add(20*time.Second))
		_, end = w.scheduler("t") // a new leader goes on from the round
		defer end()
		time.Sleep(10 * time.Second)
		require.Equal(t, map[string]int{"00:00:10": 3, "00:00:20": 3}, w.commands("down"))
	})
}

// A leader dies after it created some commands: the next one creates the others, and those that are there stay as they are.
func TestALostAnswerHandsNoTickOverTwice(t *testing.T) {
	bubble(t, func(w *world) {
		n := 0
		var mu sync.Mutex
		w.kv.SetFault(func(verb, op string) memkv.Fault {
			mu.Lock()
			defer mu.Unlock()
			if op == "command" || op == "round" {
				if n++; n%3 == 1 {
					return memkv.Fault{After: kv.ErrUnknown}
				}
			}
			return memkv.Fault{}
		})
		_, end := w.scheduler("s")
		defer end()
		w.executor("x")
		w.job("up", 1, nil)
		w.job("down", 2, func(j *jobs.Job) { j.Spec.Schedule, j.Spec.After = nil, []string{"up"} })
		begin := time.Now()
		time.Sleep(25 * time.Second)
		w.settle("up", 0, begin.Add(30*time.Second))
		time.Sleep(time.Minute)
		require.Equal(t, map[string]int{"00:00:10": 2, "00:00:20": 2, "00:00:30": 2}, w.commands("down"))
	})
}

func TestWhatADeletedJobLeftBehindIsCollected(t *testing.T) {
	bubble(t, func(w *world) {
		_, end := w.scheduler("s")
		defer end()
		w.executor("x")
		w.job("j", 2, nil)
		time.Sleep(time.Second)
		w.settle("j", 0, time.Now())
		k := store.JobKey{Namespace: "n", Name: "j"}
		require.NoError(t, w.st.PutCommands(context.Background(), k, []int{0}, "c", store.Command{Verb: store.VerbRun}))
		it, err := w.st.ReadJob(context.Background(), k)
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		recs, _, err := w.st.ReadAllRecords(context.Background(), "n", "")
		require.NoError(t, err)
		require.Len(t, recs, 1, "a live job's records stay")
		require.NoError(t, w.st.DeleteJob(context.Background(), k, it.Mod))
		time.Sleep(5 * time.Minute)
		recs, _, err = w.st.ReadAllRecords(context.Background(), "n", "")
		require.NoError(t, err)
		require.Empty(t, recs)
		require.Empty(t, w.commands("j"))
		require.Empty(t, w.owners("j"))
	})
}

func TestPerExecutorNumbersGoWithTheirExecutor(t *testing.T) {
	bubble(t, func(w *world) {
		_, end := w.scheduler("s")
		defer end()
		gone := w.executor("a")
		defer w.executor("b")()
		w.job("j", 0, func(j *jobs.Job) { j.Spec.Shards = jobs.Shards{PerExecutor: true} })
		time.Sleep(time.Second)
		require.Equal(t, map[string]string{"a": "0", "b": "1"}, w.owners("j"))
		gone()
		time.Sleep(time.Second)
		require.Equal(t, map[string]string{"b": "1"}, w.owners("j"), "nobody else is given the lost one's number")
		defer w.executor("c")()
		time.Sleep(time.Second)
		require.Equal(t, map[string]string{"b": "1", "c": "0"}, w.owners("j"))
	})
}
