// Command rota is everything: server, executor, dev mode, demo and the client.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/rota-dev/rota/console/api"
)

// The exit codes of the contract.
const (
	exitError    = 1
	exitUsage    = 2
	exitNotFound = 3
	exitConflict = 4
	exitDenied   = 5
	exitTimeout  = 124
)

// exitWith is an error with its own exit code; silent ones print nothing.
type exitWith struct {
	err    error
	code   int
	silent bool
}

func (e *exitWith) Error() string { return e.err.Error() }
func (e *exitWith) Unwrap() error { return e.err }

func usage(format string, a ...any) error {
	return &exitWith{err: fmt.Errorf(format, a...), code: exitUsage}
}

// lazyGC trades memory for punctuality: the heap is small and a burst of starts allocates as much as all of it, so that by
// default every burst meets a collection. $GOGC decides if set.
func lazyGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

func main() {
	lazyGC()
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		s := <-signals
		cancel(fmt.Errorf("received %v", s))
		<-signals
		fmt.Fprintln(os.Stderr, "rota: second signal: leaving at once")
		os.Exit(exitError)
	}()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := codeOf(err)
	var ew *exitWith
	if !errors.As(err, &ew) || !ew.silent {
		fmt.Fprintln(os.Stderr, "rota: "+strings.TrimSpace(err.Error()))
		if code == exitUsage {
			fmt.Fprintln(os.Stderr, "See rota --help, or --help after any command.")
		}
	}
	return code
}

func codeOf(err error) int {
	var ew *exitWith
	var p *api.Problem
	switch {
	case errors.As(err, &ew):
		return ew.code
	case errors.As(err, &p):
		switch p.Status {
		case 404:
			return exitNotFound
		case 409, 412:
			return exitConflict
		case 401, 403:
			return exitDenied
		}
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "required flag"):
		return exitUsage
	}
	return exitError
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "rota",
		Short: "Distributed, sharded job scheduler",
		Long: `Rota runs the jobs that a shop or a payment company cannot afford to lose: sharded,
on time, each tick accounted for, on etcd.

  rota dev -f jobs.yaml     everything in one process, to try it
  rota demo --once          the main job over generated orders
  rota get jobs             what there is; rota explain JOB says why it did not run`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return configure(cmd) },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w", err) })
	root.CompletionOptions.HiddenDefaultCmd = false
	f := root.PersistentFlags()
	f.String("config", "", "configuration file (YAML; keys are the names of flags); also $ROTA_CONFIG")
	f.String("log-level", "", "debug, info, warn or error; default info for server and executor, warn for dev and demo")
	f.String("log-format", "text", "text or json")
	root.AddGroup(&cobra.Group{ID: "roles", Title: "Roles:"}, &cobra.Group{ID: "define", Title: "Definitions:"},
		&cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "act", Title: "Act:"})
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("roles", devCmd(), demoCmd(), serverCmd(), executorCmd())
	group("define", applyCmd(), diffCmd(), validateCmd(), deleteCmd(), enableCmd(), disableCmd(), schemaCmd())
	group("look", getCmd(), nextCmd(), explainCmd(), logsCmd(), waitCmd())
	group("act", runCmd(), stopCmd(), rerunCmd(), drainCmd(), resumeCmd())
	root.AddCommand(versionCmd())
	return root
}

// args wraps cobra's checks so that a wrong number of arguments is a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usage("%s: %w (usage: rota %s)", cmd.Name(), err, cmd.Use)
		}
		return nil
	}
}
