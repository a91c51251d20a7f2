package cron

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the binary must know its zones wherever it runs

	robfig "github.com/robfig/cron/v3"
)

const maxExpr = 256

var parser = robfig.NewParser(robfig.SecondOptional | robfig.Minute | robfig.Hour | robfig.Dom | robfig.Month | robfig.Dow | robfig.Descriptor)

// Zone loads an IANA time zone by name; "" is UTC. Paths and "Local" are refused.
func Zone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if name == "Local" || strings.ContainsAny(name, `\.`) || strings.HasPrefix(name, "/") {
		return nil, fmt.Errorf("unknown time zone %q: use an IANA name such as Asia/Shanghai", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("unknown time zone %q: use an IANA name such as Asia/Shanghai", name)
	}
	return loc, nil
}

// Parse reads an expression to be evaluated in loc.
func Parse(expr string, loc *time.Location) (*Schedule, error) {
	text := strings.TrimSpace(expr)
	if err := guard(text); err != nil {
		return nil, fmt.Errorf("cron %q: %w", clip(expr), err)
	}
	text, err := sundays(text)
	if err != nil {
		return nil, fmt.Errorf("cron %q: %w", clip(expr), err)
	}
	parsed, err := parser.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("cron %q: %w", clip(expr), err)
	}
	spec, ok := parsed.(*robfig.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("cron %q: not a calendar expression", clip(expr))
	}
	const star = 1 << 63
	f := &fields{
		second: spec.Second &^ star, minute: spec.Minute &^ star, hour: spec.Hour &^ star,
		dom: spec.Dom &^ star, month: spec.Month &^ star, dow: spec.Dow &^ star,
		anyDay:  spec.Dom&star != 0 || spec.Dow&star != 0,
		anyHour: spec.Hour&star != 0 && bits.OnesCount64(spec.Hour&^star) == 24,
	}
	if _, ok := f.next(0); !ok {
		return nil, fmt.Errorf("cron %q: %w: no year has such a day", clip(expr), ErrNever)
	}
	return &Schedule{expr: strings.Join(strings.Fields(expr), " "), bits: f, loc: loc}, nil
}

// guard refuses what the parser behind it cannot stand or what we do not mean.
func guard(text string) error {
	switch {
	case text == "":
		return errors.New("is empty")
	case len(text) > maxExpr:
		return fmt.Errorf("is longer than %d characters", maxExpr)
	case strings.Contains(text, "="):
		return errors.New("a zone prefix (TZ=) is not part of the expression: use the field timezone")
	case strings.HasPrefix(text, "@every"):
		return errors.New("@every is not a cron expression: use the field every")
	}
	for _, r := range text {
		if r >= 0x80 || r < ' ' && r != '\t' {
			return fmt.Errorf("unexpected character %q", r)
		}
	}
	if text[0] == '@' {
		return nil
	}
	parts := strings.Fields(text)
	if len(parts) != 5 && len(parts) != 6 {
		return fmt.Errorf("has %d fields: 5 (minute hour day month weekday) or 6 (seconds first) are expected", len(parts))
	}
	for i, p := range parts {
		if strings.Contains(p, "#") || strings.ContainsAny(strings.ToUpper(p), "W") && i != len(parts)-1 || i >= len(parts)-3 && hasLast(p) {
			return fmt.Errorf("field %q: L, W and # are not supported", p)
		}
	}
	return nil
}

// hasLast recognises the Quartz words L, LW, 5L, L-3; month and day names contain an L too (JUL, APR does not).
func hasLast(p string) bool {
	for _, w := range strings.FieldsFunc(strings.ToUpper(p), func(r rune) bool { return r == ',' || r == '/' || r == '-' }) {
		if strings.TrimLeft(w, "0123456789") == "L" || w == "LW" {
			return true
		}
	}
	return false
}

// sundays rewrites 7 in the weekday field to 0, also inside ranges with steps.
func sundays(text string) (string, error) {
	parts := strings.Fields(text)
	if text[0] == '@' || !strings.Contains(parts[len(parts)-1], "7") {
		return text, nil
	}
	var out []string
	for _, item := range strings.Split(parts[len(parts)-1], ",") {
		rng, stepText, hasStep := strings.Cut(item, "/")
		lo, hi, isRange := strings.Cut(rng, "-")
		step := 1
		if hasStep {
			n, err := strconv.Atoi(stepText)
			if err != nil || n < 1 {
				return "", fmt.Errorf("bad step in weekday %q", item)
			}
			step = n
		}
		switch {
		case lo == "7" && !isRange && !hasStep:
			out = append(out, "0")
		case isRange && hi == "7":
			a, err := weekday(lo)
			if err != nil {
				return "", err
			}
			for d := a; d <= 7; d += step {
				out = append(out, strconv.Itoa(d%7))
			}
		default:
			out = append(out, item)
		}
	}
	parts[len(parts)-1] = strings.Join(out, ",")
	return strings.Join(parts, " "), nil
}

func weekday(s string) (int, error) {
	for i, name := range []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} {
		if strings.EqualFold(s, name) {
			return i, nil
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 7 {
		return 0, fmt.Errorf("bad weekday %q", s)
	}
	return n, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
