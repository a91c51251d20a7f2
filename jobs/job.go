package jobs

import (
	"encoding/json"
	"time"
)

// APIVersion of the documents this package reads.
const APIVersion = "rota/v1"

// Job is a definition.
type Job struct {
	APIVersion string   `json:"apiVersion" yaml:"apiVersion" jsonschema:"enum=rota/v1"`
	Kind       string   `json:"kind" yaml:"kind" jsonschema:"enum=Job"`
	Metadata   Metadata `json:"metadata" yaml:"metadata"`
	Spec       Spec     `json:"spec" yaml:"spec"`
	// Status is kept by the server; input is ignored.
	Status *Status `json:"status,omitempty" yaml:"-" jsonschema:"-"`
}

// New returns a job of one shard, ready to be filled in.
func New(namespace, name string) Job {
	return Job{APIVersion: APIVersion, Kind: "Job", Metadata: Metadata{Namespace: namespace, Name: name}, Spec: Spec{Shards: Shards{Count: 1}}}
}

// Every sets the schedule to an interval.
func (j Job) Every(d time.Duration) Job {
	j.Spec.Schedule = &Schedule{Every: Duration(d)}
	return j
}

// WithCron sets the schedule to a cron expression, evaluated in an IANA zone ("" for UTC).
func (j Job) WithCron(expr, zone string) Job {
	j.Spec.Schedule = &Schedule{Cron: expr, Timezone: zone}
	return j
}

// InShards sets the number of shards.
func (j Job) InShards(n int) Job {
	j.Spec.Shards = Shards{Count: n}
	return j
}

// Handle sets what runs: a handler registered in Go.
func (j Job) Handle(handler string) Job {
	j.Spec.Run.Handler = handler
	return j
}

// Metadata names a job.
type Metadata struct {
	Namespace   string            `json:"namespace,omitempty" yaml:"namespace,omitempty" jsonschema:"description=Tenant; default is the namespace of the command."`
	Name        string            `json:"name" yaml:"name" jsonschema:"description=At most 63 characters: [a-z0-9]([-a-z0-9.]*[a-z0-9])?"`
	Labels      map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"`
	Description string            `json:"description,omitempty" yaml:"description,omitempty"`
	Owner       string            `json:"owner,omitempty" yaml:"owner,omitempty"`
}

// Spec says what to run, when, and in how many shards.
type Spec struct {
	Enabled   *bool     `json:"enabled,omitempty" yaml:"enabled,omitempty" jsonschema:"description=Default true."`
	Schedule  *Schedule `json:"schedule,omitempty" yaml:"schedule,omitempty"`
	After     []string  `json:"after,omitempty" yaml:"after,omitempty" jsonschema:"description=Upstream jobs: runs once for each tick that all of them have ended."`
	On        []string  `json:"on,omitempty" yaml:"on,omitempty" jsonschema:"description=Event types, exact or prefix.*"`
	Timeout   *Timeout  `json:"timeout,omitempty" yaml:"timeout,omitempty"`
	Shards    Shards    `json:"shards" yaml:"shards,omitempty"`
	Run       RunSpec   `json:"run" yaml:"run"`
	Placement Placement `json:"placement,omitzero" yaml:"placement,omitempty"`
	Emits     []string  `json:"emits,omitempty" yaml:"emits,omitempty"`
	Alerts    *Alerts   `json:"alerts,omitempty" yaml:"alerts,omitempty"`
	// DisabledReason is what was said when the job was disabled.
	DisabledReason string `json:"disabledReason,omitempty" yaml:"disabledReason,omitempty" jsonschema:"-"`
}

// Schedule says when ticks are due: exactly one of Cron, Every, At.
type Schedule struct {
	Cron          string     `json:"cron,omitempty" yaml:"cron,omitempty" jsonschema:"description=5 fields or 6 with seconds first; or a macro such as @hourly."`
	Every         Duration   `json:"every,omitempty" yaml:"every,omitempty"`
	At            *time.Time `json:"at,omitempty" yaml:"at,omitempty"`
	Timezone      string     `json:"timezone,omitempty" yaml:"timezone,omitempty" jsonschema:"description=IANA name; default UTC."`
	Jitter        Duration   `json:"jitter,omitempty" yaml:"jitter,omitempty" jsonschema:"description=Each shard starts late by a fixed share of this."`
	Exclude       []Window   `json:"exclude,omitempty" yaml:"exclude,omitempty"`
	Misfire       Misfire    `json:"misfire,omitempty" yaml:"misfire,omitempty" jsonschema:"enum=once,enum=all,enum=none"`
	MisfireWithin Duration   `json:"misfire_within,omitempty" yaml:"misfire_within,omitempty"`
	Overlap       Overlap    `json:"overlap,omitempty" yaml:"overlap,omitempty" jsonschema:"enum=skip,enum=queue,enum=replace"`
}

