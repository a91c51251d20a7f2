package jobs_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rota-dev/rota/jobs"
)

var start = time.Date(2026, 11, 9, 0, 0, 0, 0, time.UTC)

func every(d time.Duration, change func(*jobs.Schedule)) *jobs.Job {
	s := &jobs.Schedule{Every: jobs.Duration(d)}
	if change != nil {
		change(s)
	}
	return &jobs.Job{Metadata: jobs.Metadata{Namespace: "n", Name: "j"}, Spec: jobs.Spec{Schedule: s, Shards: jobs.Shards{Count: 1}}}
}

func timeline(t require.TestingT, j *jobs.Job) *jobs.Timeline {
	tl, err := j.Timeline()
	require.NoError(t, err)
	return tl
}

func at(d time.Duration) int64 { return start.Add(d).UnixMilli() }

func TestTicksBeginAfterTheDefinitionAndKeepTheirOwnSchedule(t *testing.T) {
	j := every(10*time.Second, nil)
	j.Stamp(nil, start.Add(5*time.Second))
	faster := every(4*time.Second, nil)
	faster.Stamp(j, start.Add(25*time.Second))
	off, no := every(4*time.Second, nil), false
	off.Spec.Enabled = &no
	off.Stamp(faster, start.Add(33*time.Second))
	on := every(4*time.Second, nil)
	on.Stamp(off, start.Add(60*time.Second))
	tl := timeline(t, on)
	var got []jobs.Tick
	for ms := tl.Begin(0); len(got) < 6; {
		tick, ok := tl.Next(ms)
		require.True(t, ok)
		got, ms = append(got, tick), tick.At
	}
	want := []jobs.Tick{
		{At: at(10 * time.Second), Superseded: true}, {At: at(20 * time.Second), Superseded: true},
		{At: at(28 * time.Second), Superseded: true}, {At: at(32 * time.Second), Superseded: true},
		{At: at(64 * time.Second)}, {At: at(68 * time.Second)},
	}
	for i := range want {
		want[i].Due = want[i].At
	}
	require.Equal(t, want, got)
}

func TestANewShardHasNoPast(t *testing.T) {
	j := every(time.Minute, nil)
	j.Stamp(nil, start)
	more := every(time.Minute, nil)
	more.Spec.Shards.Count = 4
	more.Stamp(j, start.Add(time.Hour))
	tl := timeline(t, more)
	require.Equal(t, at(0), tl.Begin(0))
	require.Equal(t, at(time.Hour), tl.Begin(3))
}

func TestWindowsAreInTheZoneOfTheJobAndWrapMidnight(t *testing.T) {
	j := every(time.Hour, func(s *jobs.Schedule) {
		s.Timezone = "Asia/Shanghai"
		s.Exclude = []jobs.Window{{Times: "23:30/01:30"}, {Dates: "2026-11-11", Times: "10:00/12:00"}, {Dates: "2026-12-24/2026-12-26"}}
	})
	j.Stamp(nil, start.Add(-time.Hour))
	tl := timeline(t, j)
	excluded := func(local string) bool {
		loc := time.FixedZone("", 8*3600)
		ts, err := time.ParseInLocation("2006-01-02 15:04", local, loc)
		require.NoError(t, err)
		tick, ok := tl.Next(ts.UnixMilli() - 1)
		require.True(t, ok)
		require.Equal(t, ts.UnixMilli(), tick.At)
		return tick.Excluded
	}
	for local, want := range map[string]bool{
		"2026-11-10 23:00": false, "2026-11-11 00:00": true, "2026-11-11 01:00": true, "2026-11-11 02:00": false,
		"2026-11-11 10:00": true, "2026-11-11 11:00": true, "2026-11-11 12:00": false, "2026-11-12 10:00": false,
		"2026-12-24 15:00": true, "2026-12-26 22:00": true, "2026-12-27 02:00": false,
	} {
		require.Equal(t, want, excluded(local), local)
	}
}

func TestJitterIsStableAndWithinItsBound(t *testing.T) {
	j := every(time.Minute, func(s *jobs.Schedule) { s.Jitter = jobs.Duration(10 * time.Second) })
	tl := timeline(t, j)
	seen := map[int64]bool{}
	for shard := range 100 {
		d := tl.Jitter("n/j", shard)
		require.Equal(t, d, tl.Jitter("n/j", shard))
		require.GreaterOrEqual(t, d, int64(0))
		require.LessOrEqual(t, d, int64(10_000))
		seen[d] = true
	}
	require.Greater(t, len(seen), 80)
}

