// Command bench measures what the design promises and prints one table; raw data goes to bench/out.
//
//	go run ./bench                 everything
//	go run ./bench -only lateness  one section
//
// etcd runs as a process of its own with fsync on; executor and scheduler run in this process, on the same machine. Missed and
// double runs are always reported: a system that skips ticks looks precise.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rota-dev/rota/executor"
	"github.com/rota-dev/rota/internal/etcdembed"
	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/scheduler"
	"github.com/rota-dev/rota/shards"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/etcdkv"
	"github.com/rota-dev/rota/store/kv"
)

var (
	only     = flag.String("only", "", "commits, throughput, lateness or planner")
	duration = flag.Duration("duration", 20*time.Second, "of each throughput and lateness measurement")
	rates    = flag.String("throughput", "10000,15000,20000", "shards due every second")
	profiles = flag.String("profile", "", "directory for CPU profiles of both processes")
	sizes    = flag.String("lateness", "1000,10000", "shards due on the same second")
)

type line struct {
	What    string  `json:"what"`
	Setting string  `json:"setting"`
	Result  string  `json:"result"`
	Target  string  `json:"target"`
	Value   float64 `json:"value"`
}

var table []line

func add(what, setting, result, target string, value float64) {
	table = append(table, line{what, setting, result, target, value})
	fmt.Fprintf(os.Stderr, "%-12s %-34s %-70s %s\n", what, setting, result, target)
}

func main() {
	flag.Parse()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // as the rota binary does
	}
	if dir := os.Getenv("ROTA_BENCH_ETCD"); dir != "" {
		serveEtcd(dir)
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func serveEtcd(dir string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if p := os.Getenv("ROTA_BENCH_PROFILE"); p != "" {
		defer profile(filepath.Join(p, "etcd.pprof"))()
	}
	s, err := etcdembed.Start(ctx, etcdembed.Config{Dir: dir, ClientAddr: os.Getenv("ROTA_BENCH_ADDR"), QuotaBytes: 8 << 30})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-ctx.Done()
	s.Close()
}

// profile records this process's CPU until the returned function is called.
func profile(path string) (stop func()) {
	f, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		return func() {}
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }
}

func run() error {
	if *profiles != "" {
		if err := os.Setenv("ROTA_BENCH_PROFILE", *profiles); err != nil {
			return err
		}
		defer profile(filepath.Join(*profiles, "bench.pprof"))()
	}
	want := func(s string) bool { return *only == "" || *only == s }
	if want("commits") {
		if err := commits(); err != nil {
			return err
		}
	}
	for _, n := range numbers(*rates) {
		if want("throughput") {
			if err := measure("throughput", n); err != nil {
				return err
			}
		}
	}
	for _, n := range numbers(*sizes) {
		if want("lateness") {
			if err := measure("lateness", n); err != nil {
				return err
			}
		}
	}
	if want("planner") {
		planner()
	}
	return report()
}

func numbers(s string) (out []int) {
	for _, p := range strings.Split(s, ",") {
		var n int
		if _, err := fmt.Sscan(p, &n); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// world is a fresh etcd process with a store on it.
func world() (st *store.Store, endpoint string, done func(), err error) {
	dir, err := os.MkdirTemp("", "rota-bench-")
	if err != nil {
		return nil, "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", nil, err
	}
	addr := l.Addr().String()
	_ = l.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, "", nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "ROTA_BENCH_ETCD="+dir, "ROTA_BENCH_ADDR="+addr)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, "", nil, err
	}
	endpoint = "http://" + addr
	s, err := etcdkv.Open(etcdkv.Config{Endpoints: []string{endpoint}})
	if err != nil {
		return nil, "", nil, err
	}
	st = store.New(s, "")
	for start := time.Now(); ; {
		if _, err = st.Ping(context.Background()); err == nil || time.Since(start) > 30*time.Second {
			break
		}
	}
	return st, endpoint, func() {
		_ = s.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}, err
}

// commits is the ceiling: guarded group commits in a bare loop, nothing else.
func commits() error {
	st, _, done, err := world()
	if err != nil {
		return err
	}
	defer done()
	value := []byte(strings.Repeat("x", 300))
	var n atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	start := time.Now()
	for i := range 400 {
		wg.Go(func() {
			key := fmt.Sprintf("/bench/%d", i)
			mod := int64(0)
			for ctx.Err() == nil {
				r, err := kv.Commit(context.Background(), st.KV, kv.Txn{
					Op: "bench", Guards: []kv.Guard{{Key: key, Kind: kv.Unchanged, Rev: mod}}, Changes: []kv.Change{{Key: key, Value: value}},
				})
				if err == nil && r.Applied {
					mod = r.Revision
					n.Add(1)
				}
			}
		})
	}
	wg.Wait()
	rate := float64(n.Load()) / time.Since(start).Seconds()
	add("commits", "400 keys, bare loop", fmt.Sprintf("%.0f guarded commits/s", rate), "the ceiling", rate)
	return nil
}

