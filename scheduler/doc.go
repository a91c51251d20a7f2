// Package scheduler is the actor that, while elected, keeps the assignment right, hands ticks to the jobs that run after
// others, and collects garbage.
//
// # Authority
//
// The scheduler decides who *should* own a shard; it never touches a record that is held. All that it writes is guarded by its
// term, a key that lives under its lease: two schedulers at once are harmless, and a deposed one's writes are refused.
// Jobs keep firing without any scheduler.
//
// # Level-triggered
//
// Every server keeps a [store.View] by watching; on any change (debounced) and on a slow tick the elected one recomputes the
// whole plan with the pure [Decide] and commits only the difference. There is no handler per kind of event and no state that
// is not rebuilt from the store: a new leader starts from the same view. What is kept in memory is advice: who flaps
// ([Memory]) and how far clocks are off.
//
// # Jobs after jobs
//
// A job with `after` has one command for each tick T that all its upstream jobs have: when the records of all their shards
// have settled T, whatever the outcome. The commands for T are created under ids made from T, then the job's round moves to
// T. A leader that dies in between leaves commands that its successor finds or creates again; a shard that has run T already
// knows by its cursor. So each shard runs once for T.
//
// # Not guaranteed
//
// That a plan is the best one; it is a stable one. That a downstream job sees its upstream succeed: it runs when the upstream
// has ended.
package scheduler