// TestEveryTickIsAccountedForExactlyOnce walks any timeline with any pauses of its owner: each tick fires or stands in one fact.
func TestEveryTickIsAccountedForExactlyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := rapid.SampledFrom([]jobs.Misfire{jobs.MisfireOnce, jobs.MisfireAll, jobs.MisfireNone}).Draw(t, "policy")
		j := every(time.Duration(rapid.IntRange(1, 20).Draw(t, "every"))*time.Second, func(s *jobs.Schedule) {
			s.Misfire = policy
			s.MisfireWithin = jobs.Duration(time.Duration(rapid.IntRange(1, 600).Draw(t, "within")) * time.Second)
			if rapid.Bool().Draw(t, "exclude") {
				s.Exclude = []jobs.Window{{Times: "00:05/00:09"}}
			}
		})
		j.Stamp(nil, start)
		if rapid.Bool().Draw(t, "edited") {
			n := every(time.Duration(rapid.IntRange(1, 20).Draw(t, "then"))*time.Second, func(s *jobs.Schedule) { s.Misfire = policy })
			n.Stamp(j, start.Add(time.Duration(rapid.IntRange(1, 900).Draw(t, "at"))*time.Second))
			j = n
		}
		tl := timeline(t, j)
		counts := map[int64]int{}
		cursor, now := tl.Begin(0), at(0)
		for now < at(20*time.Minute) {
			now += int64(rapid.IntRange(1, 60_000).Draw(t, "pause"))
			for {
				d := tl.Account(cursor, now, 0)
				before := cursor
				for _, f := range d.Facts {
					n := int64(0)
					for ms := f.From - 1; ; {
						tick, ok := tl.Next(ms)
						if !ok || tick.At > f.To {
							break
						}
						counts[tick.At]++
						n, ms = n+1, tick.At
					}
					require.Equal(t, n, f.Count, "the count is exact")
					require.Greater(t, f.From, cursor)
					cursor = f.To
				}
				if d.Fire != nil {
					require.Greater(t, d.Fire.At, cursor)
					counts[d.Fire.At]++
					cursor = d.Fire.At
				}
				if cursor == before {
					break
				}
			}
		}
		for ms := tl.Begin(0); ; {
			tick, ok := tl.Next(ms)
			if !ok || tick.At > now {
				break
			}
			require.Equal(t, 1, counts[tick.At], "tick %d", tick.At)
			ms = tick.At
		}
	})
}

func TestLongAbsencesAreAccountedForInBoundedSteps(t *testing.T) {
	j := every(time.Second, nil)
	j.Stamp(nil, start)
	tl := timeline(t, j)
	cursor, now := tl.Begin(0), at(7*24*time.Hour)
	total, steps := int64(0), 0
	for {
		d := tl.Account(cursor, now, 0)
		for _, f := range d.Facts {
			total += f.Count
			cursor = f.To
		}
		steps++
		if !d.More {
			require.NotNil(t, d.Fire, "the newest runs")
			break
		}
	}
	require.Equal(t, int64(7*24*3600-1), total)
	require.Less(t, steps, 10)
}

func TestCheckStepKnowsTheRules(t *testing.T) {
	armed := &jobs.Record{Cursor: 10, Run: &jobs.Run{ID: "r", Tick: 20, Trigger: jobs.BySchedule, Attempt: 1, Phase: jobs.Armed}}
	ended := *armed
	ended.End(jobs.Succeeded, "", 30)
	require.NoError(t, jobs.CheckStep(armed, &ended))
	require.Equal(t, int64(20), ended.Cursor)
	require.Error(t, jobs.CheckStep(&ended, &jobs.Record{Cursor: 10}), "the cursor goes back")
	require.Error(t, jobs.CheckStep(armed, &jobs.Record{Cursor: 30}), "a tick passes unrecorded")
	running := *armed
	run := *armed.Run
	run.Phase = jobs.Running
	running.Run = &run
	require.Error(t, jobs.CheckStep(&running, &jobs.Record{Cursor: 10}), "a run vanishes")
	require.NoError(t, jobs.CheckStep(armed, &jobs.Record{Cursor: 10}), "one that never started may wait for its tick again")
}

func TestRunIDsComeApartAgain(t *testing.T) {
	id := jobs.RunID("order-auto.cancel", 12345, 7, 1795347402000, "")
	job, uid, shard, err := jobs.ParseRunID(id)
	require.NoError(t, err)
	require.Equal(t, "order-auto.cancel", job)
	require.Equal(t, int64(12345), uid)
	require.Equal(t, 7, shard)
	for _, bad := range []string{"", "x", "a_b_c_d", "../x_1_2_3", "a_1_2"} {
		_, _, _, err := jobs.ParseRunID(bad)
		require.Error(t, err, bad)
	}
}
