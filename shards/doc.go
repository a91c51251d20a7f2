// Package shards decides on paper who should own what: a pure planner with minimal moves. No I/O, no clock, no randomness:
// the same input gives the same plan.
//
// # Rules
//
// An executor is eligible for a job when it can run it (has the handler, or runs shell), has every required label, is not
// draining or drained, has a sane clock, knows the same time zone rules as most (for schedules in a zone), and, when the job says only_preferred, is preferred. A job with preferred executors
// uses them while any is eligible, else, unless only_preferred, the others.
//
// A shard stays where it is while its executor is eligible and not overloaded. Shards without an owner go to the executor
// with the least of: shards of the same job here (spread first), load against capacity, and its name. Then moves even out,
// as long as a move lowers, first, the sum over executors of (shards of the job)² / capacity and, where that stays equal, of
// load² / capacity: with equal capacities the executors end within one shard of each other, and jobs of few shards do not
// pile up. Nothing else moves. Load is the sum of the weights of placed shards.
//
// A per-executor job has one shard on each eligible executor. A number stays with its executor; a new executor takes the
// lowest free number.
//
// # Refusals
//
// Shards that cannot be placed are reported with the reason, and for each job the plan explains each executor: [Explain].
package shards
