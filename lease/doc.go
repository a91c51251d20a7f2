// Package lease is the life of an incarnation: registering under a store lease, trusting it, losing it.
//
// The same machine serves executors (presence) and schedulers (a term of leadership). It is pure: [Machine.Step] takes an
// input and the time and returns effects; an adapter carries them out and feeds the answers back. The simulator drives it
// directly.
//
// # Who is authoritative
//
// The store is: an incarnation lives as long as its key exists. The holder itself only keeps a *trust window*, which is
// always shorter: trust lasts until (the moment the last successful grant or renewal was *sent*) + TTL - margin, on
// CLOCK_BOOTTIME, which goes on during suspend. While trusted, the holder may act; everyone else may act on its behalf only
// once the key is gone. Anchoring at the answer instead would trust for up to one round trip too long.
//
// # States
//
//	idle -> granting -> registering -> held -> (fenced) -> granting ...      stopped
//
// Every registration uses a fresh random incarnation and a fresh lease. An ambiguous registration is thrown away: reviving it
// would let a late duplicate replace the key of a live process. When trust ends, when the store says that the lease is gone,
// or when the own key is seen deleted, the incarnation is *fenced*, for good: the owner ends all work, and a new incarnation
// begins. An answer to an old incarnation is a no-op.
//
// # Not guaranteed
//
// That a fenced incarnation's key is gone already: it vanishes by revocation, once the owner says that its work has really
// ended ([Released]), or else by expiry.
package lease
