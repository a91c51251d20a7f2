package executor

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rota-dev/rota/executor/engine"
	"github.com/rota-dev/rota/jobs"
)

type metrics struct {
	ticks    *prometheus.CounterVec
	lateness prometheus.Histogram
	duration *prometheus.HistogramVec
	runs     *prometheus.CounterVec
	running  prometheus.Gauge
	owned    prometheus.Gauge
	success  *prometheus.GaugeVec
	failover prometheus.Histogram
	refused  prometheus.Counter
	fenced   prometheus.Counter
	commit   *prometheus.HistogramVec
	size     prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, id string) *metrics {
	hist := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets, NativeHistogramBucketFactor: 1.1})
	}
	seconds := prometheus.ExponentialBuckets(0.001, 2.5, 12)
	m := &metrics{
		ticks:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rota_ticks_total", Help: "Ticks by how they ended: fired, skipped, missed."}, []string{"outcome", "reason"}),
		lateness: hist("rota_start_lateness_seconds", "Start of a handler against the instant it was due.", seconds),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rota_run_duration_seconds", Help: "Duration of ended runs.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 12), NativeHistogramBucketFactor: 1.1,
		}, []string{"kind"}),
		runs:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rota_runs_total", Help: "Ended runs."}, []string{"kind", "trigger", "result"}),
		running:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "rota_runs_running", Help: "Handlers running at this executor."}),
		owned:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "rota_executor_shards", Help: "Shards known to this executor."}),
		success:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rota_job_last_success_timestamp_seconds", Help: "End of the last successful run here."}, []string{"namespace", "job"}),
		failover: hist("rota_failover_seconds", "From seeing a holder gone to owning its shard.", seconds),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: "rota_fencing_rejections_total", Help: "Commits refused because another incarnation had decided."}),
		fenced:   prometheus.NewCounter(prometheus.CounterOpts{Name: "rota_fenced_total", Help: "Incarnations of this executor that ended by losing their lease."}),
		commit: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rota_etcd_commit_duration_seconds", Help: "Duration of group commits, by the operation that leads the group.", Buckets: seconds, NativeHistogramBucketFactor: 1.1,
		}, []string{"op"}),
		size: hist("rota_etcd_group_size", "Transactions in one group commit.", prometheus.ExponentialBuckets(1, 2, 8)),
	}
	if r != nil {
		prometheus.WrapRegistererWith(prometheus.Labels{"executor": id}, r).MustRegister(m.ticks, m.lateness, m.duration, m.runs, m.running, m.owned,
			m.success, m.failover, m.refused, m.fenced, m.commit, m.size)
	}
	return m
}

func (m *metrics) group(op string, size int, took time.Duration) {
	m.commit.WithLabelValues(op).Observe(took.Seconds())
	m.size.Observe(float64(size))
}

// note writes what the engine reports to metrics and, as transitions, to the log.
func (x *Executor) note(n engine.Note) {
	m := x.metrics
	switch n.Kind {
	case engine.NoteEnded:
		m.runs.WithLabelValues(n.Target, string(n.Run.Trigger), string(n.Run.Phase)).Inc()
		if n.Run.StartedAt > 0 {
			m.duration.WithLabelValues(n.Target).Observe(float64(n.Run.EndedAt-n.Run.StartedAt) / 1000)
		} else {
			m.ticks.WithLabelValues(string(n.Run.Phase), n.Run.Reason).Inc()
		}
		if n.Run.Phase == jobs.Succeeded {
			m.success.WithLabelValues(n.Shard.Namespace, n.Shard.Name).Set(float64(n.Run.EndedAt) / 1000)
		}
	case engine.NoteFacts:
		for _, f := range n.Facts {
			m.ticks.WithLabelValues(string(f.Phase), f.Reason).Add(float64(f.Count))
		}
	case engine.NoteTakeover:
		if n.Lateness > 0 {
			m.failover.Observe(n.Lateness.Seconds())
		}
	case engine.NoteRefused:
		m.refused.Inc()
	}
	x.logNote(n)
}

// noteStart runs in the goroutine of the run, off the path of the starts that follow.
func (x *Executor) noteStart(e engine.Start) {
	m := x.metrics
	late := x.cfg.Clock().Wall.Sub(time.UnixMilli(e.Run.Due))
	m.lateness.Observe(late.Seconds())
	m.running.Inc()
	if e.Run.Trigger == jobs.BySchedule && e.Run.Attempt == 1 {
		m.ticks.WithLabelValues("fired", "").Inc()
	}
	if !x.cfg.Log.Enabled(nil, slog.LevelInfo) { //nolint:staticcheck // no context to give: the level alone decides
		return
	}
	x.cfg.Log.Info("started", "namespace", e.Shard.Namespace, "job", e.Shard.Name, "shard", e.Shard.Shard, "run", e.Run.ID,
		"tick", time.UnixMilli(e.Run.Tick).UTC().Format("2006-01-02T15:04:05.000Z"), "attempt", e.Run.Attempt, "token", e.Run.Token,
		"executor", x.cfg.ID, "lateness", late.Round(100*time.Microsecond))
}

func (x *Executor) logNote(n engine.Note) {
	level, msg := slog.LevelInfo, ""
	switch n.Kind {
	case engine.NoteEnded:
		msg = "ended"
		if n.Run.Phase == jobs.Failed || n.Run.Phase == jobs.TimedOut || n.Run.Phase == jobs.Lost {
			level = slog.LevelWarn
		}
	case engine.NoteRetry:
		level, msg = slog.LevelWarn, "retrying"
	case engine.NoteFacts:
		level, msg = slog.LevelWarn, "not run"
	case engine.NoteTakeover:
		level, msg = slog.LevelWarn, "taken over"
	case engine.NoteRefused:
		level, msg = slog.LevelWarn, "refused: another incarnation has decided"
	case engine.NoteSlow:
		level, msg = slog.LevelWarn, "running longer than warn_after"
	case engine.NoteReleased:
		msg = "released"
	case engine.NoteCorrupt:
		level, msg = slog.LevelError, "key is not understood"
	}
	log := x.cfg.Log
	if msg == "" || !log.Enabled(nil, level) { //nolint:staticcheck // no context to give: the level alone decides
		return
	}
	args := []any{"namespace", n.Shard.Namespace, "job", n.Shard.Name, "shard", n.Shard.Shard}
	if r := n.Run; r != nil {
		args = append(args, "run", r.ID, "tick", time.UnixMilli(r.Tick).UTC().Format("2006-01-02T15:04:05.000Z"), "attempt", r.Attempt,
			"phase", string(r.Phase), "token", r.Token, "executor", x.cfg.ID)
		if r.Reason != "" {
			args = append(args, "reason", r.Reason)
		}
	}
	for _, f := range n.Facts {
		args = append(args, "phase", string(f.Phase), "reason", f.Reason, "count", f.Count,
			"from", time.UnixMilli(f.From).UTC().Format(time.RFC3339), "to", time.UnixMilli(f.To).UTC().Format(time.RFC3339))
	}
	if n.Text != "" {
		args = append(args, "detail", n.Text)
	}
	log.Log(nil, level, msg, args...) //nolint:staticcheck // as above
}
