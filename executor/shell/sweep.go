package shell

import (
	"os"
	"path/filepath"
	"sort"
	"time"
)

// Retention of logs at the executor. Whatever is reached first removes the oldest.
const (
	keepLogs  = 24 * time.Hour
	maxLogs   = 20_000
	maxLogLen = 2 << 30
	keepTmp   = 7 * 24 * time.Hour
)

// Sweep removes old logs and what crashed runs left in the scratch directory. It returns how many files went.
func (r *Runner) Sweep(now time.Time) int {
	removed := 0
	type file struct {
		path string
		size int64
		at   time.Time
	}
	var files []file
	var total int64
	for _, e := range list(filepath.Join(r.dir, "logs")) {
		info, err := e.Info()
		if err != nil {
			continue // gone meanwhile
		}
		files = append(files, file{filepath.Join(r.dir, "logs", e.Name()), info.Size(), info.ModTime()})
		total += info.Size()
	}
	sort.Slice(files, func(i, j int) bool { return files[i].at.Before(files[j].at) })
	for i, f := range files {
		if now.Sub(f.at) < keepLogs && len(files)-i <= maxLogs && total <= maxLogLen {
			break
		}
		if os.Remove(f.path) == nil {
			removed++
		}
		total -= f.size
	}
	for _, e := range list(filepath.Join(r.dir, "tmp")) {
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > keepTmp {
			if os.RemoveAll(filepath.Join(r.dir, "tmp", e.Name())) == nil {
				removed++
			}
		}
	}
	return removed
}

func list(dir string) []os.DirEntry {
	entries, _ := os.ReadDir(dir) // unreadable: nothing to sweep
	return entries
}
