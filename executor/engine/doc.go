// Package engine is the decision loop of an executor as a pure step machine: [Engine.Step] takes an input and the time, and
// returns effects. No I/O, goroutine, clock or randomness; the adapter in package executor and the simulator drive the same
// code.
//
// # Authority
//
// The scheduler decides which executor should own a shard; the record in the store decides who may run it. Every decision about
// a shard is one guarded commit of its record ([Commit]), and the guards make a stale decision harmless: the record is
// unchanged, my incarnation exists, the definition is the one I computed from.
//
// # A tick
//
// Up to ArmAhead before a tick is due the owner commits the record as armed: that is the grant. When the tick is due and the
// lease is trusted, the handler starts without a round trip. Its end is one commit that also arms the next tick when
// that is due within ArmAhead: at steady state a run costs one guarded put. The start itself is written behind, only for
// runs that last.
//
// # Answers
//
// One commit per shard is in flight. An unknown outcome is submitted again unchanged, nonce included, until it is known or
// the incarnation ends. A refusal that shows my nonce was my own success; one that shows an unchanged record was refused by
// another guard and is decided anew; any other means that somebody else decided: the shard is read again.
//
// # Ownership lost
//
// When the assignment goes, what runs runs on, what is armed but not started is released. When the lease is lost (fencing),
// all handlers are cancelled, nothing more is committed, and everything is read again under a new incarnation. The old lease
// is revoked only once its handlers have ended, and no shard is started here while an older handler of it still lives.
//
// # Not guaranteed
//
// That a cancelled handler has had no effect. That is what the token is for.
package engine
