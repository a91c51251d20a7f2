// Package console is the actor behind the HTTP API (gin and huma). The web console is to be built on it.
//
// # Authority
//
// The console is a reader and a writer of intent only: definitions, commands, drains. Every write of a definition is a
// compare-and-swap. It decides nothing about runs; losing it stops no job.
//
// # Consistency
//
// Answers are read from the store when asked, so what a client has just written it reads. Until SQL history exists, the runs
// shown are the current and the last one of each shard.
//
// # Access
//
// There is no access control yet. The server therefore refuses to listen on an address that is not loopback, and browsers'
// cross-origin requests are refused.
//
// # Errors
//
// Every error is an application/problem+json (RFC 9457) with a stable code: invalid (422, with the place of each mistake),
// not_found (404), conflict (409), precondition_failed (412), unsupported (422), too_large (413), unavailable (503: the store
// does not answer; safe to repeat), bad_request (400), internal (500).
package console
