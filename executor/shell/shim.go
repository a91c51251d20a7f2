package shell

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rota-dev/rota/lease"
)

const shimName = "rota-shim"

func init() {
	if len(os.Args) > 0 && os.Args[0] == shimName {
		runtime.LockOSThread() // the parent death signal of the command is tied to this thread
		os.Exit(shim())
	}
}

// order is one line from the executor. The first one holds Start.
type order struct {
	Start *startOrder   `json:"start,omitempty"`
	Until time.Duration `json:"until,omitempty"` // new trust deadline
	Stop  bool          `json:"stop,omitempty"`
}

type startOrder struct {
	Script string        `json:"script"`
	Dir    string        `json:"dir"`
	Env    []string      `json:"env"`
	Grace  time.Duration `json:"grace"`
	Log    string        `json:"log"`
	Mask   []string      `json:"mask,omitempty"`
}

// report is the one line to the executor.
type report struct {
	Error    string `json:"error,omitempty"` // the command could not be started
	Exit     int    `json:"exit"`
	Signal   string `json:"signal,omitempty"`
	Left     int    `json:"left,omitempty"`     // processes that had to be killed after the command ended
	Killed   bool   `json:"killed,omitempty"`   // had to be killed: it ignored TERM for the whole grace
	Deadline bool   `json:"deadline,omitempty"` // killed because trust ended
	TooMany  bool   `json:"too_many,omitempty"` // killed because it multiplied
	Tail     string `json:"tail,omitempty"`
	Bytes    int64  `json:"bytes"`
}

// maxProcesses is how many a command may have below it: one that multiplies without end is killed while the machine still
// answers.
const maxProcesses = 2000

// shim supervises one command; its exit status does not matter.
func shim() int {
	// When memory runs out the kernel is to take the command before the executor; children inherit this.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0o644)
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	// Handled rather than ignored, because an ignored signal would be inherited by the command.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	control, status := os.NewFile(3, "control"), os.NewFile(4, "status")
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	lines := bufio.NewReaderSize(control, 1<<20)
	first, err := readOrder(lines)
	if err != nil || first.Start == nil {
		return 1
	}
	r := supervise(*first.Start, first.Until, lines)
	b, _ := json.Marshal(r)
	_, _ = status.Write(append(b, '\n'))
	return 0
}

func readOrder(r *bufio.Reader) (o order, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return o, err
	}
	return o, json.Unmarshal(line, &o)
}

func supervise(c startOrder, until time.Duration, lines *bufio.Reader) report {
	out, err := newCapture(c.Log, c.Mask)
	if err != nil {
		return report{Error: "cannot write the log: " + err.Error()}
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return report{Error: err.Error()}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return report{Error: err.Error()}
	}
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", c.Script}, &syscall.ProcAttr{
		Dir: c.Dir, Env: c.Env, Files: []uintptr{null.Fd(), pw.Fd(), pw.Fd()},
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	_ = pw.Close()
	if err != nil {
		if _, serr := os.Stat(c.Dir); serr != nil {
			return report{Error: fmt.Sprintf("working directory %s: %v", c.Dir, serr)}
		}
		return report{Error: "start /bin/sh: " + err.Error()}
	}
	drained := make(chan struct{})
	go func() {
		out.copy(pr)
		close(drained)
	}()
	orders := make(chan order)
	go func() {
		defer close(orders)
		for {
			o, err := readOrder(lines)
			if err != nil {
				return
			}
			orders <- o
		}
	}()
	exited := make(chan syscall.WaitStatus, 1)
	go reap(pid, exited)

	before := tasks()
	var r report
	var grace <-chan time.Time
	check := time.NewTicker(50 * time.Millisecond)
	defer check.Stop()
	var ws syscall.WaitStatus
	for done := false; !done; {
		select {
		case ws = <-exited:
			done = true
		case o, ok := <-orders:
			switch {
			case !ok: // the executor is gone
				killAll()
				orders = nil
			case o.Stop && grace == nil:
				_ = syscall.Kill(-pid, syscall.SIGTERM)
				_ = syscall.Kill(-pid, syscall.SIGCONT) // a stopped one could not hear it
				grace = time.After(c.Grace)
			case o.Until > 0:
				until = max(until, o.Until)
			}
		case <-grace:
			r.Killed = true
			killAll()
		case <-check.C:
			switch {
			case lease.Read().Boot >= until:
				r.Deadline = true
				killAll()
			case tasks() > before+maxProcesses && len(descendants(os.Getpid())) > maxProcesses:
				r.TooMany = true
				killAll()
			}
		}
	}
	r.Left = killAll()
	select {
	case <-drained:
	case <-time.After(2 * time.Second): // something that cannot be killed still holds the pipe
	}
	r.Exit, r.Signal = ws.ExitStatus(), ""
	if ws.Signaled() {
		r.Exit = 128 + int(ws.Signal())
		r.Signal = unix.SignalName(ws.Signal())
	}
	r.Tail, r.Bytes = out.finish()
	return r
}

// reap collects every child, ours and those that were orphaned to us, and reports the end of the command.
func reap(pid int, exited chan<- syscall.WaitStatus) {
	for {
		var ws syscall.WaitStatus
		p, err := syscall.Wait4(-1, &ws, 0, nil)
		if p == pid && (ws.Exited() || ws.Signaled()) {
			exited <- ws
		}
		if err != nil && err != syscall.EINTR {
			time.Sleep(5 * time.Millisecond) // no children at the moment; more may be orphaned to us
		}
	}
}

// killAll kills everything below this process until nothing is left, and returns how many processes it met. It stops them first,
// round by round until no new one appears: what is stopped cannot fork.
func killAll() int {
	met := map[int]bool{}
	for fresh := true; fresh; {
		fresh = false
		for _, p := range descendants(os.Getpid()) {
			if !met[p] {
				met[p], fresh = true, true
				_ = syscall.Kill(p, syscall.SIGSTOP)
			}
		}
	}
	for range 500 {
		left := descendants(os.Getpid())
		if len(left) == 0 {
			break
		}
		for _, p := range left {
			met[p] = true
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
	return len(met)
}

// tasks is how many processes and threads the whole machine has: one small read, where counting our own takes a walk through
// /proc.
func tasks() int {
	var a, b, c string
	var running, total int
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	_, _ = fmt.Sscanf(string(text), "%s %s %s %d/%d", &a, &b, &c, &running, &total)
	return total
}

// descendants lists the live processes below root.
func descendants(root int) []int {
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ppid, zombie, ok := parent(pid); ok && !zombie {
			children[ppid] = append(children[ppid], pid)
		}
	}
	var out []int
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		out = append(out, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return out
}

func parent(pid int) (ppid int, zombie, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false, false
	}
	// pid (comm) state ppid ...; comm may hold anything, so start after the last ')'.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 2 {
		return 0, false, false
	}
	ppid, err = strconv.Atoi(f[1])
	return ppid, f[0] == "Z" || f[0] == "X", err == nil
}
