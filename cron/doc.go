// Package cron turns a schedule expression into its next instant.
//
// # Dialect
//
// Five fields (minute hour day-of-month month day-of-week) or six (with seconds first); names (JAN, MON), ranges, lists and
// steps; the macros @yearly @annually @monthly @weekly @daily @midnight @hourly; Sunday is 0 or 7; "?" is "*". When both
// day fields are restricted, either may match, as in Vixie cron. L, W and # are refused. robfig/cron parses; it does not
// decide, because its Next loses the days whose instant falls into a DST gap, doubles those in an overlap, and does not
// return for some zones.
//
// # Time zones
//
// An expression is evaluated on the wall clock of its zone:
//
//   - A fixed time (the hour field is not "*") fires once each matching day. In a gap it fires at the first instant after the
//     gap; in an overlap at its first occurrence. A date that a zone skipped altogether (Apia, 30 December 2011) fires at the
//     first instant after it.
//   - With a wildcard hour it fires at every real instant whose wall clock matches: 25 hours on the day of an overlap, 23 on
//     the day of a gap.
//
// # Promises
//
// Next is strictly increasing and bounded: an expression that matches no date within 400 years is refused by [Parse]. All
// values are immutable and safe for concurrent use. Ticks have a resolution of one second, those of [Every] of one
// millisecond.
package cron
