// Package executor owns shards, fires them on time and runs their handlers. It is an actor and the Go SDK:
//
//	ex, err := executor.New(executor.Config{Endpoints: []string{"localhost:2379"}, Namespaces: []string{"orders"}})
//	ex.Handle("order.auto-cancel", func(ctx context.Context, run *executor.Run) error { ... })
//	err = ex.Run(ctx)
//
// A handler's context ends, with a cause, on timeout, stop, drain limit or loss of ownership; a handler should then return
// soon. The error it returns decides the outcome; [Retry], [Skip] and [Fail] refine it. A panic fails the run and is reported
// with its stack.
//
// Effects are at least once: an executor that is lost may have had effects before its shard was taken over. Run.Token grows
// along each shard and across it; a database that remembers the highest token it has seen can refuse the stale one.
//
// All decisions are made by the step machine in package engine; this package is the I/O around it: one goroutine steps it,
// one timer wakes it, one goroutine per running handler.
package executor
