package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rota-dev/rota/domains/order"
	"github.com/rota-dev/rota/executor"
)

// Demo runs order-auto-cancel over a stream of orders, in one process with everything it needs.
type Demo struct {
	Orders  string  // CSV file; "" generates a sample
	Speed   float64 // seconds of the data's clock per second; 0: so that the whole input takes about 20 s
	DataDir string
	Listen  string
	Once    bool // end with the closing account; else the console stays up
	Log     *slog.Logger
	Status  io.Writer // progress
	// Account is told the closing account.
	Account func(order.Account)
}

const (
	demoShards    = 8
	demoNamespace = "orders"
	demoTakes     = 20 * time.Second
	demoStep      = 100 * time.Millisecond
)

// Run plays the orders to their end.
func (d Demo) Run(ctx context.Context) error {
	if err := os.MkdirAll(d.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	input, err := d.input()
	if err != nil {
		return err
	}
	dev := Dev{DataDir: d.DataDir, Listen: d.Listen, Log: d.Log, Extra: func(ctx context.Context, url string, endpoints []string, reg prometheus.Registerer) error {
		return d.play(ctx, url, endpoints, reg, input)
	}}
	return dev.Run(ctx)
}

func (d Demo) input() ([]byte, error) {
	if d.Orders == "" {
		return sample(2000), nil
	}
	b, err := os.ReadFile(d.Orders)
	if err != nil {
		return nil, fmt.Errorf("orders: %w", err)
	}
	return b, nil
}

func (d Demo) play(ctx context.Context, url string, endpoints []string, reg prometheus.Registerer, input []byte) error {
	shop, err := order.Open(filepath.Join(d.DataDir, "shop.db"))
	if err != nil {
		return err
	}
	defer func() { _ = shop.Close() }()
	resumed, err := shop.Load(ctx, bytes.NewReader(input), demoShards)
	if err != nil {
		if errors.Is(err, order.ErrOtherInput) {
			return fmt.Errorf("%w: finish it with the same orders, or name another --data-dir", err)
		}
		return err
	}
	x, err := executor.New(executor.Config{
		Endpoints: endpoints, Namespaces: []string{demoNamespace}, ID: "shop-worker", Log: d.Log, Registerer: reg, DrainTimeout: 10 * time.Second, Version: Version(),
	})
	if err != nil {
		return err
	}
	x.Handle(order.Handler, order.AutoCancel(shop))
	if err := x.Define(order.Job(demoNamespace, demoShards)); err != nil {
		return err
	}
	return together(ctx, x.Run, func(ctx context.Context) error { return d.story(ctx, url, shop, resumed) })
}

// story moves the data's clock and waits until every order has ended.
func (d Demo) story(ctx context.Context, url string, shop *order.Shop, resumed bool) error {
	clock, end, err := shop.Clock(ctx)
	if err != nil {
		return err
	}
	want, err := shop.Expected(ctx)
	if err != nil {
		return err
	}
	speed := d.Speed
	if speed == 0 {
		speed = max(1, end.Sub(clock).Seconds()/demoTakes.Seconds())
	}
	word := "playing"
	if resumed {
		word = "resuming"
	}
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(d.Status, format+"\n", a...) }
	say("%s %d orders in %d shards, %s to %s, at %.0f times the speed; console at %s", word, want.Orders, demoShards,
		clock.Format(time.DateTime), end.Format(time.DateTime), speed, url)
	tick := time.NewTicker(demoStep)
	defer tick.Stop()
	start, begin, shown := time.Now(), clock, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		clock = begin.Add(time.Duration(min(time.Since(start).Seconds()*speed, float64(end.Sub(begin).Seconds())) * float64(time.Second)))
		if err := shop.Advance(ctx, clock); err != nil && ctx.Err() == nil {
			return err
		}
		a, err := shop.Account(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		done := !clock.Before(end) && a.Open == 0
		if done || time.Since(shown) >= time.Second {
			shown = time.Now()
			say("%s  seen %6d  open %5d  paid %6d  cancelled %6d", clock.Format("2006-01-02 15:04"), a.Orders, a.Open, a.Paid, a.Cancelled)
		}
		if done {
			return d.close(ctx, shop, a, want, say)
		}
	}
}

func (d Demo) close(ctx context.Context, shop *order.Shop, a, want order.Account, say func(string, ...any)) error {
	if err := shop.Finish(ctx); err != nil {
		return err
	}
	say("\nshard    paid  cancelled")
	for _, s := range a.Shards {
		say("%5d %7d %10d", s.Shard, s.Paid, s.Cancelled)
	}
	say("total %7d %10d  of %d orders", a.Paid, a.Cancelled, a.Orders)
	if a.Orders != want.Orders || a.Paid != want.Paid || a.Cancelled != want.Cancelled {
		return fmt.Errorf("the account is wrong: one query over the input says %d orders, %d paid, %d cancelled", want.Orders, want.Paid, want.Cancelled)
	}
	say("equals what one query over the input says")
	if d.Account != nil {
		d.Account(a)
	}
	if d.Once {
		return nil
	}
	say("the console stays up; stop with Ctrl-C")
	<-ctx.Done()
	return nil
}

// sample generates orders of one day, the same ones every time: most are paid within minutes, some late, some never.
func sample(n int) []byte {
	r := rand.New(rand.NewPCG(2026, 11))
	var b bytes.Buffer
	b.WriteString("order_id,placed_at,paid_at\n")
	day := time.Date(2026, 11, 11, 0, 0, 0, 0, time.UTC)
	for i := range n {
		placed := day.Add(time.Duration(r.IntN(24*3600)) * time.Second)
		paid := ""
		switch p := r.Float64(); {
		case p < 0.7:
			paid = placed.Add(time.Duration(r.IntN(30*60)+1) * time.Second).Format(time.RFC3339)
		case p < 0.8:
			paid = placed.Add(30*time.Minute + time.Duration(r.IntN(24*3600)+1)*time.Second).Format(time.RFC3339)
		case p < 0.82:
			paid = placed.Add(order.PayWithin).Format(time.RFC3339)
		}
		fmt.Fprintf(&b, "sample-%05d,%s,%s\n", i, placed.Format(time.RFC3339), paid)
	}
	return b.Bytes()
}
