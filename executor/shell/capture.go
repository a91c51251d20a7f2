package shell

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// Limits on the output of one run. On disk at most headBytes + 2 × segmentBytes.
const (
	headBytes    = 1 << 20
	segmentBytes = 512 << 10
	tailBytes    = 4 << 10 // for the record
)

// capture keeps the head of an output in PATH, and what follows in two rotating segments PATH.1 (older) and PATH.2.
type capture struct {
	path    string
	f       *os.File
	written int64 // into f
	total   int64
	second  bool // f is a segment
	tail    []byte
	mask    []string
	failed  bool // the disk refuses: go on reading, keep the tail only
}

func newCapture(path string, mask []string) (*capture, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &capture{path: path, f: f, mask: mask}, nil
}

func (c *capture) copy(r io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			c.write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (c *capture) write(b []byte) {
	for _, m := range c.mask {
		b = bytes.ReplaceAll(b, []byte(m), []byte("***"))
	}
	c.total += int64(len(b))
	c.tail = append(c.tail, b...)
	if len(c.tail) > 2*tailBytes {
		c.tail = append(c.tail[:0], c.tail[len(c.tail)-tailBytes:]...)
	}
	for len(b) > 0 && !c.failed {
		limit := int64(headBytes)
		if c.second {
			limit = segmentBytes
		}
		if c.written >= limit {
			c.rotate()
			continue
		}
		n := min(int64(len(b)), limit-c.written)
		if _, err := c.f.Write(b[:n]); err != nil {
			c.failed = true
		}
		c.written += n
		b = b[n:]
	}
}

func (c *capture) rotate() {
	_ = c.f.Close()
	if c.second {
		_ = os.Rename(c.path+".2", c.path+".1")
	}
	f, err := os.OpenFile(c.path+".2", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		c.failed = true
		return
	}
	c.f, c.written, c.second = f, 0, true
}

func (c *capture) finish() (tail string, total int64) {
	_ = c.f.Close()
	if c.total == 0 {
		_ = os.Remove(c.path) // most runs are silent; an empty file says nothing
	}
	t := c.tail
	if len(t) > tailBytes {
		t = t[len(t)-tailBytes:]
	}
	return strings.ToValidUTF8(strings.ReplaceAll(string(t), "\x00", "�"), "�"), c.total
}

// ReadLog returns a run's output as far as it was kept, head and tail with a mark between them.
func ReadLog(path string) ([]byte, error) {
	head, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	older, _ := os.ReadFile(path + ".1")
	newer, err := os.ReadFile(path + ".2")
	if err != nil {
		return head, nil
	}
	if older != nil {
		head = append(head, fmt.Sprintf("\n... output left out; the last %d bytes follow ...\n", len(older)+len(newer))...)
	}
	return append(append(head, older...), newer...), nil
}
