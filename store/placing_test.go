package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/shards"
	"github.com/rota-dev/rota/store"
)

const ms = time.Millisecond

// readings feeds an executor's pulse to the advice, each delivered with a delay.
func readings(skew time.Duration, delays ...time.Duration) (*store.View, store.Advice) {
	v, a := store.NewView(), store.NewAdvice()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	v.Apply(store.Update{Namespace: "n", Family: store.Executors, Items: []any{store.ExecutorItem{Namespace: "n", ID: "x", Incarnation: "i"}}})
	for _, d := range delays {
		now = now.Add(5 * time.Second)
		x := store.PulseItem{IncarnationKey: store.IncarnationKey{Namespace: "n", ID: "x", Incarnation: "i"}, Pulse: store.Pulse{Wall: now.Add(skew)}}
		u := store.Update{Namespace: "n", Family: store.Pulses, Items: []any{x}}
		a.Observe(v, u, now.Add(d))
		v.Apply(u)
	}
	return v, a
}

func TestAClockThatIsOffIsQuarantinedAndALateReadingIsNot(t *testing.T) {
	for _, c := range []struct {
		name   string
		skew   time.Duration
		delays []time.Duration
		out    bool
	}{
		{"right", 0, []time.Duration{3 * ms, 2 * ms, 4 * ms}, false},
		{"slow by 2 s", -2 * time.Second, []time.Duration{3 * ms, 2 * ms, 4 * ms}, true},
		{"slow, too few readings", -2 * time.Second, []time.Duration{3 * ms}, false},
		{"fast by 300 ms, one reading", 300 * ms, []time.Duration{3 * ms}, true},
		{"right, read by a busy server", 0, []time.Duration{300 * ms, 900 * ms, 500 * ms, 1200 * ms, 400 * ms}, false},
		{"one late reading", 0, []time.Duration{3 * ms, 2 * ms, 4 * time.Second}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, a := readings(c.skew, c.delays...)
			got := v.Candidates(a, "n")
			require.Len(t, got, 1)
			require.Equal(t, c.out, got[0].Drained != "", got[0].Drained)
		})
	}
}

// C8t: one executor has other time zone rules.
func TestAnExecutorWithOtherZoneRulesTakesNoZonedJobs(t *testing.T) {
	v := store.NewView()
	for id, zones := range map[string]string{"a": "new", "b": "old", "c": "new"} {
		v.Apply(store.Update{Namespace: "n", Family: store.Executors, Items: []any{store.ExecutorItem{
			Namespace: "n", ID: id, Incarnation: id, Presence: store.Presence{State: store.Ready, Shell: true, Zones: zones}}}})
	}
	zoned := store.JobItem{Job: &jobs.Job{Spec: jobs.Spec{
		Schedule: &jobs.Schedule{Cron: "0 0 * * *", Timezone: "Asia/Shanghai"}, Shards: jobs.Shards{Count: 6}, Run: jobs.RunSpec{Shell: "x"}}}}
	plan := shards.Make(v.Candidates(store.NewAdvice(), "n"), []shards.Job{zoned.Planned(nil)})
	require.NotContains(t, plan.Jobs[0].Owner, "b")
	zoned.Job.Spec.Schedule.Timezone = ""
	plan = shards.Make(v.Candidates(store.NewAdvice(), "n"), []shards.Job{zoned.Planned(nil)})
	require.Contains(t, plan.Jobs[0].Owner, "b")
}
