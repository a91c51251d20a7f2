package scheduler

import (
	"context"
	"time"

	"github.com/rota-dev/rota/jobs"
	"github.com/rota-dev/rota/store"
	"github.com/rota-dev/rota/store/kv"
)

// keepSettled is how long a settled command is remembered, so that a repeated request is still one run.
const keepSettled = 15 * time.Minute

// Garbage lists what nobody needs: records of jobs that are gone and that no live executor holds, settled commands after a
// while, commands and rounds of jobs that are gone.
func Garbage(v *store.View, ns string, records []store.RecordItem, commands []store.CommandItem, now time.Time) []store.Garbage {
	var out []store.Garbage
	for _, r := range records {
		j, ok := v.Jobs[r.JobKey]
		if ok && j.UID == r.UID {
			continue
		}
		if run := r.Record.Run; run != nil && run.Holder != (jobs.Holder{}) {
			if _, alive := v.Executors[store.IncarnationKey{Namespace: ns, ID: run.Holder.Executor, Incarnation: run.Holder.Incarnation}]; alive {
				continue
			}
		}
		out = append(out, store.Garbage{Record: &r.ShardKey, Mod: r.Mod})
	}
	for _, c := range commands {
		_, ok := v.Jobs[c.JobKey]
		if !ok || c.Command.Settled != "" && now.Sub(time.UnixMilli(c.Command.EndedAt)) > keepSettled {
			out = append(out, store.Garbage{Command: &c, Mod: c.Mod})
		}
	}
	for k, r := range v.Rounds {
		if _, ok := v.Jobs[k]; !ok && k.Namespace == ns {
			out = append(out, store.Garbage{Round: &k, Mod: r.Mod})
		}
	}
	return out
}

// collect runs in a worker; the leader's term guards every deletion.
func (s *Scheduler) collect(ctx context.Context) {
	if s.term == "" {
		return
	}
	term := s.term
	// The worker gets its own copy of what it reads.
	v := store.NewView()
	for k, j := range s.view.Jobs {
		v.Jobs[k] = j
	}
	for k, x := range s.view.Executors {
		v.Executors[k] = x
	}
	for k, r := range s.view.Rounds {
		v.Rounds[k] = r
	}
	var names []string
	for ns := range s.view.Namespaces {
		names = append(names, ns)
	}
	s.workers.Go(func() {
		for _, ns := range names {
			records, _, err := s.cfg.Store.ReadAllRecords(ctx, ns, "")
			if err != nil {
				continue
			}
			commands, err := s.cfg.Store.ReadCommands(ctx, store.JobKey{Namespace: ns})
			if err != nil {
				continue
			}
			garbage := Garbage(v, ns, records, commands, time.Now())
			txns := make([]kv.Txn, len(garbage))
			for i, g := range garbage {
				txns[i] = s.cfg.Store.CollectTxn(term, g)
			}
			s.submit(txns)
			if len(txns) > 0 {
				s.cfg.Log.Info("collected garbage", "namespace", ns, "keys", len(txns))
			}
		}
	})
}
