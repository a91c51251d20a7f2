package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/store"
)

// The jobs append a line at each start, end, and, for the long one, sign of life. A file per shard, opened for appending: the
// order of lines is the order of events. /proc/uptime is CLOCK_BOOTTIME and costs no process.
const jobsYAML = `
apiVersion: rota/v1
kind: Job
metadata: {name: tick}
spec:
  schedule: {every: 1s, misfire: all, overlap: queue}
  shards: 40
  run:
    env: {OUT: %[1]s}
    shell: |
      read up _ < /proc/uptime; echo "S $ROTA_SHARD $ROTA_TICK_MS $ROTA_ATTEMPT $ROTA_TOKEN $up $ROTA_EXECUTOR" >> $OUT/tick.$ROTA_SHARD
      sleep 0.05
      read up _ < /proc/uptime; echo "E $ROTA_SHARD $ROTA_TICK_MS $ROTA_ATTEMPT $ROTA_TOKEN $up $ROTA_EXECUTOR" >> $OUT/tick.$ROTA_SHARD
---
apiVersion: rota/v1
kind: Job
metadata: {name: long}
spec:
  schedule: {every: 5s, misfire: all, overlap: queue}
  shards: 6
  run:
    env: {OUT: %[1]s}
    shell: |
      trap '' TERM
      read up _ < /proc/uptime; echo "S $ROTA_SHARD $ROTA_TICK_MS $ROTA_ATTEMPT $ROTA_TOKEN $up $ROTA_EXECUTOR" >> $OUT/long.$ROTA_SHARD
      n=0; while [ $n -lt 35 ]; do
        (setsid sh -c 'sleep 0.1; read up _ < /proc/uptime; echo "A $ROTA_SHARD $ROTA_TICK_MS $ROTA_ATTEMPT $ROTA_TOKEN $up $ROTA_EXECUTOR" >> $OUT/long.$ROTA_SHARD')
        n=$((n+1)); done
      read up _ < /proc/uptime; echo "E $ROTA_SHARD $ROTA_TICK_MS $ROTA_ATTEMPT $ROTA_TOKEN $up $ROTA_EXECUTOR" >> $OUT/long.$ROTA_SHARD
`

type mark struct {
	kind     string
	shard    int
	tick     int64
	attempt  int
	token    int64
	at       time.Duration // CLOCK_BOOTTIME
	executor string
}

func readMarks(t *testing.T, dir, job string) map[int][]mark {
	out := map[int][]mark{}
	files, err := filepath.Glob(filepath.Join(dir, job+".*"))
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			var m mark
			var up float64
			_, err := fmt.Sscan(line, &m.kind, &m.shard, &m.tick, &m.attempt, &m.token, &up, &m.executor)
			require.NoError(t, err, line)
			m.at = time.Duration(up * float64(time.Second))
			out[m.shard] = append(out[m.shard], m)
		}
	}
	return out
}

func uptime(t *testing.T) time.Duration {
	b, err := os.ReadFile("/proc/uptime")
	require.NoError(t, err)
	up, err := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
	require.NoError(t, err)
	return time.Duration(up * float64(time.Second))
}

// recorder follows the records and remembers which ticks were recorded as not run.
type recorder struct {
	mu    sync.Mutex
	facts map[string]map[int64]string // job/shard -> tick -> phase(reason)
	seen  int
}

func (r *recorder) run(ctx context.Context, st *store.Store, step map[string]int64) {
	st.Follow(ctx, "default", store.Records, "", func(u store.Update) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, it := range u.Items {
			rec, ok := it.(store.RecordItem)
			if !ok || rec.Deleted {
				continue
			}
			r.seen++
			key := fmt.Sprintf("%s/%d", rec.Name, rec.Shard)
			if r.facts[key] == nil {
				r.facts[key] = map[int64]string{}
			}
			for _, f := range rec.Record.Facts {
				for at := f.From; at <= f.To; at += step[rec.Name] {
					r.facts[key][at] = fmt.Sprintf("%s(%s)", f.Phase, f.Reason)
				}
			}
			if l := rec.Record.Last; l != nil && l.StartedAt == 0 {
				r.facts[key][l.Tick] = fmt.Sprintf("%s(%s)", l.Phase, l.Reason)
			}
		}
	}, nil)
}

// check holds the files of one job against the promises and returns how many starts it saw.
func check(t *testing.T, marks map[int][]mark, shards int, step, from, to int64, facts func(shard int, tick int64) string) (starts, unrun int) {
	require.Len(t, marks, shards, "every shard left traces")
	for shard, ms := range marks {
		started := map[string]bool{}
		ticks := map[int64]bool{}
		last := mark{}
		for _, m := range ms {
			require.GreaterOrEqual(t, m.token, last.token, "shard %d: G3, G4: %+v acts after %+v", shard, m, last)
			if m.kind == "S" {
				starts++
				id := fmt.Sprintf("%d#%d", m.tick, m.attempt)
				require.False(t, started[id], "shard %d: G1: %s was started twice", shard, id)
				require.Greater(t, m.token, last.token, "shard %d: G3: the token of %s did not grow", shard, id)
				started[id], ticks[m.tick] = true, true
			}
			last = m
		}
		for at := from; at <= to; at += step {
			if ticks[at] {
				continue
			}
			why := facts(shard, at)
			require.NotEmpty(t, why, "shard %d: G2: the tick %s left neither a start nor a record", shard, time.UnixMilli(at).UTC())
			t.Logf("shard %d tick %s: %s", shard, time.UnixMilli(at).UTC().Format(time.TimeOnly), why)
			unrun++
		}
	}
	return starts, unrun
}

