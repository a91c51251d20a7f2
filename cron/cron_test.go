package cron_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/cron"
)

func parse(t testing.TB, expr, zone string) *cron.Schedule {
	t.Helper()
	loc, err := cron.Zone(zone)
	require.NoError(t, err)
	s, err := cron.Parse(expr, loc)
	require.NoError(t, err)
	return s
}

// between lists the ticks in [from, to).
func between(t testing.TB, s *cron.Schedule, from, to time.Time) []time.Time {
	t.Helper()
	var out []time.Time
	for at := from.Add(-time.Second); ; {
		n, ok := s.Next(at)
		if !ok || !n.Before(to) {
			return out
		}
		require.True(t, n.After(at), "strictly increasing")
		out, at = append(out, n), n
	}
}

func TestAGapDayFiresOnceAtTheFirstInstantAfterTheGap(t *testing.T) {
	for _, c := range []struct{ expr, zone, day, want string }{
		{"30 2 * * *", "America/New_York", "2026-03-08", "2026-03-08T03:00:00-04:00"},
		{"0 0 * * *", "Africa/Cairo", "2026-04-24", "2026-04-24T01:00:00+03:00"},
		{"0 0 * * *", "America/Sao_Paulo", "2018-11-04", "2018-11-04T01:00:00-02:00"},
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-04", "2026-10-04T02:30:00+11:00"},
	} {
		s := parse(t, c.expr, c.zone)
		loc, _ := cron.Zone(c.zone)
		from, _ := time.ParseInLocation("2006-01-02", c.day, loc)
		got := between(t, s, from.Add(-time.Hour), from.Add(22*time.Hour))
		want, _ := time.Parse(time.RFC3339, c.want)
		require.Equal(t, []time.Time{want.UTC()}, got, "%s %s", c.expr, c.zone)
	}
}

func TestAnOverlapFiresAFixedTimeOnceAndAWildcardHourEveryRealHour(t *testing.T) {
	for _, c := range []struct {
		expr, zone, day string
		want            int
		first           string
	}{
		{"30 1 * * *", "America/New_York", "2026-11-01", 1, "2026-11-01T01:30:00-04:00"},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-05", 1, "2026-04-05T01:45:00+11:00"},
		{"0 * * * *", "America/New_York", "2026-11-01", 25, "2026-11-01T00:00:00-04:00"},
		{"0 * * * *", "America/New_York", "2026-03-08", 23, "2026-03-08T00:00:00-05:00"},
	} {
		s := parse(t, c.expr, c.zone)
		loc, _ := cron.Zone(c.zone)
		from, _ := time.ParseInLocation("2006-01-02", c.day, loc)
		got := between(t, s, from, from.AddDate(0, 0, 1))
		require.Len(t, got, c.want, "%s %s", c.expr, c.zone)
		first, _ := time.Parse(time.RFC3339, c.first)
		require.Equal(t, first.UTC(), got[0])
	}
}

