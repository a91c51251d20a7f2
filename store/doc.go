// Package store is the only place that spells a key. It turns the words of Rota into guarded transactions over
// [github.com/rota-dev/rota/store/kv] and back.
//
//	namespaces/<ns>                        settings                              intent
//	<ns>/jobs/<job>                        definition; create revision = uid     intent, CAS on its own revision
//	<ns>/commands/<job>/<shard>/<id>       run, stop, rerun                      intent, create-once; the owner settles it
//	<ns>/drain/<executor>                  traffic off                           intent
//	<ns>/executors/<id>/<incarnation>      presence                              claim, under the executor's lease
//	<ns>/pulse/<id>/<incarnation>          clock and load, every 5 s             claim, under the executor's lease
//	<ns>/assignment/<executor>/<job>       shards that it should own, and why    decision, guarded by the leader's term
//	<ns>/rounds/<job>                      last upstream tick handed to a job    decision, guarded by the leader's term
//	<ns>/runs/<job>/<uid>/<shard>          the record                            progress, CAS on its own revision
//	scheduler/leader                       the scheduler's term                  claim, under its lease
//	servers/<id>                           address of a server                   claim, under its lease
//
// Three kinds of truth, one writer role each: intent (people), decision (scheduler), claim and progress (holders).
//
// A settled command stays, marked with the run that it became, until the scheduler collects it: so a retried click with the
// same id is one run. An assignment is keyed by the executor's id, not its incarnation: an executor that restarts takes up its
// shards again without a scheduler.
package store
