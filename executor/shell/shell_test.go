package shell_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/executor/shell"
	"github.com/rota-dev/rota/lease"
)

// The test binary itself becomes the shim: the package's init function sees to that.
func setup(t *testing.T) (*shell.Runner, string) {
	dir := t.TempDir()
	r, err := shell.NewRunner(dir)
	require.NoError(t, err)
	r.Trust(lease.Read().Boot + time.Hour)
	return r, dir
}

func command(t *testing.T, script string) shell.Command {
	id := strings.ReplaceAll(t.Name(), "/", "-")
	return shell.Command{ID: id, Name: id, Script: script, Env: []string{"PATH=" + os.Getenv("PATH"), "ROTA_RUN_ID=" + id}, Grace: 300 * time.Millisecond}
}

// alive says whether a process whose id a script wrote still runs.
func alive(t *testing.T, path string) bool {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	require.NoError(t, err)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func eventually(t *testing.T, f func() bool, what string) {
	require.Eventually(t, f, 10*time.Second, 10*time.Millisecond, what)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func TestOutputResultAndExitAreReported(t *testing.T) {
	r, _ := setup(t)
	c := command(t, `echo out; echo err >&2; echo '{"message":"did it","data":{"n":3}}' > $ROTA_RESULT_FILE`)
	res := r.Run(t.Context(), c)
	require.True(t, res.OK, res.Reason)
	require.Equal(t, "out\nerr\n", res.Output)
	require.Equal(t, "did it", res.Message)
	require.JSONEq(t, `{"n":3}`, string(res.Data))
	b, err := shell.ReadLog(r.LogPath(c.Name))
	require.NoError(t, err)
	require.Equal(t, "out\nerr\n", string(b))
}

// J5, J13: exits and signals are named.
func TestEveryWayToEndHasItsReason(t *testing.T) {
	for _, c := range []struct {
		script, reason string
		code           int
	}{
		{"exit 0", "", 0}, {"exit 1", "exit 1", 1}, {"exit 255", "exit 255", 255},
		{"kill -SEGV $$", "killed by SIGSEGV", 139}, {"kill -KILL $$", "killed by SIGKILL", 137},
		{"sh -c 'kill -SEGV $$'; exit $?", "exit 139: a command was killed by SIGSEGV", 139},
		{"no-such-command", "exit 127: the command was not found", 127},
		{"/etc/passwd", "exit 126: the command is not executable", 126},
		{"printf '#!/no/such/interpreter\\n' > s; chmod +x s; ./s", "exit 127: the command was not found", 127},
		{"if then", "exit 2", 2},
	} {
		t.Run(c.script, func(t *testing.T) {
			r, _ := setup(t)
			start := time.Now()
			res := r.Run(t.Context(), command(t, c.script))
			require.Equal(t, c.reason, res.Reason)
			require.Equal(t, c.code, res.ExitCode)
			require.Equal(t, c.code == 0, res.OK)
			require.Less(t, time.Since(start), 5*time.Second)
		})
	}
}

func TestAMissingWorkingDirectoryIsNamed(t *testing.T) {
	r, dir := setup(t)
	require.NoError(t, os.RemoveAll(dir))
	res := r.Run(t.Context(), command(t, "true"))
	require.False(t, res.OK)
	require.NotEmpty(t, res.Reason)
}

// J1: ignores SIGTERM.
func TestACommandThatIgnoresTermIsKilledAfterTheGrace(t *testing.T) {
	r, dir := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	up := filepath.Join(dir, "up")
	c := command(t, `trap '' TERM; echo $$ > `+up+`; while :; do sleep 0.05; done`)
	go func() {
		eventually(t, func() bool { return exists(up) }, "started")
		cancel()
	}()
	res := r.Run(ctx, c)
	require.False(t, res.OK)
	require.Contains(t, res.Reason, "did not end within 300ms after SIGTERM")
	require.False(t, alive(t, up))
}

func TestACommandThatHeedsTermEndsInItsGrace(t *testing.T) {
	r, dir := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	up := filepath.Join(dir, "up")
	c := command(t, `trap 'echo bye; exit 7' TERM; touch `+up+`; while :; do sleep 0.01; done`)
	c.Grace = 20 * time.Second
	go func() {
		eventually(t, func() bool { return exists(up) }, "started")
		cancel()
	}()
	res := r.Run(ctx, c)
	require.Equal(t, 7, res.ExitCode)
	require.Contains(t, res.Output, "bye")
}

// J2, J7: double-forks with setsid, holding stdout open.
func TestNothingOutlivesTheCommand(t *testing.T) {
	r, dir := setup(t)
	pid := filepath.Join(dir, "pid")
	start := time.Now()
	res := r.Run(t.Context(), command(t, `(setsid sh -c 'trap "" TERM HUP; echo $$ > `+pid+`; while :; do sleep 0.1; done' &) & while [ ! -s `+pid+` ]; do sleep 0.01; done; exit 0`))
	require.True(t, res.OK, res.Reason)
	require.Contains(t, res.Message, "left behind")
	require.False(t, alive(t, pid))
	require.Less(t, time.Since(start), 10*time.Second, "the held stdout does not hold the run up")
}

// J5: stops itself; the timeout path ends it.
func TestAStoppedCommandIsEnded(t *testing.T) {
	r, dir := setup(t)
	up := filepath.Join(dir, "up")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		eventually(t, func() bool { return exists(up) }, "started")
		cancel()
	}()
	res := r.Run(ctx, command(t, `touch `+up+`; kill -STOP $$; exit 0`))
	require.False(t, res.OK)
	require.Equal(t, "killed by SIGTERM", res.Reason)
}

// J4: prints without end; head and tail are kept, the disk is not.
func TestOutputIsBounded(t *testing.T) {
	r, dir := setup(t)
	c := command(t, `head -c 200000000 /dev/zero; printf 'the very end\n'`)
	res := r.Run(t.Context(), c)
	require.True(t, res.OK, res.Reason)
	require.True(t, strings.HasSuffix(res.Output, "the very end\n"))
	require.LessOrEqual(t, len(res.Output), 4*4096)
	var size int64
	files, err := filepath.Glob(filepath.Join(dir, "logs", "*"))
	require.NoError(t, err)
	for _, f := range files {
		st, err := os.Stat(f)
		require.NoError(t, err)
		size += st.Size()
	}
	require.LessOrEqual(t, size, int64(2<<20))
	b, err := shell.ReadLog(r.LogPath(c.Name))
	require.NoError(t, err)
	require.Contains(t, string(b), "output left out")
	require.True(t, strings.HasSuffix(string(b), "the very end\n"))
}

// J6: closes its streams, has no terminal.
func TestClosedStreamsDoNotMatter(t *testing.T) {
	r, _ := setup(t)
	res := r.Run(t.Context(), command(t, `exec 0<&- 1>&- 2>&-; test ! -t 0`))
	require.True(t, res.OK, res.Reason)
}

// J9: values travel in the environment only.
func TestValuesAreNeverPartOfTheScript(t *testing.T) {
	r, dir := setup(t)
	evil := "\"; touch " + filepath.Join(dir, "pwned") + "; $(touch " + filepath.Join(dir, "pwned") + ") `id` '\n"
	c := command(t, `printf %s "$ROTA_PARAM_X"`)
	c.Env = append(c.Env, "ROTA_PARAM_X="+evil)
	res := r.Run(t.Context(), c)
	require.Equal(t, evil, res.Output)
	require.False(t, exists(filepath.Join(dir, "pwned")))
}

func TestSecretsAreMasked(t *testing.T) {
	r, _ := setup(t)
	c := command(t, `echo "dsn=$DSN"`)
	c.Env, c.Secret = append(c.Env, "DSN=hunter22"), []string{"hunter22"}
	require.Equal(t, "dsn=***\n", r.Run(t.Context(), c).Output)
}

func TestAResultThatIsTooLargeOrNoJSONIsSaid(t *testing.T) {
	r, _ := setup(t)
	require.Contains(t, r.Run(t.Context(), command(t, `echo nope > $ROTA_RESULT_FILE`)).Message, "not JSON")
	require.Contains(t, r.Run(t.Context(), command(t, `head -c 70000 /dev/zero > $ROTA_RESULT_FILE`)).Message, "more than")
}

// X1, X2: trust ends while the executor does nothing about it: it is paused, frozen, or gone.
func TestTheShimKillsAtTheTrustDeadline(t *testing.T) {
	r, dir := setup(t)
	r.Trust(lease.Read().Boot + 700*time.Millisecond)
	pid := filepath.Join(dir, "pid")
	start := time.Now()
	res := r.Run(t.Context(), command(t, `trap '' TERM; setsid sh -c 'echo $$ > `+pid+`; while :; do sleep 0.05; done'`))
	require.False(t, res.OK)
	require.Contains(t, res.Reason, "could not renew its lease")
	require.False(t, alive(t, pid))
	require.Less(t, time.Since(start), 3*time.Second)
}

func TestAnExtendedDeadlineKeepsTheCommandAlive(t *testing.T) {
	r, _ := setup(t)
	r.Trust(lease.Read().Boot + 500*time.Millisecond)
	go func() {
		for range 10 {
			time.Sleep(200 * time.Millisecond)
			r.Trust(lease.Read().Boot + 600*time.Millisecond)
		}
	}()
	res := r.Run(t.Context(), command(t, `sleep 1.5`))
	require.True(t, res.OK, res.Reason)
}

// X6: the shim itself is killed.
func TestNothingOutlivesAKilledShim(t *testing.T) {
	r, dir := setup(t)
	pid, far := filepath.Join(dir, "pid"), filepath.Join(dir, "far")
	done := make(chan shell.Result, 1)
	go func() {
		done <- r.Run(t.Context(), command(t, `(setsid sh -c 'echo $$ > `+far+`; while :; do sleep 0.05; done' &); echo $$ > `+pid+`; while :; do sleep 0.05; done`))
	}()
	eventually(t, func() bool { return exists(pid) && exists(far) }, "started")
	eventually(t, func() bool { b, _ := os.ReadFile(far); p, _ := os.ReadFile(pid); return len(b) > 1 && len(p) > 1 }, "written")
	shim := parentOf(t, pid)
	require.NoError(t, syscall.Kill(shim, syscall.SIGKILL))
	res := <-done
	require.False(t, res.OK)
	require.Contains(t, res.Reason, "supervisor")
	eventually(t, func() bool { return !alive(t, pid) && !alive(t, far) }, "the command and what had left its session are dead")
}

func parentOf(t *testing.T, path string) int {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/status")
	require.NoError(t, err)
	for _, l := range strings.Split(string(stat), "\n") {
		if v, ok := strings.CutPrefix(l, "PPid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			require.NoError(t, err)
			return n
		}
	}
	t.Fatal("no parent")
	return 0
}

func TestOldLogsAreSweptAndSilentRunsLeaveNone(t *testing.T) {
	r, dir := setup(t)
	silent := command(t, `true`)
	require.True(t, r.Run(t.Context(), silent).OK)
	require.False(t, exists(r.LogPath(silent.Name)))
	c := command(t, `echo hi`)
	require.True(t, r.Run(t.Context(), c).OK)
	require.Zero(t, r.Sweep(time.Now()))
	require.True(t, exists(r.LogPath(c.Name)))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tmp", "run-crashed"), 0o700))
	require.Equal(t, 2, r.Sweep(time.Now().Add(8*24*time.Hour)))
	require.False(t, exists(r.LogPath(c.Name)))
}

// J3: multiplies. The test's own bomb ends by itself at 4095 shells with a sleep each, in case nobody stops it.
func TestAForkBombIsKilledWhileTheMachineAnswers(t *testing.T) {
	r, _ := setup(t)
	start := time.Now()
	res := r.Run(t.Context(), command(t, `b() { if [ $1 -gt 0 ]; then b $(($1-1)) & b $(($1-1)) & fi; sleep 20; }; b 11`))
	require.False(t, res.OK)
	require.Equal(t, "killed: more than 2000 processes", res.Reason)
	require.Less(t, time.Since(start), time.Minute)
	after := r.Run(t.Context(), command(t, `echo fine`))
	require.Equal(t, "fine\n", after.Output)
}

// J8: when memory runs out the command goes first.
func TestTheCommandIsTheKernelsFirstChoice(t *testing.T) {
	r, _ := setup(t)
	require.Equal(t, "500\n", r.Run(t.Context(), command(t, `cat /proc/self/oom_score_adj`)).Output)
}
