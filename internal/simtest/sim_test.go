package simtest_test

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/executor/engine"
	"github.com/rota-dev/rota/internal/simtest"
	"github.com/rota-dev/rota/lease"
)

var (
	seeds = flag.Int("seeds", 200, "how many seeds to play")
	first = flag.Uint64("first", 1, "the first seed")
	seed  = flag.Uint64("seed", 0, "play this seed alone and print it (TestSeed)")
)

// play runs seeds until one shows a violation or all are done; it returns the first violating seed.
func play(n int, from uint64, opt simtest.Options) (bad uint64, why []string, worlds, starts, faults int64) {
	var next, found atomic.Uint64
	var nWorlds, nStarts, nFaults atomic.Int64
	var mu sync.Mutex
	next.Store(from)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for found.Load() == 0 {
				s := next.Add(1) - 1
				if s >= from+uint64(n) {
					return
				}
				o := opt
				o.Seed = s
				w, v := simtest.Run(o)
				nWorlds.Add(1)
				nStarts.Add(int64(w.Starts))
				for _, k := range w.Faults {
					nFaults.Add(int64(k))
				}
				if len(v) > 0 {
					mu.Lock()
					if found.CompareAndSwap(0, s) {
						bad, why = s, v
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return bad, why, nWorlds.Load(), nStarts.Load(), nFaults.Load()
}

func TestNoFaultBreaksAPromise(t *testing.T) {
	n := *seeds
	bad, why, worlds, starts, faults := play(n, *first, simtest.Options{})
	t.Logf("%d worlds, %d starts, %d faults", worlds, starts, faults)
	require.Zero(t, bad, "seed %d: %v\nreplay: go test ./internal/simtest -run TestSeed -seed %d -v", bad, why, bad)
	require.Greater(t, starts, int64(n)*20, "a checker that has seen nothing proves nothing")
	require.Greater(t, faults, int64(n)*5)
}

// TestEveryMutantIsCaught plants one known bug at a time. A checker that catches nothing proves nothing.
func TestEveryMutantIsCaught(t *testing.T) {
	for _, c := range []struct {
		name string
		opt  simtest.Options
	}{
		{"no nonce", simtest.Options{Engine: engine.MutantNoNonce}},
		{"ambiguous is lost", simtest.Options{Engine: engine.MutantAmbiguousLost}},
		{"ambiguous is won", simtest.Options{Engine: engine.MutantAmbiguousWon}},
		{"takeover from the living", simtest.Options{Engine: engine.MutantEagerTakeover}},
		{"finish without compare", simtest.Options{Engine: engine.MutantBlindFinish}},
		{"cursor moves without a record", simtest.Options{Engine: engine.MutantSilentSkip}},
		{"no cursor", simtest.Options{Engine: engine.MutantNoCursor}},
		{"commit survives the incarnation", simtest.Options{Engine: engine.MutantCrossLife}},
		{"takeover keeps the attempt", simtest.Options{Engine: engine.MutantSameAttempt}},
		{"trust from receive time", simtest.Options{Lease: lease.MutantReceiveTime}},
		{"revive after fencing", simtest.Options{Lease: lease.MutantRevive}},
		{"no shim", simtest.Options{NoShim: true}},
		{"shared registration key", simtest.Options{SharedKey: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad, why, worlds, _, _ := play(3000, 1, c.opt)
			require.NotZero(t, bad, "the checkers did not find this bug in %d worlds", worlds)
			t.Logf("found by seed %d after %d worlds: %s", bad, worlds, why[0])
		})
	}
}

func TestJobsKeepFiringWithoutAnyScheduler(t *testing.T) {
	for s := range uint64(20) {
		w, why := simtest.Run(simtest.Options{Seed: s, NoFaults: true, NoJobEdits: true, NoSchedulers: 12 * time.Second, Duration: 10 * time.Minute})
		for _, v := range why {
			require.Contains(t, v, "after:", "only chains need a scheduler") // G8
		}
		require.Greater(t, w.Starts, 4*100)
	}
}

func TestOneSeedIsOneHistory(t *testing.T) {
	var a, b []string
	simtest.Run(simtest.Options{Seed: 42, Trace: func(s string) { a = append(a, s) }})
	simtest.Run(simtest.Options{Seed: 42, Trace: func(s string) { b = append(b, s) }})
	require.Equal(t, a, b)
	require.Greater(t, len(a), 100)
}

func TestSeed(t *testing.T) {
	if *seed == 0 {
		t.Skip("give -seed N to print one history")
	}
	_, why := simtest.Run(simtest.Options{Seed: *seed, Trace: func(s string) { fmt.Println(s) }})
	require.Empty(t, why)
}