// measure fires n no-op shards every second and looks at what the handlers saw.
func measure(what string, n int) error {
	st, endpoint, done, err := world()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if err := st.EnsureNamespace(ctx, "bench"); err != nil {
		return err
	}
	wg.Go(func() { _ = scheduler.New(scheduler.Config{Store: st, Server: "bench", Log: quiet}).Run(ctx) })

	var recording atomic.Bool
	var runs, double, missed atomic.Int64
	last := make([]atomic.Int64, n)
	samples := make([][]int32, n) // microseconds, appended by one run at a time per shard
	x, err := executor.New(executor.Config{Endpoints: []string{endpoint}, Namespaces: []string{"bench"}, ID: "bench", Log: quiet, DrainTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	x.Handle("noop", func(_ context.Context, r *executor.Run) error {
		late := time.Since(r.Tick)
		tick := r.Tick.Unix()
		if was := last[r.Shard].Swap(tick); was >= tick {
			double.Add(1)
		} else if was > 0 && recording.Load() {
			missed.Add(tick - was - 1)
		}
		if recording.Load() {
			runs.Add(1)
			samples[r.Shard] = append(samples[r.Shard], int32(late.Microseconds()))
		}
		return nil
	})
	err = x.Define(jobs.New("bench", "noop").Every(time.Second).InShards(n).Handle("noop"))
	if err != nil {
		return err
	}
	wg.Go(func() { _ = x.Run(ctx) })
	for warm := time.Now(); time.Since(warm) < 60*time.Second; {
		seen := 0
		for i := range last {
			if last[i].Load() > 0 {
				seen++
			}
		}
		if seen == n {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(3 * time.Second)
	recording.Store(true)
	start := time.Now()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	time.Sleep(*duration)
	recording.Store(false)
	took := time.Since(start)
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano()-before.Utime.Nano()+after.Stime.Nano()-before.Stime.Nano()).Seconds() / took.Seconds()
	time.Sleep(100 * time.Millisecond)
	cancel()
	wg.Wait()
	var all []int32
	for _, s := range samples {
		all = append(all, s...)
	}
	slices.Sort(all)
	if len(all) == 0 {
		return fmt.Errorf("%s with %d shards: nothing ran", what, n)
	}
	q := func(p float64) time.Duration {
		return time.Duration(all[int(float64(len(all)-1)*p)]) * time.Microsecond
	}
	rate := float64(runs.Load()) / took.Seconds()
	tail := fmt.Sprintf("missed %d, double %d, %.2f cores here", missed.Load(), double.Load(), cpu)
	if what == "throughput" {
		add(what, fmt.Sprintf("%d no-op shards every second", n), fmt.Sprintf("%.0f durable runs/s, p99 late %v, %s", rate, q(.99).Round(time.Millisecond), tail), "aim 20000/s, least 10000/s", rate)
	} else {
		target := map[bool]string{true: "p99 at most 10 ms", false: "p99 at most 100 ms"}[n <= 1000]
		add(what, fmt.Sprintf("%d shards on the same second", n), fmt.Sprintf("p50 %v p99 %v max %v, %s", q(.5).Round(100*time.Microsecond), q(.99).Round(100*time.Microsecond), q(1).Round(100*time.Microsecond), tail), target, q(.99).Seconds())
	}
	return nil
}

func planner() {
	const nx, nj, ns = 1000, 10_000, 100
	xs := make([]shards.Executor, nx)
	for i := range xs {
		xs[i] = shards.Executor{ID: fmt.Sprintf("x%04d", i), Shell: true}
	}
	js := make([]shards.Job, nj)
	for i := range js {
		js[i] = shards.Job{Key: fmt.Sprintf("j%05d", i), Shards: ns, Run: jobs.RunSpec{Shell: "true"}}
	}
	start := time.Now()
	p := shards.Make(xs, js)
	cold := time.Since(start)
	for i := range js {
		js[i].Current = p.Jobs[i].Owner
	}
	start = time.Now()
	p = shards.Make(xs[1:], js)
	loss := time.Since(start)
	moves := 0
	for _, j := range p.Jobs {
		moves += len(j.Moves)
	}
	add("planner", "1000 executors, 1000000 shards", fmt.Sprintf("%v cold", cold.Round(time.Millisecond)), "under 3 s", cold.Seconds())
	add("planner", "lose one executor", fmt.Sprintf("%v, %d moves of its 1000 shards", loss.Round(time.Millisecond), moves), "under 200 ms, 1000 moves", loss.Seconds())
}

func report() error {
	cpu := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, l := range strings.Split(string(b), "\n") {
			if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	fmt.Printf("machine: %d cores, %s, %s, etcd with fsync on the same machine\n\n| what | setting | result | target |\n|---|---|---|---|\n", runtime.NumCPU(), cpu, runtime.Version())
	for _, l := range table {
		fmt.Printf("| %s | %s | %s | %s |\n", l.What, l.Setting, l.Result, l.Target)
	}
	if err := os.MkdirAll("bench/out", 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(map[string]any{"at": time.Now().UTC(), "cpu": cpu, "cores": runtime.NumCPU(), "go": runtime.Version(), "table": table}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join("bench", "out", time.Now().UTC().Format("20060102-150405")+".json"), b, 0o644)
}
