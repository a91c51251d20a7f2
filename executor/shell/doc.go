// Package shell runs shell commands so that nothing of them can outlive its right to run.
//
// # The shim
//
// Every run has a small supervisor process of its own, the shim: the same binary started under the name "rota-shim", in its own
// session, as subreaper of everything below it. The executor talks to it over two pipes: on one it sends the command, then
// each extension of the trust deadline (CLOCK_BOOTTIME) and requests to stop; on the other the shim reports the end.
//
// The shim kills everything below it, whatever left the process group or session, when
//
//   - the deadline passes: the executor is paused, frozen or cut off and someone else may be about to run the shard;
//   - the pipe from the executor closes: the executor is dead;
//   - the executor asks: TERM to the process group, KILL to all after the grace;
//   - the command has ended: nothing is left behind.
//
// When the shim itself is killed, the command dies with it (parent death signal), and the executor, which is a subreaper too,
// kills what was orphaned.
//
// # Output
//
// The shim reads the command's output, so that the command never blocks on it, and keeps the head and the tail in files of
// limited size, and the last few KiB for the record.
//
// # Contract
//
// Package users link it and nothing more: the shim starts in an init function, before main.
package shell
