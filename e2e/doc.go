// Package e2e proves the promises with real processes: the built binary, a real etcd, executors that are really killed and
// stopped, and shell jobs whose own files say what ran. The checker reads those files, and etcd's own stream of revisions for
// what was recorded as not run; it fails when it has seen nothing.
package e2e
