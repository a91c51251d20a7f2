// Package jobs says what work is: the definition of a job, its policies, and the record of a shard. Pure data and rules; no
// I/O, no goroutine, no clock.
//
// # Definition
//
// A [Job] is read from YAML by [Parse], which reports every mistake with line and column, and stored as JSON. [Job.Validate]
// checks every field; [Schema] describes them all.
//
// # Ticks
//
// A tick is an instant at which a job is due: a fact, whether or not anything ran. [Timeline] enumerates a job's ticks across
// changes of its definition: each stored definition carries the [Span]s of its former schedules, so that a tick that was due
// before a change is accounted for by the schedule it belonged to.
//
// # Record
//
// The [Record] of a shard is the one value on which every decision about the shard is a compare-and-swap. Its Cursor is the
// instant up to which every tick has ended as fired, skipped or missed; it only grows, and only in a commit that records what
// it passes: the ended run in Last, ticks without a run in Facts. Run is the armed or running attempt and names its holder.
//
//	free (Run nil) -> armed -> running -> succeeded | failed | timed_out | stopped | lost | skipped
//	free           -> skipped(reason, from, to, count) | missed(reason, from, to, count)
//
// A Run with an empty holder was released before it started: whoever owns the shard may arm it again under the same attempt
// number. A Run whose holder is gone may have started, whatever its instant (clocks differ): taking it over always
// counts one attempt more, so that an attempt is granted at most once without trusting any clock.
package jobs
