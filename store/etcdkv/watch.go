package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rota-dev/rota/store/kv"
)

func item(k *mvccpb.KeyValue) kv.Item {
	return kv.Item{Key: string(k.Key), Value: k.Value, Create: k.CreateRevision, Mod: k.ModRevision, Lease: kv.LeaseID(k.Lease)}
}

// Watch implements [kv.Store]. It resumes by revision across broken streams and ends only with ctx or on compaction.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) <-chan kv.Batch {
	out := make(chan kv.Batch, 16)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			err := s.watchOnce(ctx, prefix, &from, out)
			if errors.Is(err, kv.ErrCompacted) {
				select {
				case out <- kv.Batch{Err: err}:
				case <-ctx.Done():
				}
				return
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// watchOnce watches over one stream of its own until it breaks or stays silent; *from is the last revision delivered.
func (s *Store) watchOnce(ctx context.Context, prefix string, from *int64, out chan<- kv.Batch) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	w := clientv3.NewWatcher(s.read)
	defer func() { _ = w.Close() }()
	responses := w.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(*from+1), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	quiet := time.NewTimer(s.cfg.SilentWatch)
	defer quiet.Stop()
	asked := false
	for {
		select {
		case r, ok := <-responses:
			if !ok {
				return ctx.Err()
			}
			if r.CompactRevision != 0 || errors.Is(r.Err(), rpctypes.ErrCompacted) {
				return fmt.Errorf("watch %s: %w", prefix, kv.ErrCompacted)
			}
			if err := r.Err(); err != nil {
				return err
			}
			quiet.Reset(s.cfg.SilentWatch)
			asked = false
			if len(r.Events) == 0 {
				if r.IsProgressNotify() {
					*from = max(*from, r.Header.Revision)
				}
				continue
			}
			b := kv.Batch{Revision: r.Events[len(r.Events)-1].Kv.ModRevision, Events: make([]kv.Event, len(r.Events))}
			for i, e := range r.Events {
				b.Events[i] = kv.Event{Item: item(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete}
			}
			select {
			case out <- b:
				*from = b.Revision
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-quiet.C:
			if asked {
				return fmt.Errorf("watch %s: silent for too long", prefix)
			}
			asked = true
			quiet.Reset(s.cfg.SilentWatch)
			_ = w.RequestProgress(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
