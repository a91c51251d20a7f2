package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store/kv"
)

// DefaultPrefix of all keys.
const DefaultPrefix = "/rota/v1/"

// Sentinels of the typed operations.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("changed meanwhile")
)

// Store spells keys. It is stateless and safe for concurrent use.
type Store struct {
	KV     kv.Store
	prefix string
}

// New returns a store under a prefix ("" for the default).
func New(s kv.Store, prefix string) *Store {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return &Store{KV: s, prefix: strings.TrimSuffix(prefix, "/") + "/"}
}

// Family is one kind of key inside a namespace.
type Family string

// The families.
const (
	Jobs        Family = "jobs"
	Commands    Family = "commands"
	Drains      Family = "drain"
	Executors   Family = "executors"
	Pulses      Family = "pulse"
	Assignments Family = "assignment"
	Rounds      Family = "rounds"
	Records     Family = "runs"
)

// JobKey names a job.
type JobKey struct{ Namespace, Name string }

func (k JobKey) String() string { return k.Namespace + "/" + k.Name }

// ShardKey names the record of a shard.
type ShardKey struct {
	JobKey
	UID   int64
	Shard int
}

func (s *Store) key(parts ...string) string { return s.prefix + strings.Join(parts, "/") }

func shardName(n int) string { return fmt.Sprintf("%06d", n) }

func uidName(uid int64) string { return strconv.FormatInt(uid, 10) }

func (s *Store) jobKey(k JobKey) string { return s.key(k.Namespace, string(Jobs), k.Name) }
func (s *Store) recordKey(k ShardKey) string {
	return s.key(k.Namespace, string(Records), k.Name, uidName(k.UID), shardName(k.Shard))
}
func (s *Store) commandKey(k JobKey, shard int, id string) string {
	return s.key(k.Namespace, string(Commands), k.Name, shardName(shard), id)
}
func (s *Store) presenceKey(ns, executor, incarnation string) string {
	return s.key(ns, string(Executors), executor, incarnation)
}
func (s *Store) pulseKey(ns, executor, incarnation string) string {
	return s.key(ns, string(Pulses), executor, incarnation)
}
func (s *Store) assignmentKey(ns, executor, job string) string {
	return s.key(ns, string(Assignments), executor, job)
}
func (s *Store) leaderKey() string { return s.prefix + "scheduler/leader" }

// Presence is what an executor says of itself.
type Presence struct {
	State    string            `json:"state"` // ready or draining
	Labels   map[string]string `json:"labels,omitempty"`
	Capacity int               `json:"capacity,omitempty"`
	Slots    int               `json:"slots,omitempty"` // concurrency limit; 0: none
	Handlers []string          `json:"handlers,omitempty"`
	Shell    bool              `json:"shell,omitempty"`
	HTTP     bool              `json:"http,omitempty"`
	Zones    string            `json:"zones,omitempty"` // fingerprint of its time zone rules
	Version  string            `json:"version"`
	Host     string            `json:"host"`
	Started  time.Time         `json:"started"`
}

// Pulse is what changes all the time about an executor. It has a key of its own, because every executor watches the presences of
// the others and none needs to see this.
type Pulse struct {
	Wall    time.Time `json:"wall"` // the executor's wall clock when it wrote this
	Running int       `json:"running"`
}

// The states of a presence.
const (
	Ready    = "ready"
	Draining = "draining"
)

// Assignment is the shards of one job that one executor should own.
type Assignment struct {
	UID    int64  `json:"uid"`
	Shards Ranges `json:"shards"`
	Total  int    `json:"total"` // shards of the job, for per-executor jobs
	// Since is, for per-executor jobs, when the numbers were given: ticks before it are not this executor's.
	Since int64 `json:"since,omitempty"`
	// Moves are the changes that this revision made.
	Moves []Move `json:"moves,omitempty"`
}

// Move is one change of ownership and why.
type Move struct {
	Shards Ranges `json:"shards"`
	From   string `json:"from,omitempty"` // executor, "" when the shard had no owner
	Reason string `json:"reason"`
	At     int64  `json:"at"`
}

// Drain turns an executor's traffic off until it is resumed.
type Drain struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
}

// Command is a wish about one shard.
type Command struct {
	Verb    string            `json:"verb"` // run, stop, rerun
	Trigger jobs.Trigger      `json:"trigger"`
	Tick    int64             `json:"tick"`          // of the run to be; for upstream, the upstream's
	Run     string            `json:"run,omitempty"` // stop: only this run
	Params  map[string]string `json:"params,omitempty"`
	At      int64             `json:"at"`
	Reason  string            `json:"reason,omitempty"`
	Settled string            `json:"settled,omitempty"` // what became of it: a run id, or a sentence
	EndedAt int64             `json:"ended_at,omitempty"`
}

// The verbs of a command.
const (
	VerbRun  = "run"
	VerbStop = "stop"
)

// Round is how far a job that runs after others was handed its upstream ticks.
type Round struct {
	UID  int64 `json:"uid"`
	Tick int64 `json:"tick"`
}

// Leader is the value of the term.
type Leader struct {
	Server  string    `json:"server"`
	Since   time.Time `json:"since"`
	Version string    `json:"version"`
}

// Ranges is a sorted set of shard numbers, written "0-3,7".
type Ranges []int

// MarshalText implements [encoding.TextMarshaler].
func (r Ranges) MarshalText() ([]byte, error) {
	var b []byte
	for i := 0; i < len(r); {
		j := i
		for j+1 < len(r) && r[j+1] == r[j]+1 {
			j++
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(r[i]), 10)
		if j > i {
			b = strconv.AppendInt(append(b, '-'), int64(r[j]), 10)
		}
		i = j + 1
	}
	return b, nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *Ranges) UnmarshalText(b []byte) error {
	*r = nil
	if len(b) == 0 {
		return nil
	}
	for _, p := range strings.Split(string(b), ",") {
		lo, hi, ok := strings.Cut(p, "-")
		if !ok {
			hi = lo
		}
		a, err1 := strconv.Atoi(lo)
		z, err2 := strconv.Atoi(hi)
		if err1 != nil || err2 != nil || a < 0 || z < a || z > 10*jobs.MaxShards {
			return fmt.Errorf("%q is not a set of shards", p)
		}
		for ; a <= z; a++ {
			*r = append(*r, a)
		}
	}
	sort.Ints(*r)
	return nil
}

func (r Ranges) String() string { b, _ := r.MarshalText(); return string(b) }

// idRE is what executors and commands may be called.
var idRE = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,126}[A-Za-z0-9])?$`)

// ValidID says whether s may name an executor or a command.
func ValidID(s string) bool { return idRE.MatchString(s) && !strings.Contains(s, "..") }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("store: a value cannot be encoded: " + err.Error()) // only types of this package come here
	}
	return b
}

// done turns a result into an error: a refusal is a conflict.
func done(r kv.Result, err error, what string) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if !r.Applied {
		return fmt.Errorf("%s: %w", what, ErrConflict)
	}
	return nil
}

func (s *Store) commit(ctx context.Context, t kv.Txn) (kv.Result, error) {
	return kv.Commit(ctx, s.KV, t)
}
