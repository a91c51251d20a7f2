package jobs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Phase of a run.
type Phase string

// The phases. The last six are ends.
const (
	Armed     Phase = "armed"
	Running   Phase = "running"
	Succeeded Phase = "succeeded"
	Failed    Phase = "failed"
	TimedOut  Phase = "timed_out"
	Stopped   Phase = "stopped"
	Lost      Phase = "lost"
	Skipped   Phase = "skipped"
	Missed    Phase = "missed" // of a Fact only
)

// Ended says whether a run in this phase is over.
func (p Phase) Ended() bool {
	switch p {
	case Succeeded, Failed, TimedOut, Stopped, Lost, Skipped, Missed:
		return true
	}
	return false
}

// Trigger says what a run was started by.
type Trigger string

// The triggers.
const (
	BySchedule Trigger = "schedule"
	ByHand     Trigger = "manual"
	ByUpstream Trigger = "upstream"
	ByEvent    Trigger = "event"
	ByTimeout  Trigger = "timeout"
	ByRerun    Trigger = "rerun"
)

// Holder is one incarnation of an executor; the zero Holder is nobody.
type Holder struct {
	Executor    string `json:"x,omitempty"`
	Incarnation string `json:"i,omitempty"`
}

// Record is the state of one shard. Instants are Unix milliseconds.
type Record struct {
	Cursor int64  `json:"cursor"`
	Run    *Run   `json:"run,omitempty"`
	Last   *Run   `json:"last,omitempty"`
	Facts  []Fact `json:"facts,omitempty"` // ticks that the commit which wrote this revision accounted for without a run
	Nonce  string `json:"nonce"`           // of the commit that wrote this revision
}

// Run is one run of one shard with its current attempt.
type Run struct {
	ID         string            `json:"id"`
	Tick       int64             `json:"tick"`
	Trigger    Trigger           `json:"trigger"`
	Attempt    int               `json:"attempt"`
	Lost       int               `json:"lost,omitempty"` // attempts that were lost; they do not count against retry
	Phase      Phase             `json:"phase"`
	Reason     string            `json:"reason,omitempty"`
	Holder     Holder            `json:"holder,omitzero"`
	Token      int64             `json:"token,omitempty"` // of the current attempt; 0 while armed: it is the record's mod revision
	Due        int64             `json:"due"`             // when the attempt starts
	ArmedAt    int64             `json:"armed_at"`
	StartedAt  int64             `json:"started_at,omitempty"`
	EndedAt    int64             `json:"ended_at,omitempty"`
	ExitCode   *int              `json:"exit_code,omitempty"`
	Message    string            `json:"message,omitempty"`
	Result     json.RawMessage   `json:"result,omitempty"`
	Output     string            `json:"output,omitempty"` // tail of a shell run's output
	Generation int64             `json:"generation"`       // mod revision of the definition
	Params     map[string]string `json:"params,omitempty"` // of a command
	Command    string            `json:"command,omitempty"`
}

// Fact accounts for ticks that did not run: all ticks of the schedule in [From, To], Count of them.
type Fact struct {
	Phase  Phase  `json:"phase"` // skipped or missed
	Reason string `json:"reason"`
	From   int64  `json:"from"`
	To     int64  `json:"to"`
	Count  int64  `json:"count"`
}

// The reasons of facts and ends.
const (
	ReasonExcluded   = "excluded"    // skipped: inside a pause window
	ReasonOverlap    = "overlap"     // skipped: the previous run was still going
	ReasonChanged    = "changed"     // skipped: armed, then the definition changed or was disabled
	ReasonMisfire    = "misfire"     // missed: nothing could run it in time and the policy made up for a later one or none
	ReasonExpired    = "expired"     // missed: longer ago than misfire_within
	ReasonSuperseded = "superseded"  // missed: due under a schedule that was changed before anything could run it
	ReasonHolderLost = "holder lost" // lost: the executor vanished
	ReasonReplaced   = "replaced"    // stopped: overlap is replace
)

// Settled is the instant up to which every scheduled or upstream tick of the shard has ended.
func (r *Record) Settled() int64 {
	if r.Run != nil && r.Run.counts() {
		return min(r.Cursor, r.Run.Tick-1)
	}
	return r.Cursor
}

// counts says whether the end of the run accounts for a tick.
func (r *Run) counts() bool { return r.Trigger == BySchedule || r.Trigger == ByUpstream }

// End moves the run to Last and, where it accounts for a tick, the cursor.
func (r *Record) End(phase Phase, reason string, at int64) {
	run := *r.Run
	run.Phase, run.Reason, run.EndedAt = phase, reason, at
	if run.counts() {
		r.Cursor = max(r.Cursor, run.Tick)
	}
	r.Run, r.Last = nil, &run
}

// Account appends facts and moves the cursor over them.
func (r *Record) Account(facts []Fact) {
	r.Facts = append(r.Facts, facts...)
	for _, f := range facts {
		r.Cursor = max(r.Cursor, f.To)
	}
}

// RunID is the identity of a run: of a tick, or of a command when cmd is set.
func RunID(job string, uid int64, shard int, tick int64, cmd string) string {
	last := strconv.FormatInt(tick, 10)
	if cmd != "" {
		last = "c" + cmd
	}
	return job + "_" + strconv.FormatInt(uid, 36) + "_" + strconv.Itoa(shard) + "_" + last
}

// ParseRunID splits an id made by [RunID].
func ParseRunID(id string) (job string, uid int64, shard int, err error) {
	p := strings.SplitN(id, "_", 4)
	if len(p) == 4 {
		if uid, err = strconv.ParseInt(p[1], 36, 64); err == nil {
			if shard, err = strconv.Atoi(p[2]); err == nil && ValidName(p[0]) == "" {
				return p[0], uid, shard, nil
			}
		}
	}
	return "", 0, 0, fmt.Errorf("%q is not the id of a run", id)
}

// CheckStep says which rule of the record's life a revision breaks; nil when none. old is nil for a first revision.
func CheckStep(old, cur *Record) error {
	if old == nil {
		return nil
	}
	if cur.Cursor < old.Cursor {
		return fmt.Errorf("the cursor went back from %d to %d", old.Cursor, cur.Cursor)
	}
	var passed int64 // the last instant that this revision accounts for
	for _, f := range cur.Facts {
		passed = max(passed, f.To)
	}
	if cur.Last != nil && cur.Last.counts() {
		passed = max(passed, cur.Last.Tick)
	}
	if cur.Cursor > old.Cursor && cur.Cursor > passed {
		return fmt.Errorf("the cursor moved to %d without a record (accounted up to %d)", cur.Cursor, passed)
	}
	// A run that never started may go back to being a tick to come, as long as its tick is not passed.
	back := old.Run != nil && old.Run.Phase == Armed && old.Run.Attempt == 1 && cur.Cursor < old.Run.Tick
	if !back && old.Run != nil && (cur.Run == nil || cur.Run.ID != old.Run.ID) && (cur.Last == nil || cur.Last.ID != old.Run.ID) {
		return fmt.Errorf("run %s vanished without an end", old.Run.ID)
	}
	if old.Run != nil && cur.Run != nil && cur.Run.ID == old.Run.ID && cur.Run.Attempt < old.Run.Attempt {
		return fmt.Errorf("the attempt of %s went back", old.Run.ID)
	}
	return nil
}
