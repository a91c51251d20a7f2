package scheduler

import (
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rota-dev/rota/store"
)

type metrics struct {
	leader    prometheus.Gauge
	plan      prometheus.Histogram
	moves     *prometheus.CounterVec
	refused   prometheus.Counter
	shards    *prometheus.GaugeVec
	executors *prometheus.GaugeVec
	enabled   *prometheus.GaugeVec
	nextTick  *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		leader: prometheus.NewGauge(prometheus.GaugeOpts{Name: "rota_leader", Help: "1 while this server's scheduler is elected."}),
		plan: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rota_plan_duration_seconds", Help: "Time to compute one plan.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
			NativeHistogramBucketFactor: 1.1,
		}),
		moves:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rota_shard_moves_total", Help: "Shards given an owner, by reason."}, []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "rota_plan_refusals_total", Help: "Decisions that were refused because the state or the term had changed."}),
		shards: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rota_shards", Help: "Shards by state (owned, unowned), per namespace; known to the leader.",
		}, []string{"namespace", "state"}),
		executors: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rota_executors", Help: "Executors by state (ready, draining), per namespace; known to the leader.",
		}, []string{"namespace", "state"}),
		enabled:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rota_job_enabled", Help: "1 while the job is enabled."}, []string{"namespace", "job"}),
		nextTick: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rota_job_next_tick_timestamp_seconds", Help: "When the job is due next."}, []string{"namespace", "job"}),
	}
	if r != nil {
		r.MustRegister(m.leader, m.plan, m.moves, m.refused, m.shards, m.executors, m.enabled, m.nextTick)
	}
	return m
}

// observe refreshes the gauges that a plan knows.
func (m *metrics) observe(v *store.View) {
	m.shards.Reset()
	m.executors.Reset()
	m.enabled.Reset()
	m.nextTick.Reset()
	for ns := range v.Namespaces {
		owned := 0
		for _, own := range v.Owners(ns) {
			owned += len(own)
		}
		total := 0
		live, _ := v.Live(ns)
		states := map[string]int{store.Ready: 0, store.Draining: 0}
		for _, x := range live {
			states[x.Presence.State]++
		}
		for st, n := range states {
			m.executors.WithLabelValues(ns, st).Set(float64(n))
		}
		now := time.Now().UnixMilli()
		for k, j := range v.Jobs {
			if k.Namespace != ns {
				continue
			}
			total += j.Job.Spec.Shards.Count
			on := 0.0
			if j.Job.Enabled() {
				on = 1
			}
			m.enabled.WithLabelValues(ns, k.Name).Set(on)
			if tl, err := j.Job.Timeline(); err == nil {
				if t, ok := tl.Next(now); ok {
					m.nextTick.WithLabelValues(ns, k.Name).Set(float64(t.At) / 1000)
				}
			}
		}
		m.shards.WithLabelValues(ns, "owned").Set(float64(owned))
		m.shards.WithLabelValues(ns, "unowned").Set(float64(max(0, total-owned)))
	}
}

func unplacedKeys(m map[store.JobKey]string) []store.JobKey {
	out := make([]store.JobKey, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].String() < out[j].String() })
	return out
}
