package simtest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// checker holds the promises against what happens. It sees every start, every end and every revision of every record.
type checker struct {
	w       *World
	bad     []string
	starts  map[string]int   // G1
	live    map[string]int   // G4, by record key
	tokens  map[string]int64 // G3, by record key
	records map[string]*jobs.Record
	grants  map[string]int64         // run#attempt -> revision of the commit that armed it
	ended_  map[string]map[int64]int // G2: record key -> tick -> ends
	lives   map[string]*life         // by job/uid
	current map[string]string
}

func newChecker(w *World) *checker {
	return &checker{
		w: w, starts: map[string]int{}, live: map[string]int{}, tokens: map[string]int64{}, records: map[string]*jobs.Record{},
		grants: map[string]int64{}, ended_: map[string]map[int64]int{}, lives: map[string]*life{}, current: map[string]string{},
	}
}

// life is one uid of a job with its last definition.
type life struct {
	name    string
	uid     int64
	def     *jobs.Job
	deleted time.Duration
}

func (c *checker) violation(format string, a ...any) {
	s := fmt.Sprintf("t=%.3f ", c.w.now.Seconds()) + fmt.Sprintf(format, a...)
	c.bad = append(c.bad, s)
	c.w.log("VIOLATION %s", s)
}

func (c *checker) job(j *jobs.Job, it kv.Item) {
	if j == nil {
		if id := c.current[it.Key]; id != "" {
			c.lives[id].deleted = c.w.now
		}
		return
	}
	id := j.Metadata.Name + "/" + itoa(it.Create)
	c.current[j.Metadata.Name] = id
	c.lives[id] = &life{name: j.Metadata.Name, uid: it.Create, def: j}
}

func (c *checker) key(k store.ShardKey) string {
	return store.DefaultPrefix + fmt.Sprintf("sim/runs/%s/%d/%06d", k.Name, k.UID, k.Shard)
}

// record checks a new revision of a record against the one before.
func (c *checker) record(ch kv.Change, rev int64) {
	if ch.Delete {
		return
	}
	cur := &jobs.Record{}
	if err := json.Unmarshal(ch.Value, cur); err != nil {
		c.violation("G7 record %s is not readable: %v", ch.Key, err)
		return
	}
	old := c.records[ch.Key]
	if err := jobs.CheckStep(old, cur); err != nil {
		c.violation("G2 %s: %v", ch.Key, err)
	}
	c.records[ch.Key] = cur
	if r := cur.Run; r != nil && r.Phase == jobs.Armed && r.Holder != (jobs.Holder{}) {
		c.grants[fmt.Sprintf("%s#%d", r.ID, r.Attempt)] = rev
	}
	if c.ended_[ch.Key] == nil {
		c.ended_[ch.Key] = map[int64]int{}
	}
	count := func(tick int64) {
		c.ended_[ch.Key][tick]++
		if n := c.ended_[ch.Key][tick]; n > 1 {
			c.violation("G2 tick %d of %s ended %d times", tick, ch.Key, n)
		}
	}
	if l := cur.Last; l != nil && (old == nil || old.Last == nil || old.Last.ID != l.ID) {
		count(l.Tick)
	}
	if len(cur.Facts) > 0 {
		c.facts(ch.Key, cur.Facts, count)
	}
}

// facts expands ranges by the definition they were computed from: any span that has ticks in them.
func (c *checker) facts(key string, facts []jobs.Fact, count func(int64)) {
	p := strings.Split(strings.TrimPrefix(key, store.DefaultPrefix), "/")
	l := c.lives[p[2]+"/"+p[3]]
	if l == nil {
		return
	}
	tl, err := l.def.Timeline()
	if err != nil {
		c.violation("timeline: %v", err)
		return
	}
	for _, f := range facts {
		n := int64(0)
		for at := f.From - 1; ; {
			t, ok := tl.Next(at)
			if !ok || t.At > f.To {
				break
			}
			count(t.At)
			n, at = n+1, t.At
		}
		// The record may have been computed from the definition before; then the ranges differ at the edge of an edit.
		if n != f.Count && l.name != "edited" {
			c.violation("G2 %s: fact %+v counts %d ticks, there are %d", key, f, f.Count, n)
		}
	}
}

func (c *checker) started(p *proc) {
	r := &p.start.Run
	key := c.key(p.start.Shard)
	id := fmt.Sprintf("%s#%d", r.ID, r.Attempt)
	c.w.log("%s START %s token=%d", p.x.name, id, r.Token)
	if c.starts[id]++; c.starts[id] > 1 {
		c.violation("G1 %s was started %d times", id, c.starts[id])
	}
	if g, ok := c.grants[id]; !ok {
		c.violation("G1 %s was started without a grant", id)
	} else if g != r.Token && c.w.opt.Engine == "" {
		c.violation("G3 %s was started with token %d, granted by revision %d", id, r.Token, g)
	}
	if r.Token <= c.tokens[key] {
		c.violation("G3 token of %s did not grow: %d after %d", id, r.Token, c.tokens[key])
	}
	c.tokens[key] = r.Token
	if c.live[key] > 0 {
		c.violation("G4 %s was started while another attempt of its shard lives", id)
	}
	c.live[key]++
}

func (c *checker) ended(p *proc) { c.live[c.key(p.start.Shard)]-- }

func (c *checker) thawed(p *proc) {
	key := c.key(p.start.Shard)
	if c.live[key] > 0 {
		c.violation("G4 %s thawed beside another attempt of its shard", p.start.Run.ID)
	}
	c.live[key]++
}

// finish demands that every tick up to shortly before the end has ended exactly once, and that nothing is left over.
func (c *checker) finish(until time.Duration) {
	if len(c.bad) > 0 {
		return
	}
	to := epoch.Add(until).UnixMilli()
	for _, id := range sortedKeys(c.lives) {
		l := c.lives[id]
		if l.deleted > 0 {
			continue
		}
		for s := range l.def.Spec.Shards.Count {
			key := c.key(store.ShardKey{JobKey: store.JobKey{Namespace: "sim", Name: l.name}, UID: l.uid, Shard: s})
			if l.name == "chained" {
				c.chain(key, to)
				continue
			}
			tl, _ := l.def.Timeline()
			for at := tl.Begin(s); ; {
				t, ok := tl.Next(at)
				if !ok || t.At > to {
					break
				}
				if c.ended_[key][t.At] != 1 {
					c.violation("G2 tick %d of %s ended %d times", t.At, key, c.ended_[key][t.At])
				}
				at = t.At
			}
			if r := c.records[key]; r != nil && r.Run != nil && r.Run.Due < to {
				c.violation("liveness: %s is still %s", r.Run.ID, r.Run.Phase)
			}
		}
	}
}

// chain demands one run for each upstream tick from the first one that was handed on.
func (c *checker) chain(key string, to int64) {
	first := int64(1 << 60)
	for t := range c.ended_[key] {
		first = min(first, t)
	}
	if first == 1<<60 {
		c.violation("after: nothing was handed to %s", key)
	}
	for t := first; t <= to-10_000; t += 5000 {
		if c.ended_[key][t] != 1 {
			c.violation("after: tick %d of %s ran %d times", t, key, c.ended_[key][t])
		}
	}
}
