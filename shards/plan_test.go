package shards_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/shards"
)

func executors(n int) []shards.Executor {
	out := make([]shards.Executor, n)
	for i := range out {
		out[i] = shards.Executor{ID: fmt.Sprintf("x%04d", i), Shell: true}
	}
	return out
}

func shell(key string, n int, current ...string) shards.Job {
	return shards.Job{Key: key, Shards: n, Run: jobs.RunSpec{Shell: "true"}, Current: current}
}

func count(owner []string) map[string]int {
	m := map[string]int{}
	for _, o := range owner {
		m[o]++
	}
	return m
}

func TestShardsOfOneJobAreSpreadFirst(t *testing.T) {
	p := shards.Make(executors(4), []shards.Job{shell("a", 8), shell("b", 2), shell("c", 2)})
	require.Equal(t, map[string]int{"x0000": 2, "x0001": 2, "x0002": 2, "x0003": 2}, count(p.Jobs[0].Owner))
	require.Len(t, count(append(append([]string{}, p.Jobs[1].Owner...), p.Jobs[2].Owner...)), 4, "small jobs fill the idle ones")
}

func TestLosingAnExecutorMovesOnlyItsShards(t *testing.T) {
	xs := executors(3)
	first := shards.Make(xs, []shards.Job{shell("a", 9)}).Jobs[0].Owner
	p := shards.Make(xs[1:], []shards.Job{shell("a", 9, first...)}).Jobs[0]
	require.Len(t, p.Moves, 3)
	for _, m := range p.Moves {
		require.Equal(t, "x0000", m.From)
		require.Equal(t, shards.ReasonGone, m.Reason)
	}
}

func TestLosingOneOfManyExecutorsStirsUpNobodyElse(t *testing.T) {
	xs := executors(200)
	js := make([]shards.Job, 2000)
	for i := range js {
		js[i] = shell(fmt.Sprintf("j%04d", i), 20)
	}
	p := shards.Make(xs, js)
	for i := range js {
		js[i].Current = p.Jobs[i].Owner
	}
	moves := 0
	for _, j := range shards.Make(xs[1:], js).Jobs {
		for _, m := range j.Moves {
			require.Equal(t, "x0000", m.From, m.Reason)
			moves++
		}
	}
	require.Equal(t, 200, moves, "its shards, all of them")
}

func TestANewExecutorTakesItsShareAndNoMore(t *testing.T) {
	first := shards.Make(executors(2), []shards.Job{shell("a", 9)}).Jobs[0].Owner
	p := shards.Make(executors(3), []shards.Job{shell("a", 9, first...)}).Jobs[0]
	require.Len(t, p.Moves, 3)
	for _, m := range p.Moves {
		require.Equal(t, "x0002", m.To)
		require.Equal(t, shards.ReasonBalance, m.Reason)
	}
}

func TestDrainedExecutorsAreEmptied(t *testing.T) {
	xs := executors(2)
	first := shards.Make(xs, []shards.Job{shell("a", 4)}).Jobs[0].Owner
	xs[0].Drained = "is drained"
	p := shards.Make(xs, []shards.Job{shell("a", 4, first...)}).Jobs[0]
	require.Equal(t, map[string]int{"x0001": 4}, count(p.Owner))
	require.Equal(t, shards.ReasonDrained, p.Moves[0].Reason)
}

func TestPreferredExecutorsAreUsedWhileThereAreAny(t *testing.T) {
	xs := executors(3)
	xs[2].Labels = map[string]string{"pool": "pay"}
	j := shell("a", 3)
	j.Placement.Prefer = []string{"pool=pay"}
	require.Equal(t, map[string]int{"x0002": 3}, count(shards.Make(xs, []shards.Job{j}).Jobs[0].Owner))
	xs[2].Drained = "is drained"
	require.Equal(t, map[string]int{"x0000": 2, "x0001": 1}, count(shards.Make(xs, []shards.Job{j}).Jobs[0].Owner))
	j.Placement.OnlyPreferred = true
	p := shards.Make(xs, []shards.Job{j}).Jobs[0]
	require.Equal(t, shards.ReasonNoOwner, p.Unplaced)
}

func TestRefusalsSayWhy(t *testing.T) {
	j := shards.Job{Run: jobs.RunSpec{Handler: "h"}, Placement: jobs.Placement{Require: map[string]string{"zone": "a"}}}
	require.Equal(t, "has no handler h", shards.Refusal(&j, &shards.Executor{}))
	require.Equal(t, "lacks the label zone=a", shards.Refusal(&j, &shards.Executor{Handlers: []string{"h"}}))
	require.Empty(t, shards.Refusal(&j, &shards.Executor{Handlers: []string{"h"}, Labels: map[string]string{"zone": "a"}}))
	sh := shell("s", 1)
	require.Equal(t, "does not run shell commands", shards.Refusal(&sh, &shards.Executor{}))
}

