// Package simtest is the whole cluster as a seeded, single-threaded, replayable world.
//
// It drives the real step machines (executor/engine, lease, scheduler.Decide) and the real keys (store) over the real semantics
// of the storage contract (memkv.Core), and models only what lies around them: time, clocks that drift and jump, a network
// that delays, duplicates and loses either direction, processes that are killed, paused or frozen with their host, shims that
// kill at the trust deadline, a store that is down or restarts its leases, leaders that come and go, people who edit jobs.
//
// After every step it checks the promises: one start per (job, shard, tick, attempt) (G1); every tick ends exactly once (G2);
// tokens grow along a shard (G3); no two live attempts of a shard (G4); the life of each record (jobs.CheckStep). One seed is
// one history: `go test ./internal/simtest -run TestSeed -seed N -v` prints it.
package simtest
