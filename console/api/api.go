// Package api is the vocabulary of the HTTP API: what requests and answers hold. The server and the client share it.
// Instants are RFC 3339 with milliseconds, UTC.
package api

import (
	"encoding/json"
	"time"
)

// Time is an instant in RFC 3339 with milliseconds, UTC; the zero value is written as null.
type Time struct{ time.Time }

const layout = "2006-01-02T15:04:05.000Z07:00"

// MS converts Unix milliseconds; 0 is no instant.
func MS(ms int64) *Time {
	if ms == 0 {
		return nil
	}
	return &Time{time.UnixMilli(ms).UTC()}
}

// String is the instant as the API writes it; "" for none.
func (t *Time) String() string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(layout)
}

// MarshalText implements [encoding.TextMarshaler].
func (t Time) MarshalText() ([]byte, error) { return []byte(t.UTC().Format(layout)), nil }

// MarshalJSON hides the one of time.Time.
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(t.UTC().Format(layout)) }

// List is one page.
type List[T any] struct {
	Items         []T    `json:"items"`
	NextPageToken string `json:"next_page_token"`
}

// Namespace is a tenant.
type Namespace struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Jobs        int               `json:"jobs"`
	Executors   int               `json:"executors"`
}

// Job is one line of a list of jobs.
type Job struct {
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	Enabled     bool              `json:"enabled"`
	Reason      string            `json:"reason,omitempty"` // why it is disabled
	Trigger     string            `json:"trigger"`          // the schedule or what else starts it
	Timezone    string            `json:"timezone,omitempty"`
	Kind        string            `json:"kind"` // handler, shell, http
	Shards      any               `json:"shards"`
	Owned       int               `json:"owned"` // shards that have an owner
	NextTick    *Time             `json:"next_tick"`
	Labels      map[string]string `json:"labels,omitempty"`
	Description string            `json:"description,omitempty"`
	Owner       string            `json:"owner,omitempty"`
	Version     int64             `json:"version"`
	UID         int64             `json:"uid"`
}

// Applied answers a write of a definition.
type Applied struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Result    string `json:"result"` // created, updated, unchanged, deleted
	Version   int64  `json:"version"`
	DryRun    bool   `json:"dry_run,omitempty"`
}

// Executor is a process that takes shards.
type Executor struct {
	ID            string            `json:"id"`
	Namespace     string            `json:"namespace"`
	Incarnation   string            `json:"incarnation"`
	State         string            `json:"state"` // ready, draining, lost
	Reason        string            `json:"reason,omitempty"`
	Labels        map[string]string `json:"labels"`
	Capacity      int               `json:"capacity"`
	Slots         int               `json:"slots"`
	Shards        int               `json:"shards"`
	Running       int               `json:"running"`
	Handlers      []string          `json:"handlers"`
	Shell         bool              `json:"shell"`
	Version       string            `json:"version"`
	Host          string            `json:"host"`
	StartedAt     *Time             `json:"started_at"`
	ClockOffsetMS int64             `json:"clock_offset_ms"`
}

// Shard is the state of one shard.
type Shard struct {
	Shard    int    `json:"shard"`
	Param    string `json:"param"`
	Executor string `json:"executor"` // assigned
	Holder   string `json:"holder"`   // of the armed or running run
	Phase    string `json:"phase"`
	Tick     *Time  `json:"tick"`
	Token    int64  `json:"token"`
	NextTick *Time  `json:"next_tick"`
	Reason   string `json:"reason"`
	Run      string `json:"run,omitempty"`
	Settled  *Time  `json:"settled"` // every tick up to here has ended
}

// Run is one run of one shard.
type Run struct {
	ID         string            `json:"id"`
	Namespace  string            `json:"namespace"`
	Job        string            `json:"job"`
	Shard      int               `json:"shard"`
	Shards     int               `json:"shards"`
	Tick       *Time             `json:"tick"`
	Trigger    string            `json:"trigger"`
	Attempt    int               `json:"attempt"`
	Phase      string            `json:"phase"`
	Reason     string            `json:"reason"`
	Executor   string            `json:"executor"`
	Token      int64             `json:"token"`
	ArmedAt    *Time             `json:"armed_at"`
	StartedAt  *Time             `json:"started_at"`
	EndedAt    *Time             `json:"ended_at"`
	LatenessMS *int64            `json:"lateness_ms"`
	DurationMS *int64            `json:"duration_ms"`
	ExitCode   *int              `json:"exit_code"`
	Message    string            `json:"message"`
	Result     json.RawMessage   `json:"result"`
	Generation int64             `json:"generation"`
	Params     map[string]string `json:"params,omitempty"`
}

// RunRequest asks for runs now.
type RunRequest struct {
	Shards []int             `json:"shards,omitempty" doc:"Shards to run; all when empty."`
	Params map[string]string `json:"params,omitempty" doc:"Added to the job's params, or replacing them."`
	Reason string            `json:"reason,omitempty"`
}

// Started answers a request for runs.
type Started struct {
	Command string   `json:"command"`
	Runs    []string `json:"runs"`
}

// ReasonRequest carries why something is done.
type ReasonRequest struct {
	Reason string `json:"reason,omitempty"`
}

// Next is the ticks to come.
type Next struct {
	Timezone string     `json:"timezone"`
	Items    []NextTick `json:"items"`
}

// NextTick is one of them.
type NextTick struct {
	Tick     *Time  `json:"tick"`
	Local    string `json:"local"`
	Excluded bool   `json:"excluded,omitempty"`
}

// Explanation answers "why did it not run, where does it run": each rule that was checked, in order, with the verdict.
type Explanation struct {
	Namespace string  `json:"namespace"`
	Job       string  `json:"job"`
	Shard     *int    `json:"shard,omitempty"`
	At        *Time   `json:"at,omitempty"`
	Verdict   string  `json:"verdict"`
	OK        bool    `json:"ok"`
	Checks    []Check `json:"checks"`
}

// Check is one rule.
type Check struct {
	Rule    string `json:"rule"`
	Verdict string `json:"verdict"` // ok, no, info
	Detail  string `json:"detail"`
}

// Version of a server.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	API     string `json:"api"`
}

// Problem is an error, RFC 9457, with a stable code.
type Problem struct {
	Type   string  `json:"type"`
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail,omitempty"`
	Code   string  `json:"code"`
	Hint   string  `json:"hint,omitempty"`
	Errors []Field `json:"errors,omitempty"`
}

// Field is one mistake in a request.
type Field struct {
	Location string `json:"location,omitempty"`
	Message  string `json:"message"`
}

// Error is the problem in one line, or more when it has several mistakes.
func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = p.Title
	}
	for _, f := range p.Errors {
		s += "\n" + f.Message
	}
	if p.Hint != "" {
		s += "\n" + p.Hint
	}
	return s
}

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType of a problem.
func (p *Problem) ContentType(string) string { return "application/problem+json" }