func TestPerExecutorNumbersAreStable(t *testing.T) {
	xs := executors(3)
	j := shards.Job{Key: "a", PerExecutor: true, Run: jobs.RunSpec{Shell: "true"}}
	p := shards.Make(xs, []shards.Job{j}).Jobs[0]
	require.Equal(t, []string{"x0000", "x0001", "x0002"}, p.Owner)
	j.Current = p.Owner
	p = shards.Make(xs[1:], []shards.Job{j}).Jobs[0]
	require.Equal(t, []string{"", "x0001", "x0002"}, p.Owner, "the others keep their numbers")
	j.Current = p.Owner
	p = shards.Make(append([]shards.Executor{{ID: "new", Shell: true}}, xs[1:]...), []shards.Job{j}).Jobs[0]
	require.Equal(t, []string{"new", "x0001", "x0002"}, p.Owner, "a new one takes the lowest free number")
}

func TestADampedExecutorKeepsButDoesNotTake(t *testing.T) {
	xs := executors(2)
	xs[1].Damped = true
	p := shards.Make(xs, []shards.Job{shell("a", 4, "x0001")}).Jobs[0]
	require.Equal(t, map[string]int{"x0000": 3, "x0001": 1}, count(p.Owner))
}

func TestManySmallJobsShareANewExecutor(t *testing.T) {
	js := make([]shards.Job, 10)
	for i := range js {
		js[i] = shell(fmt.Sprintf("j%d", i), 1, "x0000")
	}
	p := shards.Make(executors(2), js)
	n := map[string]int{}
	for _, j := range p.Jobs {
		n[j.Owner[0]]++
	}
	require.Equal(t, map[string]int{"x0000": 5, "x0001": 5}, n)
}

func TestPlansHoldTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := make([]shards.Executor, rapid.IntRange(0, 6).Draw(t, "executors"))
		for i := range xs {
			xs[i] = shards.Executor{
				ID: fmt.Sprintf("x%d", i), Shell: rapid.Bool().Draw(t, "shell"), Capacity: rapid.IntRange(0, 3).Draw(t, "capacity"),
				Labels: map[string]string{"zone": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone")},
			}
			if rapid.IntRange(0, 4).Draw(t, "drained") == 0 {
				xs[i].Drained = "is drained"
			}
		}
		js := make([]shards.Job, rapid.IntRange(1, 4).Draw(t, "jobs"))
		for i := range js {
			js[i] = shell(fmt.Sprintf("j%d", i), rapid.IntRange(1, 12).Draw(t, "shards"))
			if rapid.Bool().Draw(t, "require") {
				js[i].Placement.Require = map[string]string{"zone": "a"}
			}
			for range rapid.IntRange(0, js[i].Shards).Draw(t, "placed") {
				js[i].Current = append(js[i].Current, rapid.SampledFrom([]string{"", "x0", "x1", "x2", "gone"}).Draw(t, "owner"))
			}
		}
		p := shards.Make(xs, js)
		require.Equal(t, p, shards.Make(xs, js), "deterministic")
		byID := map[string]*shards.Executor{}
		for i := range xs {
			byID[xs[i].ID] = &xs[i]
		}
		for i := range js {
			var eligible []*shards.Executor
			for e := range xs {
				if shards.Refusal(&js[i], &xs[e]) == "" {
					eligible = append(eligible, &xs[e])
				}
			}
			n := count(p.Jobs[i].Owner)
			if len(eligible) > 0 {
				require.Zero(t, n[""], "nothing is unplaced that could be placed")
				for _, a := range eligible {
					for _, b := range eligible {
						ca, cb := max(a.Capacity, 1), max(b.Capacity, 1)
						require.False(t, n[a.ID] > 0 && (2*n[b.ID]+1)*ca < (2*n[a.ID]-1)*cb, "%s has %d/%d, %s %d/%d: not within one unit", a.ID, n[a.ID], ca, b.ID, n[b.ID], cb)
					}
				}
			} else {
				require.Equal(t, js[i].Shards, n[""])
				require.NotEmpty(t, p.Jobs[i].Unplaced)
			}
			for _, o := range p.Jobs[i].Owner {
				if o != "" {
					require.Empty(t, shards.Refusal(&js[i], byID[o]))
				}
			}
			js[i].Current = p.Jobs[i].Owner
		}
		again := shards.Make(xs, js)
		for i := range js {
			require.Empty(t, again.Jobs[i].Moves, "a plan is stable under its own outcome: job %d", i)
		}
	})
}

func BenchmarkPlan(b *testing.B) {
	const nx, nj, ns = 1000, 10000, 100
	xs := executors(nx)
	fresh := func() []shards.Job {
		js := make([]shards.Job, nj)
		for i := range js {
			js[i] = shell(fmt.Sprintf("j%05d", i), ns)
		}
		return js
	}
	js := fresh()
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			shards.Make(xs, fresh())
		}
	})
	p := shards.Make(xs, js)
	for i := range js {
		js[i].Current = p.Jobs[i].Owner
	}
	b.Run("lose-one", func(b *testing.B) {
		for b.Loop() {
			q := shards.Make(xs[1:], js)
			moves := 0
			for i := range q.Jobs {
				moves += len(q.Jobs[i].Moves)
			}
			b.ReportMetric(float64(moves), "moves")
		}
	})
}
