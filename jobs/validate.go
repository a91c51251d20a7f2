package jobs

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rota-dev/rota/cron"
)

// FieldError is one mistake in a document.
type FieldError struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"` // spec.schedule.cron
	Message string `json:"message"`
}

// Error is "FILE:LINE:COL: path: message", as compilers write it.
func (e FieldError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		if e.File != "" {
			b.WriteString(e.File + ":")
		}
		fmt.Fprintf(&b, "%d:%d: ", e.Line, e.Column)
	} else if e.File != "" {
		b.WriteString(e.File + ": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// FieldErrors are all mistakes of one document.
type FieldErrors []FieldError

func (es FieldErrors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

var (
	nameRE  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)
	envRE   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	eventRE = regexp.MustCompile(`^[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*(\.\*)?$`)
)

// reserved are the words that stand beside namespaces in the keyspace.
var reserved = []string{"namespaces", "scheduler", "servers", "meta"}

// ValidName says what is wrong with the name of a job or namespace; "" when nothing is.
func ValidName(s string) string {
	switch {
	case s == "":
		return "is required"
	case len(s) > 63:
		return fmt.Sprintf("is %d characters long; at most 63 are allowed", len(s))
	case !nameRE.MatchString(s) || strings.Contains(s, ".."):
		return fmt.Sprintf("%q is not a valid name: use lower case letters, digits, '-' and '.', starting and ending with a letter or digit", s)
	}
	return ""
}

// ValidNamespace is [ValidName] less the reserved words.
func ValidNamespace(s string) string {
	if slices.Contains(reserved, s) {
		return fmt.Sprintf("%q is reserved", s)
	}
	return ValidName(s)
}

type checker struct{ errs FieldErrors }

func (c *checker) bad(path, format string, a ...any) {
	c.errs = append(c.errs, FieldError{Path: path, Message: fmt.Sprintf(format, a...)})
}

func (c *checker) duration(path string, d Duration, lo, hi time.Duration) {
	if v := time.Duration(d); v != 0 && (v < lo || v > hi) {
		c.bad(path, "%v is out of range: must be between %v and %v", d, Duration(lo), Duration(hi))
	}
}

func (c *checker) oneOf(path, v string, allowed ...string) {
	if v != "" && !slices.Contains(allowed, v) {
		c.bad(path, "%q is not one of %s%s", v, strings.Join(allowed, ", "), suggest(v, allowed))
	}
}

const week = 7 * 24 * time.Hour

// Validate checks every field and returns all mistakes (nil: none), in document order of their paths.
func (j *Job) Validate() FieldErrors {
	c := &checker{}
	if j.APIVersion != APIVersion {
		c.bad("apiVersion", "%q is not supported: write %s", j.APIVersion, APIVersion)
	}
	if j.Kind != "Job" {
		c.bad("kind", "%q is not supported: write Job", j.Kind)
	}
	if j.Metadata.Namespace != "" {
		if msg := ValidNamespace(j.Metadata.Namespace); msg != "" {
			c.bad("metadata.namespace", "%s", msg)
		}
	}
	if msg := ValidName(j.Metadata.Name); msg != "" {
		c.bad("metadata.name", "%s", msg)
	}
	c.text("metadata.description", j.Metadata.Description, 4096)
	c.text("metadata.owner", j.Metadata.Owner, 256)
	for _, k := range keys(j.Metadata.Labels) {
		c.label("metadata.labels", k, j.Metadata.Labels[k])
	}
	c.triggers(j)
	c.shards(j.Spec.Shards)
	c.run(&j.Spec.Run)
	c.placement(&j.Spec.Placement)
	if a := j.Spec.Alerts; a != nil {
		c.duration("spec.alerts.start_within", a.StartWithin, time.Second, week)
		c.duration("spec.alerts.no_success_within", a.NoSuccessWithin, time.Second, 52*week)
		if a.ConsecutiveFailures < 0 || a.ConsecutiveFailures > 1000 {
			c.bad("spec.alerts.consecutive_failures", "%d is out of range: must be between 0 and 1000", a.ConsecutiveFailures)
		}
		c.oneOf("spec.alerts.severity", a.Severity, "critical", "warning", "info")
	}
	for i, e := range j.Spec.Emits {
		c.event(fmt.Sprintf("spec.emits[%d]", i), e)
	}
	return c.errs
}

func (c *checker) text(path, s string, limit int) {
	if len(s) > limit {
		c.bad(path, "is %d bytes long; at most %d are allowed", len(s), limit)
	}
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		c.bad(path, "must be valid UTF-8 without NUL")
	}
}

func (c *checker) label(path, k, v string) {
	if k == "" || len(k) > 63 || len(v) > 253 || strings.ContainsAny(k, "=,/ \t\n") || strings.ContainsAny(v, "\n\x00") {
		c.bad(path+"."+k, "is not a valid label: a key of at most 63 characters without space, '=', ',' and '/', a value of one line")
	}
}

func (c *checker) event(path, s string) {
	if len(s) > 253 || !eventRE.MatchString(s) {
		c.bad(path, "%q is not an event type: write words joined by dots, such as payment.timed-out, or prefix.*", s)
	}
}

func (c *checker) triggers(j *Job) {
	s := &j.Spec
	var given []string
	if s.Schedule != nil {
		given = append(given, "schedule")
		c.schedule(s.Schedule)
	}
	if len(s.After) > 0 {
		given = append(given, "after")
		seen := map[string]bool{}
		for i, a := range s.After {
			path := fmt.Sprintf("spec.after[%d]", i)
			switch {
			case ValidName(a) != "":
				c.bad(path, "%s", ValidName(a))
			case a == j.Metadata.Name:
				c.bad(path, "a job cannot run after itself")
			case seen[a]:
				c.bad(path, "%q is listed twice", a)
			}
			seen[a] = true
		}
		if len(s.After) > 32 {
			c.bad("spec.after", "lists %d jobs; at most 32 are allowed", len(s.After))
		}
	}
	if len(s.On) > 0 {
		given = append(given, "on")
		for i, e := range s.On {
			c.event(fmt.Sprintf("spec.on[%d]", i), e)
		}
	}
	if t := s.Timeout; t != nil {
		given = append(given, "timeout")
		c.event("spec.timeout.start", t.Start)
		for i, e := range t.Cancel {
			c.event(fmt.Sprintf("spec.timeout.cancel[%d]", i), e)
		}
		if t.After == 0 {
			c.bad("spec.timeout.after", "is required")
		}
		c.duration("spec.timeout.after", t.After, time.Second, 366*24*time.Hour)
		c.duration("spec.timeout.grace", t.Grace, 0, week)
	}
	if len(given) > 1 {
		c.bad("spec."+given[1], "a job has one trigger: %s stand together", strings.Join(given, " and "))
	}
}

func (c *checker) schedule(s *Schedule) {
	const p = "spec.schedule"
	n := 0
	for _, given := range []bool{s.Cron != "", s.Every != 0, s.At != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		c.bad(p, "needs exactly one of cron, every, at")
	}
	loc, err := cron.Zone(s.Timezone)
	if err != nil {
		c.bad(p+".timezone", "%v", err)
		loc = time.UTC
	}
	if s.Cron != "" {
		if _, err := cron.Parse(s.Cron, loc); err != nil {
			c.bad(p+".cron", "%v", err)
		}
	}
	if s.Every != 0 {
		if _, err := cron.Every(time.Duration(s.Every)); err != nil {
			c.bad(p+".every", "%v", err)
		}
	}
	if s.At != nil && (s.At.Year() < 2000 || s.At.Year() > 9999) {
		c.bad(p+".at", "the year %d is out of range", s.At.Year())
	}
	c.duration(p+".jitter", s.Jitter, time.Millisecond, 24*time.Hour)
	c.duration(p+".misfire_within", s.MisfireWithin, time.Millisecond, 366*24*time.Hour)
	c.oneOf(p+".misfire", string(s.Misfire), "once", "all", "none")
	c.oneOf(p+".overlap", string(s.Overlap), "skip", "queue", "replace")
	for i, w := range s.Exclude {
		if _, err := compileWindow(w); err != nil {
			c.bad(fmt.Sprintf("%s.exclude[%d]", p, i), "%v", err)
		}
	}
	if len(s.Exclude) > 100 {
		c.bad(p+".exclude", "lists %d windows; at most 100 are allowed", len(s.Exclude))
	}
}

func (c *checker) shards(s Shards) {
	switch {
	case s.PerExecutor:
	case s.Params != nil && len(s.Params) == 0:
		c.bad("spec.shards", "the list is empty: give at least one parameter")
	case s.Count < 1 || s.Count > MaxShards:
		c.bad("spec.shards", "%d is out of range: must be between 1 and %d", s.Count, MaxShards)
	}
	for i, p := range s.Params {
		c.text(fmt.Sprintf("spec.shards[%d]", i), p, 1024)
	}
}

func (c *checker) run(r *RunSpec) {
	n := 0
	for _, given := range []bool{r.Handler != "", r.Shell != "", r.HTTP != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		c.bad("spec.run", "needs exactly one of handler, shell, http")
	}
	if len(r.Handler) > 253 || strings.ContainsAny(r.Handler, " \t\n/\x00") {
		c.bad("spec.run.handler", "%.40q is not a handler name: at most 253 characters, without spaces and '/'", r.Handler)
	}
	c.text("spec.run.shell", r.Shell, 120<<10)
	if h := r.HTTP; h != nil {
		u, err := url.Parse(h.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			c.bad("spec.run.http.url", "%.80q is not an http or https URL without user name", h.URL)
		}
		c.oneOf("spec.run.http.method", h.Method, "POST", "PUT", "GET", "DELETE", "PATCH")
		if h.Secret != nil {
			c.secret("spec.run.http.secret", *h.Secret)
		}
	}
	total := 0
	for _, k := range keys(r.Params) {
		if !envRE.MatchString(strings.NewReplacer("-", "_", ".", "_").Replace(k)) {
			c.bad("spec.run.params."+k, "is not a parameter name: use letters, digits, '_', '-' and '.'")
		}
		c.text("spec.run.params."+k, r.Params[k], 32<<10)
		total += len(k) + len(r.Params[k])
	}
	for _, k := range keys(r.Env) {
		c.envName("spec.run.env."+k, k)
		c.text("spec.run.env."+k, r.Env[k], 32<<10)
		total += len(k) + len(r.Env[k])
	}
	if total > 256<<10 {
		c.bad("spec.run", "params and env are %d bytes together; at most %d are allowed", total, 256<<10)
	}
	for _, k := range keys(r.Secrets) {
		c.envName("spec.run.secrets."+k, k)
		c.secret("spec.run.secrets."+k, r.Secrets[k])
	}
	c.duration("spec.run.warn_after", r.WarnAfter, time.Millisecond, 52*week)
	c.duration("spec.run.timeout", r.Timeout, time.Millisecond, 52*week)
	c.duration("spec.run.kill_grace", r.KillGrace, time.Millisecond, time.Hour)
	if r.WarnAfter > 0 && r.Timeout > 0 && r.WarnAfter >= r.Timeout {
		c.bad("spec.run.warn_after", "%v would never warn: the timeout is %v", r.WarnAfter, r.Timeout)
	}
	if t := r.Retry; t != nil {
		if t.Attempts < 1 || t.Attempts > 100 {
			c.bad("spec.run.retry.attempts", "%d is out of range: must be between 1 and 100 (the first one counts)", t.Attempts)
		}
		c.duration("spec.run.retry.backoff", t.Backoff, time.Millisecond, 24*time.Hour)
		c.duration("spec.run.retry.max_backoff", t.MaxBackoff, time.Millisecond, 24*time.Hour)
		if t.MaxBackoff != 0 && t.Backoff > t.MaxBackoff {
			c.bad("spec.run.retry.max_backoff", "%v is less than backoff (%v)", t.MaxBackoff, t.Backoff)
		}
	}
	c.oneOf("spec.run.on_lost", string(r.OnLost), "rerun", "fail")
	c.oneOf("spec.run.order", r.Order, "key", "none")
	if r.Concurrency < 0 || r.Concurrency > 10_000 {
		c.bad("spec.run.concurrency", "%d is out of range: must be between 1 and 10000", r.Concurrency)
	}
}

func (c *checker) envName(path, k string) {
	if !envRE.MatchString(k) {
		c.bad(path, "is not the name of an environment variable")
	}
	if strings.HasPrefix(strings.ToUpper(k), "ROTA_") {
		c.bad(path, "names that start with ROTA_ are set by Rota")
	}
}

func (c *checker) secret(path string, s Secret) {
	if (s.Env == "") == (s.File == "") {
		c.bad(path, "needs exactly one of env, file")
	}
}

func (c *checker) placement(p *Placement) {
	if p.Weight < 0 || p.Weight > 1000 {
		c.bad("spec.placement.weight", "%d is out of range: must be between 1 and 1000", p.Weight)
	}
	for _, k := range keys(p.Require) {
		c.label("spec.placement.require", k, p.Require[k])
	}
	for i, s := range p.Prefer {
		if s == "" || len(s) > 317 {
			c.bad(fmt.Sprintf("spec.placement.prefer[%d]", i), "must be an executor id or label=value")
		}
	}
	if p.OnlyPreferred && len(p.Prefer) == 0 {
		c.bad("spec.placement.only_preferred", "needs a list in prefer")
	}
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// Cycle returns the first cycle among the jobs' after lists as a path that ends where it began; nil when there is none.
func Cycle(after map[string][]string) []string {
	state := map[string]int{} // 1: on the path, 2: done
	var path []string
	var visit func(string) []string
	visit = func(n string) []string {
		switch state[n] {
		case 1:
			return append(append([]string{}, path[slices.Index(path, n):]...), n)
		case 2:
			return nil
		}
		state[n] = 1
		path = append(path, n)
		for _, up := range after[n] {
			if c := visit(up); c != nil {
				return c
			}
		}
		path = path[:len(path)-1]
		state[n] = 2
		return nil
	}
	for _, n := range keys(after) {
		if c := visit(n); c != nil {
			return c
		}
	}
	return nil
}