// Window is a pause: ticks inside are recorded as skipped. When both are given, both must hold.
type Window struct {
	Dates string `json:"dates,omitempty" yaml:"dates,omitempty" jsonschema:"description=2026-11-10 or 2026-11-10/2026-11-12 (inclusive)"`
	Times string `json:"times,omitempty" yaml:"times,omitempty" jsonschema:"description=23:30/00:30 (end exclusive; may wrap midnight)"`
}

// Misfire says what becomes of ticks that nothing could run at their time.
type Misfire string

// The misfire policies: run the newest, run every one in order, run none.
const (
	MisfireOnce Misfire = "once"
	MisfireAll  Misfire = "all"
	MisfireNone Misfire = "none"
)

// Overlap says what becomes of a tick that is due while the shard still runs.
type Overlap string

// The overlap policies.
const (
	OverlapSkip    Overlap = "skip"
	OverlapQueue   Overlap = "queue"
	OverlapReplace Overlap = "replace"
)

// Timeout starts a durable timer with one event and cancels it with another.
type Timeout struct {
	Start  string   `json:"start" yaml:"start"`
	Cancel []string `json:"cancel,omitempty" yaml:"cancel,omitempty"`
	After  Duration `json:"after" yaml:"after"`
	Grace  Duration `json:"grace,omitempty" yaml:"grace,omitempty"`
	Rearm  bool     `json:"rearm,omitempty" yaml:"rearm,omitempty"`
}

// RunSpec says what a run is: exactly one of Handler, Shell, HTTP.
type RunSpec struct {
	Handler     string            `json:"handler,omitempty" yaml:"handler,omitempty"`
	Shell       string            `json:"shell,omitempty" yaml:"shell,omitempty"`
	HTTP        *HTTP             `json:"http,omitempty" yaml:"http,omitempty"`
	Params      map[string]string `json:"params,omitempty" yaml:"params,omitempty"`
	Env         map[string]string `json:"env,omitempty" yaml:"env,omitempty"`
	Secrets     map[string]Secret `json:"secrets,omitempty" yaml:"secrets,omitempty"`
	WarnAfter   Duration          `json:"warn_after,omitempty" yaml:"warn_after,omitempty"`
	Timeout     Duration          `json:"timeout,omitempty" yaml:"timeout,omitempty"`
	KillGrace   Duration          `json:"kill_grace,omitempty" yaml:"kill_grace,omitempty"`
	Retry       *Retry            `json:"retry,omitempty" yaml:"retry,omitempty"`
	OnLost      OnLost            `json:"on_lost,omitempty" yaml:"on_lost,omitempty" jsonschema:"enum=rerun,enum=fail"`
	Concurrency int               `json:"concurrency,omitempty" yaml:"concurrency,omitempty"`
	Order       string            `json:"order,omitempty" yaml:"order,omitempty" jsonschema:"enum=key,enum=none"`
}

// HTTP is a webhook target.
type HTTP struct {
	URL    string  `json:"url" yaml:"url"`
	Method string  `json:"method,omitempty" yaml:"method,omitempty"`
	Secret *Secret `json:"secret,omitempty" yaml:"secret,omitempty"`
}

// Secret is a reference that the executor resolves; the value is never stored.
type Secret struct {
	Env  string `json:"env,omitempty" yaml:"env,omitempty"`
	File string `json:"file,omitempty" yaml:"file,omitempty"`
}

// Retry of failed attempts. Attempts counts the first one too.
type Retry struct {
	Attempts   int      `json:"attempts" yaml:"attempts"`
	Backoff    Duration `json:"backoff,omitempty" yaml:"backoff,omitempty"`
	MaxBackoff Duration `json:"max_backoff,omitempty" yaml:"max_backoff,omitempty"`
}

// OnLost says what becomes of an attempt whose executor was lost.
type OnLost string

// The policies for lost attempts: run it again elsewhere, or record it as lost.
const (
	OnLostRerun OnLost = "rerun"
	OnLostFail  OnLost = "fail"
)

// Placement says where shards may and should run.
type Placement struct {
	Weight        int               `json:"weight,omitempty" yaml:"weight,omitempty"`
	Require       map[string]string `json:"require,omitempty" yaml:"require,omitempty"`
	Prefer        []string          `json:"prefer,omitempty" yaml:"prefer,omitempty" jsonschema:"description=Executor ids, or label=value."`
	OnlyPreferred bool              `json:"only_preferred,omitempty" yaml:"only_preferred,omitempty"`
}

