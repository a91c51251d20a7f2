package engine

import "time"

const never = time.Duration(1 << 62)

// wakes is a binary heap of shards by the time they need attention: one timer serves them all.
type wakes []*shard

func (h *wakes) set(s *shard, at time.Duration) {
	old := s.wake
	s.wake = at
	switch {
	case s.pos < 0 && at == never:
	case s.pos < 0:
		s.pos = len(*h)
		*h = append(*h, s)
		h.up(s.pos)
	case at == never:
		h.remove(s)
	case at < old:
		h.up(s.pos)
	default:
		h.down(s.pos)
	}
}

func (h *wakes) remove(s *shard) {
	i, n := s.pos, len(*h)-1
	h.swap(i, n)
	(*h)[n] = nil
	*h = (*h)[:n]
	s.pos = -1
	if i < n {
		h.down(i)
		h.up(i)
	}
}

func (h wakes) less(a, b *shard) bool { return a.wake < b.wake }

func (h wakes) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h wakes) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if !h.less(h[i], h[p]) {
			return
		}
		h.swap(i, p)
		i = p
	}
}

func (h wakes) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h.less(h[c+1], h[c]) {
			c++
		}
		if !h.less(h[c], h[i]) {
			return
		}
		h.swap(i, c)
		i = c
	}
}
