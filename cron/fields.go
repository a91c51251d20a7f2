package cron

import (
	"math/bits"
	"time"
)

// fields are the bit sets of a cron expression.
type fields struct {
	second, minute, hour, dom, month, dow uint64

	anyDay  bool // at least one day field is "*": both must match; else either may
	anyHour bool
}

// next returns the first matching wall clock time at or after wall; both are seconds as if the zone were UTC.
func (f *fields) next(wall int64) (int64, bool) {
	start := floor(wall, day)
	if f.matchesDay(start) {
		if s, ok := f.inDay(wall - start); ok {
			return start + s, true
		}
	}
	first, ok := f.inDay(0)
	if !ok {
		return 0, false
	}
	for d, limit := start+day, start+horizon; d < limit; {
		y, m, dom := time.Unix(d, 0).UTC().Date()
		if f.month&(1<<uint(m)) == 0 {
			d = time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC).Unix()
			continue
		}
		// Inside a matching month count days without calendar arithmetic.
		dow := int((floorDiv(d, day) + 4) % 7)
		if dow < 0 {
			dow += 7
		}
		for n := daysIn(y, m); dom <= n; dom, dow, d = dom+1, (dow+1)%7, d+day {
			if f.day(dom, dow) {
				return d + first, true
			}
		}
	}
	return 0, false
}

func (f *fields) matchesDay(start int64) bool {
	t := time.Unix(start, 0).UTC()
	return f.month&(1<<uint(t.Month())) != 0 && f.day(t.Day(), int(t.Weekday()))
}

func (f *fields) day(dom, dow int) bool {
	a, b := f.dom&(1<<uint(dom)) != 0, f.dow&(1<<uint(dow)) != 0
	if f.anyDay {
		return a && b
	}
	return a || b
}

// inDay is the first matching second of the day at or after s.
func (f *fields) inDay(s int64) (int64, bool) {
	h, m, sec := int(s/3600), int(s/60%60), int(s%60)
	for ; h < 24; h, m, sec = h+1, 0, 0 {
		nh := from(f.hour, h)
		if nh > 23 {
			return 0, false
		}
		if nh > h {
			h, m, sec = nh, 0, 0
		}
		for ; m < 60; m, sec = m+1, 0 {
			nm := from(f.minute, m)
			if nm > 59 {
				break
			}
			if nm > m {
				m, sec = nm, 0
			}
			if ns := from(f.second, sec); ns <= 59 {
				return int64(h)*3600 + int64(m)*60 + int64(ns), true
			}
		}
	}
	return 0, false
}

// from is the lowest set bit at or above i (64 when there is none).
func from(set uint64, i int) int { return bits.TrailingZeros64(set >> uint(i) << uint(i)) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floor(a, b int64) int64 { return floorDiv(a, b) * b }

func daysIn(y int, m time.Month) int { return time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day() }