// Alerts are the job's own thresholds.
type Alerts struct {
	StartWithin         Duration `json:"start_within,omitempty" yaml:"start_within,omitempty"`
	ConsecutiveFailures int      `json:"consecutive_failures,omitempty" yaml:"consecutive_failures,omitempty"`
	NoSuccessWithin     Duration `json:"no_success_within,omitempty" yaml:"no_success_within,omitempty"`
	Severity            string   `json:"severity,omitempty" yaml:"severity,omitempty" jsonschema:"enum=critical,enum=warning,enum=info"`
}

// Status is what the server keeps beside a definition.
type Status struct {
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
	// Spans are the schedules that governed the job, oldest first; the last one is in force.
	Spans []Span `json:"spans"`
}

// Span is one schedule in force from an instant on. A nil Schedule means that the job was disabled or had none.
type Span struct {
	From     time.Time `json:"from"`
	Schedule *Schedule `json:"schedule,omitempty"`
	Shards   int       `json:"shards"`
}

const maxSpans = 8

// Enabled says whether the job's schedule is in force.
func (j *Job) Enabled() bool { return j.Spec.Enabled == nil || *j.Spec.Enabled }

// Stamp sets the status of a definition that replaces prev (nil: it is new) at now, keeping the spans of former schedules.
func (j *Job) Stamp(prev *Job, now time.Time) {
	now = now.UTC().Truncate(time.Millisecond)
	span := Span{From: now, Shards: j.Spec.Shards.Count}
	if j.Enabled() {
		span.Schedule = j.Spec.Schedule
	}
	st := &Status{CreatedAt: now, UpdatedAt: now}
	if prev != nil && prev.Status != nil {
		st.CreatedAt = prev.Status.CreatedAt
		st.Spans = append(st.Spans, prev.Status.Spans...)
	}
	if n := len(st.Spans); n == 0 || !same(st.Spans[n-1], span) {
		if n > 0 && !now.After(st.Spans[n-1].From) {
			span.From = st.Spans[n-1].From.Add(time.Millisecond)
		}
		st.Spans = append(st.Spans, span)
	}
	if n := len(st.Spans); n > maxSpans {
		st.Spans = st.Spans[n-maxSpans:]
	}
	j.Status = st
}

func same(a, b Span) bool {
	a.From, b.From = time.Time{}, time.Time{}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// SameIntent says whether two definitions differ in nothing that a person wrote.
func (j *Job) SameIntent(o *Job) bool {
	a, b := *j, *o
	a.Status, b.Status = nil, nil
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// Defaults for what a definition leaves out.
const (
	DefaultMisfireWithin = Duration(time.Hour)
	DefaultKillGrace     = Duration(10 * time.Second)
	DefaultBackoff       = Duration(5 * time.Second)
	DefaultMaxBackoff    = Duration(5 * time.Minute)
	MaxShards            = 100_000
)

// MisfirePolicy and the following resolve defaults.
func (s *Schedule) MisfirePolicy() Misfire {
	if s == nil || s.Misfire == "" {
		return MisfireOnce
	}
	return s.Misfire
}

// Within is how far back missed ticks are made up for.
func (s *Schedule) Within() time.Duration {
	if s == nil || s.MisfireWithin == 0 {
		return time.Duration(DefaultMisfireWithin)
	}
	return time.Duration(s.MisfireWithin)
}

// OverlapPolicy resolves the default.
func (s *Schedule) OverlapPolicy() Overlap {
	if s == nil || s.Overlap == "" {
		return OverlapSkip
	}
	return s.Overlap
}

// Grace is the time between TERM and KILL.
func (r *RunSpec) Grace() time.Duration {
	if r.KillGrace == 0 {
		return time.Duration(DefaultKillGrace)
	}
	return time.Duration(r.KillGrace)
}

// Attempts allowed, the first one included.
func (r *RunSpec) Attempts() int {
	if r.Retry == nil || r.Retry.Attempts < 1 {
		return 1
	}
	return r.Retry.Attempts
}

// Backoff before the attempt after n failed ones (n from 1): doubling, capped.
func (r *RunSpec) Backoff(n int) time.Duration {
	base, limit := time.Duration(DefaultBackoff), time.Duration(DefaultMaxBackoff)
	if r.Retry != nil && r.Retry.Backoff > 0 {
		base = time.Duration(r.Retry.Backoff)
	}
	if r.Retry != nil && r.Retry.MaxBackoff > 0 {
		limit = time.Duration(r.Retry.MaxBackoff)
	}
	d := base
	for ; n > 1 && d < limit; n-- {
		d *= 2
	}
	return min(d, limit)
}

// Lost resolves the default of OnLost.
func (r *RunSpec) Lost() OnLost {
	if r.OnLost == "" {
		return OnLostRerun
	}
	return r.OnLost
}

// Kind is handler, shell or http.
func (r *RunSpec) Kind() string {
	switch {
	case r.Shell != "":
		return "shell"
	case r.HTTP != nil:
		return "http"
	}
	return "handler"
}