func TestASkippedDayFiresAfterItAndADoubledDayOnce(t *testing.T) {
	s := parse(t, "30 12 30 12 *", "Pacific/Apia")
	n, ok := s.Next(time.Date(2011, 1, 1, 0, 0, 0, 0, time.UTC))
	require.True(t, ok)
	require.Equal(t, "2011-12-31T00:00:00+14:00", n.In(must(cron.Zone("Pacific/Apia"))).Format(time.RFC3339))

	s = parse(t, "0 12 * * *", "Pacific/Kwajalein") // moved back 23 hours on 30 September 1969
	got := between(t, s, time.Date(1969, 9, 28, 0, 0, 0, 0, time.UTC), time.Date(1969, 10, 4, 0, 0, 0, 0, time.UTC))
	seen := map[string]int{}
	for _, g := range got {
		seen[g.In(must(cron.Zone("Pacific/Kwajalein"))).Format("01-02")]++
	}
	for d, n := range seen {
		require.Equal(t, 1, n, d)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRareDatesAreFoundAndImpossibleOnesRefused(t *testing.T) {
	at := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	n, ok := parse(t, "0 0 29 2 *", "").Next(at(2097))
	require.True(t, ok)
	require.Equal(t, "2104-02-29", n.Format(time.DateOnly))
	monday := parse(t, "0 0 * 2 1", "")
	for at := at(2025); ; {
		n, ok := monday.Next(at)
		require.True(t, ok)
		if n.Day() == 29 {
			require.Equal(t, "2044-02-29", n.Format(time.DateOnly))
			break
		}
		at = n
	}
	for _, e := range []string{"0 0 30 2 *", "0 0 31 4,6 *", "0 0 31 2,4,6,9,11 *"} {
		_, err := cron.Parse(e, time.UTC)
		require.ErrorIs(t, err, cron.ErrNever, e)
	}
}

func TestDialect(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a Thursday
	for _, c := range []struct{ expr, want string }{
		{"0 0 13 * 5", "2026-01-02T00:00:00Z"}, // either day field
		{"0 0 13 * *", "2026-01-13T00:00:00Z"},
		{"0 0 * * 7", "2026-01-04T00:00:00Z"},
		{"0 0 * * SUN", "2026-01-04T00:00:00Z"},
		{"0 0 * * 6-7", "2026-01-03T00:00:00Z"},
		{"0 0 ? * 1-7/2", "2026-01-02T00:00:00Z"}, // Mon Wed Fri Sun
		{"*/20 * * * * *", "2026-01-01T00:00:20Z"},
		{"@hourly", "2026-01-01T01:00:00Z"},
		{"@weekly", "2026-01-04T00:00:00Z"},
		{"0 0 1 JUL *", "2026-07-01T00:00:00Z"},
		{"  5   4 * * * ", "2026-01-01T04:05:00Z"},
	} {
		n, ok := parse(t, c.expr, "").Next(start)
		require.True(t, ok, c.expr)
		require.Equal(t, c.want, n.Format(time.RFC3339), c.expr)
	}
	for _, e := range []string{
		"", " ", "* * * *", "* * * * * * *", "*/0 * * * *", "1-0 * * * *", "60 * * * *", "@every -5s", "@every 1ns", "@nope", "TZ=UTC * * * * *", "TZ=",
		"CRON_TZ=x * * * * *", "0 0 L * *", "0 0 * * 5L", "0 0 15W * *", "0 0 * * 5#2", "٣ * * * *", strings.Repeat("1,", 500000) + "1 * * * *", "-1 * * * *",
		"0 0 * * 8", "99999999999999999999 * * * *", "0 0 * * 7/0", "a * * * *", "* * * * * \x00",
	} {
		_, err := cron.Parse(e, time.UTC)
		require.Error(t, err, "%.40q", e)
	}
}

func TestZonesComeFromTheBinary(t *testing.T) {
	t.Setenv("ZONEINFO", "/nonexistent")
	for _, z := range []string{"Asia/Kathmandu", "America/New_York", "Africa/Casablanca"} {
		_, err := cron.Zone(z)
		require.NoError(t, err)
	}
	for _, z := range []string{"Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Local", `..\x`} {
		_, err := cron.Zone(z)
		require.ErrorContains(t, err, "IANA", z)
	}
}

func TestEveryIsAnchoredToTheEpoch(t *testing.T) {
	s, err := cron.Every(7 * time.Second)
	require.NoError(t, err)
	n, _ := s.Next(time.Unix(100, 5))
	require.Equal(t, int64(105), n.Unix())
	n, _ = s.Next(n)
	require.Equal(t, int64(112), n.Unix())
	n, _ = s.Next(time.Unix(-1, 0))
	require.Equal(t, int64(0), n.Unix())
	for _, d := range []time.Duration{0, -time.Second, time.Millisecond, 1000 * 24 * time.Hour, 100*time.Millisecond + 1} {
		_, err := cron.Every(d)
		require.Error(t, err, d)
	}
	at := cron.At(time.Unix(50, 0))
	n, ok := at.Next(time.Unix(49, 0))
	require.True(t, ok)
	require.Equal(t, int64(50), n.Unix())
	_, ok = at.Next(n)
	require.False(t, ok)
}

var oracleZones = []string{
	"UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca", "Europe/London", "America/Sao_Paulo",
	"Africa/Cairo", "Pacific/Apia", "Asia/Tehran", "Pacific/Chatham", "America/St_Johns", "Antarctica/Troll", "Asia/Shanghai",
}

// TestNextEqualsABruteForceScanAroundEveryTransitionOf20Years compares with an oracle that knows nothing of segments: it
// steps through real time and through wall clock time, minute by minute, over the days around every change of offset.
func TestNextEqualsABruteForceScanAroundEveryTransitionOf20Years(t *testing.T) {
	exprs := []string{"30 2 * * *", "0 0 * * *", "15 * * * *", "*/10 1-3 * * *", "59 23 * * *", "0 */2 * * *", "45 1 1-15 * 0", "5 0,2,3 * * *"}
	checked := 0
	for _, zone := range oracleZones {
		loc, err := cron.Zone(zone)
		require.NoError(t, err)
		transitions := []time.Time{time.Date(2015, 6, 1, 0, 0, 0, 0, loc)}
		for at := time.Date(2008, 1, 1, 0, 0, 0, 0, loc); at.Year() < 2028; {
			_, end := at.ZoneBounds()
			if end.IsZero() {
				break
			}
			transitions, at = append(transitions, end), end
		}
		for _, tr := range transitions {
			if tr.Year() >= 2028 {
				continue
			}
			from, to := tr.Add(-30*time.Hour).Truncate(time.Minute), tr.Add(30*time.Hour).Truncate(time.Minute)
			for _, e := range exprs {
				s := parse(t, e, zone)
				require.Equal(t, oracle(e, loc, from, to), between(t, s, from, to), "%s in %s around %s", e, zone, tr)
				checked++
			}
		}
	}
	require.Greater(t, checked, 2000)
}

// oracle lists the ticks in [from, to) by scanning; it parses only what the expressions above use.
func oracle(expr string, loc *time.Location, from, to time.Time) []time.Time {
	f := strings.Fields(expr)
	match := func(w time.Time) bool { // w: wall clock as if UTC
		dom, dow := has(f[2], w.Day()), has(f[4], int(w.Weekday()))
		days := dom && dow
		if f[2] != "*" && f[4] != "*" {
			days = dom || dow
		}
		return has(f[0], w.Minute()) && has(f[1], w.Hour()) && days
	}
	wallOf := func(t time.Time) time.Time {
		l := t.In(loc)
		return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
	}
	var out []time.Time
	if f[1] == "*" {
		for at := from; at.Before(to); at = at.Add(time.Minute) {
			if match(wallOf(at)) {
				out = append(out, at.UTC())
			}
		}
		return out
	}
	// The clock's highest reading so far; every wall minute passed by it for the first time fires now.
	start := from.Add(-30 * time.Hour)
	high := wallOf(start)
	for at := start.Add(time.Minute); at.Before(to); at = at.Add(time.Minute) {
		fired := false
		for w := wallOf(at); high.Before(w); {
			high = high.Add(time.Minute)
			fired = fired || match(high)
		}
		if fired && !at.Before(from) {
			out = append(out, at.UTC())
		}
	}
	return out
}

func has(field string, v int) bool {
	for _, p := range strings.Split(field, ",") {
		lo, hi, step := 0, 59, 1
		rng, st, ok := strings.Cut(p, "/")
		if ok {
			_, _ = fmt.Sscan(st, &step)
		}
		if rng != "*" {
			a, b, isRange := strings.Cut(rng, "-")
			_, _ = fmt.Sscan(a, &lo)
			hi = lo
			if isRange {
				_, _ = fmt.Sscan(b, &hi)
			}
		}
		if v >= lo && v <= hi && (v-lo)%step == 0 {
			return true
		}
	}
	return false
}

func TestNextIsStrictlyIncreasingFromAnyStart(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		s := parse(t, fmt.Sprintf("%d %d */%d * * *", r.IntN(60), r.IntN(60), 1+r.IntN(12)), oracleZones[r.IntN(len(oracleZones))])
		at := time.Unix(r.Int64N(4e9), r.Int64N(1e9))
		n, ok := s.Next(at)
		require.True(t, ok)
		require.True(t, n.After(at))
		again, _ := s.Next(n.Add(-time.Nanosecond))
		require.Equal(t, n, again, "a tick is the next of the instant before it")
		if d := n.Sub(at); d > time.Second {
			mid, _ := s.Next(at.Add(d / 2))
			require.Equal(t, n, mid, "no tick lies between")
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"* * * * *", "TZ=", "*/0 * * * *", "@every -5s", "0 0 30 2 *", "1-0 * * * *", "@", "@hourly", "0 0 * * 7-7/7", "5/15 * * * * *"} {
		f.Add(s)
	}
	loc, _ := cron.Zone("America/New_York")
	f.Fuzz(func(t *testing.T, expr string) {
		s, err := cron.Parse(expr, loc)
		if err != nil {
			return
		}
		at := time.Date(2026, 3, 7, 0, 0, 0, 0, time.UTC)
		for range 5 {
			n, ok := s.Next(at)
			require.True(t, ok, "a parsed expression has a next instant")
			require.True(t, n.After(at))
			at = n
		}
	})
}

func BenchmarkNext(b *testing.B) {
	s := parse(b, "* * * * * *", "America/New_York")
	at := time.Now()
	for b.Loop() {
		at, _ = s.Next(at)
	}
}

func TestZoneDataIsStable(t *testing.T) {
	require.Len(t, cron.ZoneData(), 16)
	require.Equal(t, cron.ZoneData(), cron.ZoneData())
}