// recovered demands that every shard that one executor ran before an instant is run by another within a limit after it.
func recovered(t *testing.T, marks map[int][]mark, victim string, at, limit time.Duration) {
	n := 0
	worst := time.Duration(0)
	for shard, ms := range marks {
		owned, again := false, time.Duration(0)
		for _, m := range ms {
			if m.kind != "S" {
				continue
			}
			if m.at <= at {
				owned = m.executor == victim
			} else if owned && m.executor != victim {
				again = m.at - at
				break
			}
		}
		if owned {
			n++
			require.NotZero(t, again, "shard %d never ran again after %s was lost", shard, victim)
			require.LessOrEqual(t, again, limit, "shard %d ran again too late", shard)
			worst = max(worst, again)
		}
	}
	require.NotZero(t, n, "%s owned nothing: nothing was tested", victim)
	t.Logf("%s: %d shards ran elsewhere, the last after %v", victim, n, worst)
}

func TestFortyShardsSurviveKillsPausesAndRestarts(t *testing.T) {
	c := newCluster(t)
	out := filepath.Join(c.dir, "out")
	require.NoError(t, os.Mkdir(out, 0o700))
	ctx, cancel := context.WithCancel(context.Background())
	rec := &recorder{facts: map[string]map[int64]string{}}
	var following sync.WaitGroup
	st := c.store()
	following.Go(func() { rec.run(ctx, st, map[string]int64{"tick": 1000, "long": 5000}) })
	defer following.Wait()
	defer cancel()
	for _, id := range []string{"x0", "x1", "x2"} {
		c.executor(id)
	}
	c.eventually(20*time.Second, "three executors", func() bool { return strings.Count(c.rota("get", "executors"), "ready") == 3 })
	c.rota("apply", "-f", c.write("jobs.yaml", fmt.Sprintf(jobsYAML, out)))
	c.eventually(20*time.Second, "all shards run", func() bool {
		marks, _ := filepath.Glob(filepath.Join(out, "*"))
		return len(marks) == 46
	})
	pass(3 * time.Second)

	killed := uptime(t)
	c.executors["x0"].kill()
	pass(ttl + 4*time.Second)

	stopped := uptime(t)
	c.executors["x1"].signal(syscall.SIGSTOP)
	pass(ttl + 4*time.Second)
	c.executors["x1"].signal(syscall.SIGCONT)
	pass(3 * time.Second)

	c.server.kill() // jobs keep firing without console and scheduler
	pass(2 * time.Second)
	c.server.start()
	pass(2 * time.Second)

	c.etcd.kill() // with its restart about as long as trust lasts: runs may be cut, ticks may not be lost
	pass(time.Second)
	c.etcd.start()
	pass(6 * time.Second)

	c.executor("x0")
	pass(5 * time.Second)

	// A clean SIGTERM loses nothing and hands its shards over at once.
	drained := uptime(t)
	c.executors["x2"].signal(syscall.SIGTERM)
	require.NoError(t, c.executors["x2"].waitExit(20*time.Second))
	pass(3 * time.Second)

	to := time.Now().Add(-2 * time.Second)
	for _, j := range []string{"tick", "long"} {
		c.eventually(30*time.Second, "the backlog is made up for", func() bool {
			var shards api.List[api.Shard]
			if json.Unmarshal([]byte(c.rota("get", "shards", j, "-o", "json")), &shards) != nil {
				return false
			}
			for _, s := range shards.Items {
				if s.Settled == nil || s.Settled.Before(to.Add(-5*time.Second)) {
					return false
				}
			}
			return true
		})
		c.rota("disable", j, "--reason", "the test is over")
	}
	pass(5 * time.Second)

	var created time.Time
	var j struct{ Status struct{ CreatedAt time.Time } }
	require.NoError(t, json.Unmarshal([]byte(c.rota("get", "job", "tick", "-o", "json")), &j))
	created = j.Status.CreatedAt
	from := created.UnixMilli()/1000*1000 + 1000
	facts := func(job string) func(int, int64) string {
		return func(shard int, tick int64) string {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			return rec.facts[fmt.Sprintf("%s/%d", job, shard)][tick]
		}
	}
	ticks := readMarks(t, out, "tick")
	starts, unrun := check(t, ticks, 40, 1000, from, to.Add(-5*time.Second).UnixMilli()/1000*1000, facts("tick"))
	t.Logf("tick: %d starts, %d ticks recorded as not run", starts, unrun)
	require.Greater(t, starts, 40*20, "a checker that has seen nothing proves nothing")
	require.LessOrEqual(t, unrun, starts/100, "misfire: all makes up for what was missed")
	long := readMarks(t, out, "long")
	starts, unrun = check(t, long, 6, 5000, from/5000*5000+5000, to.Add(-10*time.Second).UnixMilli()/5000*5000, facts("long"))
	t.Logf("long: %d starts, %d ticks recorded as not run", starts, unrun)

	recovered(t, ticks, "x0", killed, ttl+2*time.Second)
	recovered(t, ticks, "x1", stopped, ttl+2*time.Second)
	recovered(t, ticks, "x2", drained, 2*time.Second)
	for _, ms := range ticks {
		for _, m := range ms {
			if m.executor == "x1" && m.kind == "S" {
				require.False(t, m.at > stopped+ttl && m.at < stopped+ttl+3*time.Second, "a stopped executor started something: %+v", m)
			}
		}
	}
	require.NotZero(t, rec.seen)
}
