package shell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Runner starts commands under shims.
type Runner struct {
	dir string
	exe string

	mu    sync.Mutex // guards until and shims
	until time.Duration
	shims map[*os.File]bool
}

// Command is one run.
type Command struct {
	ID     string // run id, for file names and for finding orphans
	Name   string // of the log file: ID and attempt
	Script string
	Env    []string
	Secret []string // values to mask in the output
	Grace  time.Duration
}

// Result is how a command ended.
type Result struct {
	Started  bool
	OK       bool
	ExitCode int
	Reason   string // why it failed: one line
	Message  string // from the result file
	Data     json.RawMessage
	Output   string // tail
}

// maxResult is the largest result file that is read.
const maxResult = 64 << 10

// NewRunner keeps logs and scratch files below dir, and makes this process a subreaper, so that what a killed shim leaves
// behind can be found.
func NewRunner(dir string) (*Runner, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{dir, filepath.Join(dir, "logs"), filepath.Join(dir, "tmp")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make work directory: %w", err)
		}
	}
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	return &Runner{dir: dir, exe: exe, shims: map[*os.File]bool{}}, nil
}

// Trust extends the deadline of all running commands (CLOCK_BOOTTIME).
func (r *Runner) Trust(until time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = until
	line := fmt.Appendf(nil, `{"until":%d}`+"\n", until)
	for f := range r.shims {
		_ = f.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) // a frozen shim must not hold up the others
		_, _ = f.Write(line)
	}
}

// LogPath is where the output of a run's attempt is kept.
func (r *Runner) LogPath(name string) string {
	return filepath.Join(r.dir, "logs", filepath.Base(name)+".log")
}

// Run runs a command to its end. When ctx ends it is stopped: TERM, then KILL after the grace. Everything below the shim is
// dead when Run returns, unless the shim says otherwise in Reason.
func (r *Runner) Run(ctx context.Context, c Command) Result {
	scratch, err := os.MkdirTemp(filepath.Join(r.dir, "tmp"), "run-")
	if err != nil {
		return Result{Reason: "no scratch directory: " + err.Error()}
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	resultFile := filepath.Join(scratch, "result.json")
	env := append(slices.Clone(c.Env), "ROTA_RESULT_FILE="+resultFile, "ROTA_EMIT_FILE="+filepath.Join(scratch, "emit.ndjson"))
	rep, err := r.supervise(ctx, c, env)
	if err != nil {
		return Result{Reason: err.Error(), Started: true, ExitCode: -1}
	}
	if rep.Error != "" {
		return Result{Reason: rep.Error, ExitCode: -1}
	}
	res := Result{Started: true, ExitCode: rep.Exit, Output: rep.Tail, OK: rep.Exit == 0 && rep.Signal == "" && !rep.Deadline && !rep.TooMany}
	switch {
	case rep.Deadline:
		res.Reason = "killed: the executor could not renew its lease in time"
	case rep.TooMany:
		res.Reason = fmt.Sprintf("killed: more than %d processes", maxProcesses)
	case rep.Killed:
		res.Reason = fmt.Sprintf("killed: it did not end within %v after SIGTERM", c.Grace)
	case rep.Signal != "":
		res.Reason = "killed by " + rep.Signal
	case rep.Exit == 126:
		res.Reason = "exit 126: the command is not executable"
	case rep.Exit == 127:
		res.Reason = "exit 127: the command was not found"
	case rep.Exit > 128 && unix.SignalName(syscall.Signal(rep.Exit-128)) != "":
		res.Reason = fmt.Sprintf("exit %d: a command was killed by %s", rep.Exit, unix.SignalName(syscall.Signal(rep.Exit-128)))
	case rep.Exit != 0:
		res.Reason = fmt.Sprintf("exit %d", rep.Exit)
	}
	if rep.Left > 0 {
		res.Message = fmt.Sprintf("killed %d processes that it left behind", rep.Left)
	}
	res.readFile(resultFile)
	return res
}

func (res *Result) readFile(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxResult+1))
	if err != nil || len(b) == 0 {
		return
	}
	var v struct {
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	switch {
	case len(b) > maxResult:
		res.Message = fmt.Sprintf("result ignored: more than %d bytes", maxResult)
	case json.Unmarshal(b, &v) != nil:
		res.Message = "result ignored: not JSON of the form {\"message\": ..., \"data\": ...}"
	default:
		res.Message, res.Data = v.Message, v.Data
		if len(res.Message) > 4096 {
			res.Message = strings.ToValidUTF8(res.Message[:4096], "")
		}
	}
}

// supervise starts the shim and waits for its report.
func (r *Runner) supervise(ctx context.Context, c Command, env []string) (report, error) {
	controlR, controlW, err := os.Pipe()
	if err != nil {
		return report{}, fmt.Errorf("start the shim: %w", err)
	}
	defer func() { _ = controlW.Close() }()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		_ = controlR.Close()
		return report{}, fmt.Errorf("start the shim: %w", err)
	}
	defer func() { _ = statusR.Close() }()
	cmd := exec.Command(r.exe)
	cmd.Args = []string{shimName}
	cmd.Dir = r.dir
	cmd.Env = []string{"GOMAXPROCS=2", "GOGC=off", "GOMEMLIMIT=64MiB", "PATH=" + os.Getenv("PATH")}
	cmd.ExtraFiles = []*os.File{controlR, statusW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_, _ = controlR.Close(), statusW.Close()
	if err != nil {
		return report{}, fmt.Errorf("start the shim: %w", err)
	}
	r.mu.Lock()
	until := r.until
	r.mu.Unlock()
	first, _ := json.Marshal(order{Until: until, Start: &startOrder{
		Script: c.Script, Dir: r.dir, Env: env, Grace: c.Grace, Log: r.LogPath(c.Name), Mask: c.Secret,
	}})
	_ = controlW.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, werr := controlW.Write(append(first, '\n'))
	r.mu.Lock()
	r.shims[controlW] = true
	if r.until != until { // extended meanwhile
		_, _ = fmt.Fprintf(controlW, `{"until":%d}`+"\n", r.until)
	}
	r.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		_ = controlW.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = controlW.Write([]byte(`{"stop":true}` + "\n"))
	})
	out, rerr := io.ReadAll(statusR)
	stop()
	r.mu.Lock()
	delete(r.shims, controlW)
	r.mu.Unlock()
	waited := cmd.Wait()
	var rep report
	if json.Unmarshal(bytes.TrimSpace(out), &rep) == nil {
		return rep, nil
	}
	killOrphans(cmd.Process.Pid, c.ID)
	return report{}, fmt.Errorf("the supervisor of the command died: %w", errors.Join(werr, rerr, waited))
}

// killOrphans kills what a dead shim left behind: children of this process that belong to its session or carry the run's id.
func killOrphans(session int, id string) {
	for range 50 {
		found := false
		for _, pid := range descendants(os.Getpid()) {
			sid, _ := unix.Getsid(pid)
			environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if sid == session || bytes.Contains(environ, []byte("ROTA_RUN_ID="+id+"\x00")) {
				found = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
		}
		if !found {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
