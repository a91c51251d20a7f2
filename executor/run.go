package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rota-dev/rota/executor/engine"
	"github.com/rota-dev/rota/jobs"
)

// Run is what a handler learns about its run.
type Run struct {
	ID        string
	Namespace string
	Job       string
	Shard     int
	Shards    int
	Param     string // of the shard, when the job lists parameters
	Tick      time.Time
	Trigger   jobs.Trigger
	Attempt   int   // from 1
	Token     int64 // fencing token: grows along the shard
	Executor  string
	Params    map[string]string
	Log       *slog.Logger

	mu       sync.Mutex // guards what follows
	result   json.RawMessage
	percent  int
	progress string
	err      error
}

const maxResult = 64 << 10

// Result stores a value, as JSON of at most 64 KiB, with the end of the run.
func (r *Run) Result(v any) {
	b, err := json.Marshal(v)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		r.err = fmt.Errorf("result: %w", err)
	case len(b) > maxResult:
		r.err = fmt.Errorf("result: %d bytes; at most %d are allowed", len(b), maxResult)
	default:
		r.result = b
	}
}

// Progress says how far the run is; the last word is kept as its message.
func (r *Run) Progress(percent int, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.percent, r.progress = percent, message
}

// Handler runs one shard for one tick.
type Handler func(ctx context.Context, run *Run) error

type outcomeError struct {
	err   error
	kind  engine.Outcome
	phase jobs.Phase
}

func (e *outcomeError) Error() string { return e.err.Error() }
func (e *outcomeError) Unwrap() error { return e.err }

// Retry fails the attempt and asks for another one after a delay (0: the job's backoff), even when the attempts are used up;
// at most ten more.
func Retry(err error, after time.Duration) error {
	return &outcomeError{err: err, phase: jobs.Failed, kind: engine.Outcome{Again: true, After: after}}
}

// Skip ends the run as skipped: there was nothing to do, and the reason says why.
func Skip(reason string) error {
	return &outcomeError{err: errors.New(reason), phase: jobs.Skipped}
}

// Fail fails the run for good: no attempt follows.
func Fail(err error) error {
	return &outcomeError{err: err, phase: jobs.Failed, kind: engine.Outcome{Never: true}}
}

// Call runs a handler and turns what it returns, or its panic, into an outcome. Package executortest uses it.
func Call(ctx context.Context, h Handler, run *Run) (out engine.Outcome) {
	defer func() {
		if p := recover(); p != nil {
			out = engine.Outcome{Phase: jobs.Failed, Reason: clip(fmt.Sprintf("panic: %v", p), 1024), Output: clip(string(debug.Stack()), 4096)}
		}
	}()
	err := h(ctx, run)
	run.mu.Lock()
	defer run.mu.Unlock()
	if err == nil {
		err = run.err
	}
	out = engine.Outcome{Phase: jobs.Succeeded}
	if err != nil {
		out = engine.Outcome{Phase: jobs.Failed}
		var oe *outcomeError
		if errors.As(err, &oe) {
			out = oe.kind
			out.Phase = oe.phase
		}
		out.Reason = clip(err.Error(), 1024)
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
			out.Reason = clip(cause.Error(), 1024)
		}
	}
	out.Result, out.Message = run.result, clip(run.progress, 4096)
	return out
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
