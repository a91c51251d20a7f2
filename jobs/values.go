package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
)

// Duration is written as in Go: 300ms, 5s, 1h30m.
type Duration time.Duration

// String omits zero units at the end: 5m, not 5m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%q is not a duration: write 300ms, 5s, 10m or 1h30m", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML writes the text form.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// UnmarshalYAML reads the text form only: a bare number has no unit.
func (d *Duration) UnmarshalYAML(unmarshal func(any) error) error {
	var v any
	if err := unmarshal(&v); err != nil {
		return err
	}
	s, ok := v.(string)
	if !ok {
		if fmt.Sprint(v) == "0" {
			*d = 0
			return nil
		}
		return fmt.Errorf("%v is not a duration: write a unit, as in 300ms, 5s, 10m or 1h30m", v)
	}
	return d.UnmarshalText([]byte(s))
}

// JSONSchema describes the text form.
func (Duration) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`, Examples: []any{"5s", "10m", "1h30m"}}
}

// Shards says in how many parts a job runs: a number, a list of parameters (one per shard), or one per eligible executor.
type Shards struct {
	Count       int // 0 with PerExecutor
	Params      []string
	PerExecutor bool
}

const perExecutor = "per-executor"

func (s Shards) value() any {
	switch {
	case s.PerExecutor:
		return perExecutor
	case s.Params != nil:
		return s.Params
	}
	return s.Count
}

func (s *Shards) set(v any) error {
	switch v := v.(type) {
	case string:
		if v != perExecutor {
			if n, err := strconv.Atoi(v); err == nil {
				return s.set(n)
			}
			return fmt.Errorf("%q is neither a number, a list of parameters nor per-executor", v)
		}
		*s = Shards{PerExecutor: true}
	case []any:
		params := make([]string, len(v))
		for i, p := range v {
			switch p.(type) {
			case nil, map[string]any, []any:
				return errors.New("a list of shards holds one plain parameter for each")
			}
			params[i] = fmt.Sprint(p)
		}
		*s = Shards{Count: len(params), Params: params}
	case int:
		*s = Shards{Count: v}
	case int64:
		*s = Shards{Count: int(v)}
	case uint64:
		*s = Shards{Count: int(min(v, 1<<40))}
	case float64:
		if v != float64(int(v)) {
			return fmt.Errorf("%v is not a whole number of shards", v)
		}
		*s = Shards{Count: int(v)}
	default:
		return fmt.Errorf("%v is neither a number, a list of parameters nor per-executor", v)
	}
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (s Shards) MarshalJSON() ([]byte, error) { return json.Marshal(s.value()) }

// UnmarshalJSON implements [json.Unmarshaler].
func (s *Shards) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	return s.set(v)
}

// MarshalYAML writes the short form.
func (s Shards) MarshalYAML() (any, error) { return s.value(), nil }

// UnmarshalYAML reads any of the forms.
func (s *Shards) UnmarshalYAML(unmarshal func(any) error) error {
	var v any
	if err := unmarshal(&v); err != nil {
		return err
	}
	return s.set(v)
}

// JSONSchema describes the three forms.
func (Shards) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "integer", Minimum: "1", Maximum: json.Number(strconv.Itoa(MaxShards))},
		{Type: "array", Items: &jsonschema.Schema{Type: "string"}},
		{Type: "string", Enum: []any{perExecutor}},
	}}
}

// Param of one shard; "" when the job lists none.
func (s Shards) Param(i int) string {
	if i < len(s.Params) {
		return s.Params[i]
	}
	return ""
}

// Schema is the JSON Schema of a job document.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{ExpandedStruct: true, FieldNameTag: "json"}
	s := r.Reflect(&Job{})
	s.ID = "https://rota.dev/schema/job.json"
	s.Title = "Rota job"
	return json.MarshalIndent(s, "", "  ")
}
