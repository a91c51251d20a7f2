// Package kv is the storage contract: what Rota needs from a coordinator, in seven verbs.
//
//	Get List Watch          reads; no safety decision may rest on them
//	Submit                  one all-or-nothing transaction: guards, then changes
//	Grant Renew Revoke      leases
//
// # Revisions
//
// Every successful Submit with changes advances one global revision; an [Item] carries the revisions at which it was created
// and last modified. A guard compares those revisions, never values, so that no two successful transactions can both have
// been guarded by the same modification of the same key. Transactions that were submitted together may share a revision.
//
// # Answers
//
// A [Result] is definite (applied, or refused because a guard did not hold) unless its Err wraps [ErrUnknown]: then the
// transaction may have been applied, now or a moment later. The only sound reaction is to submit the *same* transaction
// again, with a fresh nonce chosen before the first submission inside the value: the guards let at most one submission
// through, and a refusal whose observed value carries the nonce means that an earlier submission won. Errors that wrap
// [ErrRefused] are definite: nothing was applied and nothing will be.
//
// # Watches
//
// A watch delivers every change after its starting revision, once, in order, in batches that never split a revision. When
// that is impossible (the history was compacted) it ends with [ErrCompacted], and the reader lists again. [Follow] does so.
package kv
