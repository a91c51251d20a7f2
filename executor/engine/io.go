package engine

import (
	"encoding/json"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// The inputs, besides those of package lease and [store.Update].
type (
	// Committed answers Commit.
	Committed struct {
		Seq    int64
		Shard  store.ShardKey
		Result kv.Result
	}
	// Loaded answers Load; shards without a record are missing in Records.
	Loaded struct {
		Job     store.JobKey
		UID     int64
		Shards  []int
		Records map[int]store.RecordItem
		Err     error
	}
	// Ended says that the handler of a run has returned and everything below it is dead.
	Ended struct {
		Seq     int64
		Outcome Outcome
	}
	// Drain asks to stop: nothing new, wait for what runs for at most Limit, then give the incarnation back.
	Drain struct{ Limit time.Duration }
)

// Outcome is what became of an attempt.
type Outcome struct {
	Phase    jobs.Phase // Succeeded, Failed or Skipped
	Reason   string
	Message  string
	Never    bool          // do not retry
	Again    bool          // retry even when the attempts are used up
	After    time.Duration // with Again: wait this long instead of the backoff
	ExitCode *int
	Result   json.RawMessage
	Output   string
}

// The effects, besides those of package lease.
type (
	// Commit asks to submit a decision.
	Commit struct {
		Seq    int64
		Commit store.RecordCommit
	}
	// Settle asks to settle a command that changes no record; the answer does not matter.
	Settle struct {
		Job     store.JobKey
		Command store.SettledCommand
	}
	// Load asks to read records.
	Load struct {
		Job    store.JobKey
		UID    int64
		Shards []int
	}
	// Start asks to run a handler.
	Start struct {
		Seq    int64
		Shard  store.ShardKey
		Run    jobs.Run
		Job    *jobs.Job
		Shards int
		Until  time.Duration // trust on CLOCK_BOOTTIME
	}
	// Cancel asks to end a running handler.
	Cancel struct {
		Seq   int64
		Cause Cause
	}
	// Announce asks to change the presence.
	Announce struct{ State string }
	// Pulse asks to write the pulse.
	Pulse struct{ Running int }
	// Finished says that the drain is complete.
	Finished struct{}
	// Note reports something for logs and metrics.
	Note struct {
		Kind     NoteKind
		Shard    store.ShardKey
		Run      *jobs.Run
		Facts    []jobs.Fact
		Target   string // kind of handler
		Lateness time.Duration
		Text     string
	}
)

// NoteKind says what a [Note] is about.
type NoteKind int

// The kinds of notes.
const (
	NoteEnded     NoteKind = iota // a run ended for good
	NoteRetry                     // an attempt failed and another one is armed
	NoteFacts                     // ticks were skipped or missed
	NoteTakeover                  // a run of a lost holder was taken over; Lateness is the time since it was seen gone
	NoteRefused                   // a commit was refused because somebody else decided
	NoteSlow                      // a run exceeds warn_after
	NoteReleased                  // an armed run was handed back
	NoteCorrupt                   // a key cannot be understood
	NoteArmedLate                 // the grant arrived after the instant
)

// Cause says why a handler is cancelled.
type Cause string

// The causes.
const (
	CauseTimeout  Cause = "timeout"
	CauseStop     Cause = "stopped by command"
	CauseReplaced Cause = "replaced by a newer tick"
	CauseDrain    Cause = "drain limit reached"
	CauseFenced   Cause = "executor lost its lease"
	CauseLost     Cause = "another executor took the shard over"
)
