package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rota-dev/rota/internal/etcdembed"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/etcdkv"
)

var binary string

// TestMain builds the binary, or serves as the etcd process of a test.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ROTA_E2E_ETCD"); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		s, err := etcdembed.Start(ctx, etcdembed.Config{Dir: dir, ClientAddr: os.Getenv("ROTA_E2E_ADDR")})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		<-ctx.Done()
		s.Close()
		return
	}
	dir, err := os.MkdirTemp("", "rota-e2e-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "rota")
	out, err := exec.Command("go", "build", "-o", binary, "../cmd/rota").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// proc is one real process.
type proc struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	args []string
	env  []string
	log  *os.File
	done chan struct{}
}

func (p *proc) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.done = make(chan struct{})
	started := make(chan error)
	go func() {
		// The parent death signal is tied to the thread that starts the process.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
			close(p.done)
		}
	}()
	require.NoError(p.t, <-started)
}

func (p *proc) signal(s syscall.Signal) { require.NoError(p.t, p.cmd.Process.Signal(s)) }

// kill is kill -9, and waits.
func (p *proc) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

func (p *proc) waitExit(limit time.Duration) error {
	select {
	case <-p.done:
		if !p.cmd.ProcessState.Success() {
			return fmt.Errorf("%s: %v", p.name, p.cmd.ProcessState)
		}
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s did not exit within %v", p.name, limit)
	}
}

// cluster is one etcd, one server and any number of executors.
type cluster struct {
	t         *testing.T
	dir       string
	etcdAddr  string
	listen    string
	etcd      *proc
	server    *proc
	executors map[string]*proc
}

const ttl = 3 * time.Second

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, dir: t.TempDir(), etcdAddr: freeAddr(t), listen: freeAddr(t), executors: map[string]*proc{}}
	self, err := os.Executable()
	require.NoError(t, err)
	c.etcd = c.proc("etcd", []string{"ROTA_E2E_ETCD=" + filepath.Join(c.dir, "etcd"), "ROTA_E2E_ADDR=" + c.etcdAddr}, self)
	c.server = c.proc("server", nil, binary, "server", "--etcd", "http://"+c.etcdAddr, "--listen", c.listen)
	c.etcd.start()
	c.server.start()
	t.Cleanup(func() {
		for _, p := range c.executors {
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			p.kill()
		}
		c.server.kill()
		c.etcd.kill()
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(c.dir, "*.log"))
			for _, l := range logs {
				b, _ := os.ReadFile(l)
				lines := strings.Split(string(b), "\n")
				t.Logf("--- %s (last lines)\n%s", l, strings.Join(lines[max(0, len(lines)-15):], "\n"))
			}
		}
	})
	c.eventually(30*time.Second, "the server is ready", func() bool { _, err := c.try("get", "namespaces"); return err == nil })
	return c
}

// freeAddr takes ports below the range that the kernel hands out by itself, so that nobody gets one between our look and the
// start of the process that is to have it.
func freeAddr(t *testing.T) string {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 18000+rand.IntN(12000))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			require.NoError(t, l.Close())
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

func (c *cluster) proc(name string, env []string, args ...string) *proc {
	log, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(c.t, err)
	return &proc{t: c.t, name: name, env: env, args: args, log: log}
}

func (c *cluster) executor(id string, more ...string) *proc {
	p := c.proc(id, nil, append([]string{binary, "executor", "--etcd", "http://" + c.etcdAddr, "--id", id, "--lease-ttl", ttl.String(),
		"--work-dir", filepath.Join(c.dir, "work-"+id)}, more...)...)
	p.start()
	c.executors[id] = p
	return p
}

// try runs a client verb.
func (c *cluster) try(args ...string) (string, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "ROTA_SERVER=http://"+c.listen)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("rota %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), err
}

func (c *cluster) rota(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	require.NoError(c.t, err)
	return out
}

func (c *cluster) write(name, text string) string {
	path := filepath.Join(c.dir, name)
	require.NoError(c.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// eventually polls with a deadline.
func (c *cluster) eventually(limit time.Duration, what string, f func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(limit); !f(); {
		require.True(c.t, time.Now().Before(deadline), "not within %v: %s", limit, what)
		time.Sleep(50 * time.Millisecond) // polling, with a deadline
	}
}

func (c *cluster) store() *store.Store {
	kv, err := etcdkv.Open(etcdkv.Config{Endpoints: []string{"http://" + c.etcdAddr}})
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = kv.Close() })
	return store.New(kv, "")
}

// pass lets time pass: the cluster under test runs on the real clock.
func pass(d time.Duration) { time.Sleep(d) }
