package jobs

// OnTime is how late a tick may be and still count as on time, in milliseconds: only later ticks are misfires.
const OnTime = 1000

// maxWalk bounds the ticks that one call passes; the caller commits and asks again.
const maxWalk = 100_000

// Due is what becomes of the ticks after a cursor.
type Due struct {
	Facts []Fact // to record now, in order
	Fire  *Tick  // to run now
	Next  *Tick  // when neither: the next tick, in the future
	More  bool   // the walk was cut: record Facts and ask again
}

// Account decides what becomes of the ticks after cursor that are due at now, with the shard's constant delay: by the misfire
// policy, the time it allows, and the pause windows.
func (t *Timeline) Account(cursor, now, delay int64) Due {
	return t.walk(cursor, now, delay, t.schedule.MisfirePolicy())
}

// Queued is [Timeline.Account] for ticks that came due while a run was going and may wait for its end: the first one fires.
func (t *Timeline) Queued(cursor, now, delay int64) Due {
	return t.walk(cursor, now, delay, MisfireAll)
}

func (t *Timeline) walk(cursor, now, delay int64, policy Misfire) Due {
	var d Due
	var candidate *Tick // policy once: the newest so far
	var after []Fact    // what follows the candidate
	at := cursor
	for n := 0; ; n++ {
		tick, ok := t.Next(at)
		if !ok {
			break
		}
		if !tick.Superseded {
			tick.Due += delay
		}
		if tick.Due > now {
			if candidate == nil && len(d.Facts) == 0 {
				d.Next = &tick
			}
			break
		}
		if n == maxWalk {
			d.More = true
			break
		}
		at = tick.At
		late := now - tick.Due
		switch {
		case tick.Superseded:
			after = add(after, Missed, ReasonSuperseded, at)
		case tick.Excluded:
			after = add(after, Skipped, ReasonExcluded, at)
		case late > t.schedule.Within().Milliseconds() && late > OnTime:
			after = add(after, Missed, ReasonExpired, at)
		case policy == MisfireAll:
			d.Facts, d.Fire = append(d.Facts, after...), &tick
			return d
		case policy == MisfireNone && late > OnTime:
			after = add(after, Missed, ReasonMisfire, at)
		default:
			if candidate != nil {
				d.Facts = add(d.Facts, Missed, ReasonMisfire, candidate.At)
			}
			d.Facts, after = merge(d.Facts, after), nil
			candidate = &tick
		}
	}
	if candidate != nil && !d.More {
		d.Fire = candidate // what follows it is accounted for after its run
		return d
	}
	if candidate != nil {
		d.Facts = add(d.Facts, Missed, ReasonMisfire, candidate.At)
	}
	d.Facts = merge(d.Facts, after)
	return d
}

// Overlapped accounts for the ticks after cursor that came due by now while a run is going: skipped.
func (t *Timeline) Overlapped(cursor, now, delay int64) (facts []Fact, next *Tick) {
	at := cursor
	for range maxWalk {
		tick, ok := t.Next(at)
		if !ok {
			return facts, nil
		}
		tick.Due += delay
		if tick.Due > now {
			return facts, &tick
		}
		at = tick.At
		if tick.Excluded {
			facts = add(facts, Skipped, ReasonExcluded, at)
		} else {
			facts = add(facts, Skipped, ReasonOverlap, at)
		}
	}
	return facts, nil
}

// add appends one tick, extending the last fact where phase and reason are the same.
func add(facts []Fact, phase Phase, reason string, at int64) []Fact {
	if n := len(facts); n > 0 && facts[n-1].Phase == phase && facts[n-1].Reason == reason {
		facts[n-1].To = at
		facts[n-1].Count++
		return facts
	}
	return append(facts, Fact{Phase: phase, Reason: reason, From: at, To: at, Count: 1})
}

func merge(a, b []Fact) []Fact {
	for _, f := range b {
		if n := len(a); n > 0 && a[n-1].Phase == f.Phase && a[n-1].Reason == f.Reason {
			a[n-1].To = f.To
			a[n-1].Count += f.Count
		} else {
			a = append(a, f)
		}
	}
	return a
}
