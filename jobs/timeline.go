package jobs

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/rota-dev/rota/cron"
)

// Tick is one instant at which a shard is due. All instants of this package's records are Unix milliseconds.
type Tick struct {
	At         int64 // the scheduled instant: the tick's identity
	Due        int64 // when this shard starts: At plus its share of the jitter
	Excluded   bool  // inside a pause window
	Superseded bool  // of a schedule that is no longer in force
}

// Timeline enumerates the ticks of one definition.
type Timeline struct {
	spans    []span
	schedule *Schedule // in force; nil when none
	shards   []int
}

type span struct {
	from, to int64 // ticks in (from, to]
	cron     *cron.Schedule
	windows  []window
	jitter   int64
}

// Timeline compiles the definition's schedule, with its former ones where Status keeps them.
func (j *Job) Timeline() (*Timeline, error) {
	spans := []Span{{Shards: j.Spec.Shards.Count, Schedule: j.Spec.Schedule}}
	if !j.Enabled() {
		spans[0].Schedule = nil
	}
	if j.Status != nil && len(j.Status.Spans) > 0 {
		spans = j.Status.Spans
	}
	t := &Timeline{}
	for i, s := range spans {
		c := span{from: s.From.UnixMilli(), to: 1 << 60}
		if s.From.IsZero() {
			c.from = 0
		}
		if i+1 < len(spans) {
			c.to = spans[i+1].From.UnixMilli()
		}
		if s.Schedule != nil {
			sched, err := s.Schedule.compile()
			if err != nil {
				return nil, err
			}
			c.cron, c.jitter = sched, time.Duration(s.Schedule.Jitter).Milliseconds()
			loc, _ := cron.Zone(s.Schedule.Timezone)
			for _, w := range s.Schedule.Exclude {
				cw, err := compileWindow(w)
				if err != nil {
					return nil, err
				}
				cw.loc = loc
				c.windows = append(c.windows, cw)
			}
		}
		t.spans = append(t.spans, c)
		t.shards = append(t.shards, s.Shards)
		t.schedule = s.Schedule
	}
	return t, nil
}

func (s *Schedule) compile() (*cron.Schedule, error) {
	switch {
	case s.At != nil:
		return cron.At(*s.At), nil
	case s.Every > 0:
		return cron.Every(time.Duration(s.Every))
	}
	loc, err := cron.Zone(s.Timezone)
	if err != nil {
		return nil, err
	}
	return cron.Parse(s.Cron, loc)
}

// Schedule in force; nil when the job has none or is disabled.
func (t *Timeline) Schedule() *Schedule { return t.schedule }

// Begin is the cursor of a shard that has no record yet: the shard exists since then.
func (t *Timeline) Begin(shard int) int64 {
	i := len(t.spans) - 1
	for i > 0 && t.shards[i-1] > shard {
		i--
	}
	return t.spans[i].from
}

// Jitter is the constant delay of a shard's starts.
func (t *Timeline) Jitter(job string, shard int) int64 {
	j := t.spans[len(t.spans)-1].jitter
	if j <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%d", job, shard)
	return int64(h.Sum64() % uint64(j+1))
}

// Next is the first tick after an instant; false when there is none.
func (t *Timeline) Next(after int64) (Tick, bool) {
	for i, s := range t.spans {
		if after >= s.to || s.cron == nil {
			continue
		}
		n, ok := s.cron.Next(time.UnixMilli(max(after, s.from)))
		if !ok || n.UnixMilli() > s.to {
			continue
		}
		at := n.UnixMilli()
		return Tick{At: at, Due: at, Excluded: s.excluded(n), Superseded: i < len(t.spans)-1}, true
	}
	return Tick{}, false
}

func (s *span) excluded(at time.Time) bool {
	for _, w := range s.windows {
		if w.contains(at) {
			return true
		}
	}
	return false
}

// window is a compiled pause.
type window struct {
	loc         *time.Location
	days        bool
	first, last string // 2006-01-02, inclusive
	times       bool
	start, end  int // minutes of the day, end exclusive
}

func compileWindow(w Window) (window, error) {
	c := window{loc: time.UTC}
	if w.Dates == "" && w.Times == "" {
		return c, fmt.Errorf("needs dates, times or both")
	}
	if w.Dates != "" {
		first, last, ok := strings.Cut(w.Dates, "/")
		if !ok {
			last = first
		}
		for _, d := range []string{first, last} {
			if _, err := time.Parse(time.DateOnly, d); err != nil {
				return c, fmt.Errorf("dates %q: write 2026-11-10 or 2026-11-10/2026-11-12", w.Dates)
			}
		}
		if last < first {
			return c, fmt.Errorf("dates %q: the end lies before the start", w.Dates)
		}
		c.days, c.first, c.last = true, first, last
	}
	if w.Times != "" {
		from, to, ok := strings.Cut(w.Times, "/")
		a, err1 := time.Parse("15:04", from)
		b, err2 := time.Parse("15:04", to)
		if !ok || err1 != nil && from != "24:00" || err2 != nil && to != "24:00" || from == to {
			return c, fmt.Errorf("times %q: write 23:30/00:30", w.Times)
		}
		c.times, c.start, c.end = true, a.Hour()*60+a.Minute(), b.Hour()*60+b.Minute()
		if to == "24:00" {
			c.end = 24 * 60
		}
	}
	return c, nil
}

func (w window) contains(at time.Time) bool {
	l := at.In(w.loc)
	if w.days {
		if d := l.Format(time.DateOnly); d < w.first || d > w.last {
			return false
		}
	}
	if w.times {
		m := l.Hour()*60 + l.Minute()
		if w.start < w.end {
			return m >= w.start && m < w.end
		}
		return m >= w.start || m < w.end
	}
	return true
}
