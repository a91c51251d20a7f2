package cron

import (
	"errors"
	"fmt"
	"time"
)

// Limits of intervals.
const (
	MinEvery = 100 * time.Millisecond
	MaxEvery = 366 * 24 * time.Hour
)

// ErrNever marks an expression that matches no date.
var ErrNever = errors.New("matches no date")

// Schedule is a set of instants.
type Schedule struct {
	expr  string
	bits  *fields
	loc   *time.Location
	every time.Duration
	at    time.Time
}

// Every returns the instants that are whole multiples of d since the Unix epoch, so that restarts and executors agree.
func Every(d time.Duration) (*Schedule, error) {
	if d < MinEvery || d > MaxEvery {
		return nil, fmt.Errorf("every %v: must be between %v and %v", d, MinEvery, MaxEvery)
	}
	if d%time.Millisecond != 0 {
		return nil, fmt.Errorf("every %v: must be whole milliseconds", d)
	}
	return &Schedule{expr: "every " + d.String(), every: d}, nil
}

// At returns the single instant t.
func At(t time.Time) *Schedule {
	return &Schedule{expr: "at " + t.Format(time.RFC3339), at: t.Truncate(time.Millisecond)}
}

// String is the expression in one line.
func (s *Schedule) String() string { return s.expr }

// Next is the first instant strictly after t; false when there is none.
func (s *Schedule) Next(t time.Time) (time.Time, bool) {
	switch {
	case s.every > 0:
		ms, d := t.UnixMilli(), s.every.Milliseconds()
		n := ms / d
		if ms%d < 0 {
			n--
		}
		return time.UnixMilli((n + 1) * d).UTC(), true
	case s.bits == nil:
		return s.at.UTC(), s.at.After(t)
	case s.bits.anyHour:
		return s.nextReal(t)
	default:
		return s.nextFixed(t)
	}
}

// horizon bounds every search: the Gregorian calendar repeats after 400 years.
const horizon = 400 * 366 * 24 * 3600

// nextReal walks the zone's segments of constant offset; inside one, wall clock and time run together.
func (s *Schedule) nextReal(t time.Time) (time.Time, bool) {
	at := t.Unix() + 1 // instants are whole seconds; strictly after t
	for limit := at + horizon; at < limit; {
		seg := segmentAt(s.loc, at)
		wall, ok := s.bits.next(at + seg.offset)
		if !ok {
			return time.Time{}, false
		}
		if c := wall - seg.offset; c < seg.end {
			return time.Unix(c, 0).UTC(), true
		}
		at = seg.end
	}
	return time.Time{}, false
}

// nextFixed enumerates wall clock times and maps each to the first instant at which the clock shows it or more. Those at or
// below the wall clock of t have their instant at or before t.
func (s *Schedule) nextFixed(t time.Time) (time.Time, bool) {
	now := t.Unix()
	wall := now + segmentAt(s.loc, now).offset + 1
	for {
		w, ok := s.bits.next(wall)
		if !ok {
			return time.Time{}, false
		}
		if c := firstShowing(s.loc, w); c > now {
			return time.Unix(c, 0).UTC(), true
		}
		wall = w + 1 // the repeated part of an overlap: already fired
	}
}

// segment is a span of constant offset that ends before end (Unix seconds).
type segment struct{ end, offset int64 }

const (
	forever = 1 << 60
	day     = 24 * 3600
)

func segmentAt(loc *time.Location, at int64) segment {
	t := time.Unix(at, 0).In(loc)
	_, off := t.Zone()
	_, to := t.ZoneBounds()
	switch {
	case to.IsZero():
		return segment{end: forever, offset: int64(off)}
	case to.Unix() <= at:
		// ZoneBounds takes every year for 365 days where it extends a zone's last rule: on 31 December of a leap year it
		// answers with an end that has passed. No rule changes an offset on that day.
		return segment{end: floor(at, day) + day, offset: int64(off)}
	}
	return segment{end: to.Unix(), offset: int64(off)}
}

// firstShowing returns the first instant at which the wall clock of loc shows wall (seconds as if UTC) or, when it never
// does, the first instant after the gap.
func firstShowing(loc *time.Location, wall int64) int64 {
	at := wall - 26*3600 // no offset is as large: the clock shows less than wall here
	for {
		seg := segmentAt(loc, at)
		if c := wall - seg.offset; c < seg.end {
			return max(c, at)
		}
		at = seg.end
	}
}
