// Package order is the reference domain of orders: a shop whose unpaid orders are cancelled after a while.
//
// The shop lives in one SQLite database and runs on the data's own clock: [Shop.Advance] moves the clock and lets everything
// happen that the input says happened by then, in one transaction. [AutoCancel] is the handler of the job order-auto-cancel:
// it cancels the orders of its shard that are unpaid for longer than [PayWithin]. A payment that comes later is refused by
// the shop, so the outcome of every order follows from the input alone.
package order

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// PayWithin is how long an order may stay unpaid; exactly this long is still in time.
const PayWithin = 30 * time.Minute

// Shop is the database. Safe for concurrent use.
type Shop struct{ db *sql.DB }

const schema = `
CREATE TABLE IF NOT EXISTS input (order_id TEXT PRIMARY KEY, placed_at INTEGER NOT NULL, paid_at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS input_placed ON input (placed_at);
CREATE INDEX IF NOT EXISTS input_paid ON input (paid_at);
CREATE TABLE IF NOT EXISTS orders (
	order_id TEXT PRIMARY KEY, shard INTEGER NOT NULL, status TEXT NOT NULL, placed_at INTEGER NOT NULL, token INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orders_open ON orders (shard, placed_at) WHERE status = 'placed';
CREATE TABLE IF NOT EXISTS fences (shard INTEGER PRIMARY KEY, token INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), source TEXT NOT NULL, shards INTEGER NOT NULL, clock INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0);
`

// Open opens or creates the database.
func Open(path string) (*Shop, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=synchronous(NORMAL)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open shop: %w", err)
	}
	if _, err := db.Exec(schema); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open shop: %w", err)
	}
	return &Shop{db: db}, nil
}

// Close closes the database.
func (s *Shop) Close() error { return s.db.Close() }

// ErrOtherInput says that the database is in the middle of another input.
var ErrOtherInput = errors.New("the data directory holds an unfinished run over other orders")

// Load takes the orders in: CSV with a header and the columns order_id, placed_at, paid_at (RFC 3339; paid_at may be empty). The
// same input again resumes where the last process stopped; a finished one starts anew.
func (s *Shop) Load(ctx context.Context, r io.Reader, shards int) (resumed bool, err error) {
	hash := sha256.New()
	rows, err := readOrders(io.TeeReader(r, hash))
	if err != nil {
		return false, err
	}
	source := hex.EncodeToString(hash.Sum(nil))
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("load orders: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	var have string
	var n, done int
	switch err := tx.QueryRowContext(ctx, "SELECT source, shards, done FROM state").Scan(&have, &n, &done); {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return false, fmt.Errorf("load orders: %w", err)
	case done == 0 && (have != source || n != shards):
		return false, ErrOtherInput
	case done == 0:
		return true, nil
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM input; DELETE FROM orders; DELETE FROM fences; DELETE FROM state"); err != nil {
		return false, fmt.Errorf("load orders: %w", err)
	}
	first := int64(1 << 62)
	for _, o := range rows {
		if _, err := tx.ExecContext(ctx, "INSERT INTO input VALUES (?, ?, ?)", o.id, o.placed, o.paid); err != nil {
			return false, fmt.Errorf("load orders: order %s: %w", o.id, err)
		}
		first = min(first, o.placed)
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO state VALUES (1, ?, ?, ?, 0)", source, shards, first-1); err != nil {
		return false, fmt.Errorf("load orders: %w", err)
	}
	return false, tx.Commit()
}

type row struct {
	id     string
	placed int64
	paid   *int64
}

func readOrders(r io.Reader) ([]row, error) {
	c := csv.NewReader(r)
	head, err := c.Read()
	if err != nil {
		return nil, fmt.Errorf("orders: no header: %w", err)
	}
	col := map[string]int{}
	for i, h := range head {
		col[h] = i
	}
	for _, want := range []string{"order_id", "placed_at", "paid_at"} {
		if _, ok := col[want]; !ok {
			return nil, fmt.Errorf("orders: the header has no column %s", want)
		}
	}
	var out []row
	seen := map[string]bool{}
	for {
		rec, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("orders: %w", err)
		}
		line, _ := c.FieldPos(0)
		o := row{id: rec[col["order_id"]]}
		if o.id == "" || seen[o.id] {
			return nil, fmt.Errorf("orders: line %d: order_id %q is empty or stands twice", line, o.id)
		}
		seen[o.id] = true
		placed, err := time.Parse(time.RFC3339, rec[col["placed_at"]])
		if err != nil {
			return nil, fmt.Errorf("orders: line %d: placed_at: %w", line, err)
		}
		o.placed = placed.UnixMilli()
		if p := rec[col["paid_at"]]; p != "" {
			paid, err := time.Parse(time.RFC3339, p)
			if err != nil {
				return nil, fmt.Errorf("orders: line %d: paid_at: %w", line, err)
			}
			ms := paid.UnixMilli()
			o.paid = &ms
		}
		out = append(out, o)
	}
	if len(out) == 0 {
		return nil, errors.New("orders: the file holds no order")
	}
	return out, nil
}

// ShardOf says which shard works on an order.
func ShardOf(id string, shards int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return int(h.Sum32() % uint32(shards))
}

// Clock is the data's clock and its end: when the last order may no longer be paid.
func (s *Shop) Clock(ctx context.Context) (now, end time.Time, err error) {
	var clock, last int64
	err = s.db.QueryRowContext(ctx, "SELECT clock, (SELECT max(placed_at) FROM input) FROM state").Scan(&clock, &last)
	return time.UnixMilli(clock).UTC(), time.UnixMilli(last).UTC().Add(PayWithin + time.Minute), err
}

// Advance moves the clock to an instant, never back: orders placed by then appear, payments made by then are taken if they are
// in time and the order is not cancelled.
func (s *Shop) Advance(ctx context.Context, to time.Time) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("advance: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	var clock int64
	var shards int
	if err := tx.QueryRowContext(ctx, "SELECT clock, shards FROM state").Scan(&clock, &shards); err != nil {
		return fmt.Errorf("advance: %w", err)
	}
	if to.UnixMilli() <= clock {
		return nil
	}
	rows, err := tx.QueryContext(ctx, "SELECT order_id, placed_at FROM input WHERE placed_at > ? AND placed_at <= ?", clock, to.UnixMilli())
	if err != nil {
		return fmt.Errorf("advance: %w", err)
	}
	var placed []row
	for rows.Next() {
		var o row
		if err := rows.Scan(&o.id, &o.placed); err != nil {
			return errors.Join(err, rows.Close())
		}
		placed = append(placed, o)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("advance: %w", err)
	}
	for _, o := range placed {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (order_id, shard, status, placed_at) VALUES (?, ?, 'placed', ?)", o.id, ShardOf(o.id, shards), o.placed); err != nil {
			return fmt.Errorf("advance: order %s: %w", o.id, err)
		}
	}
	// Payments since the last step, and those of orders that appeared in this one.
	if _, err := tx.ExecContext(ctx, `UPDATE orders SET status = 'paid' WHERE status = 'placed' AND order_id IN (
		SELECT order_id FROM input WHERE paid_at <= ?1 AND paid_at <= placed_at + ?2 AND (paid_at > ?3 OR placed_at > ?3))`,
		to.UnixMilli(), PayWithin.Milliseconds(), clock); err != nil {
		return fmt.Errorf("advance: %w", err)
	}
	if _, err := tx.ExecContext(ctx, "UPDATE state SET clock = ?", to.UnixMilli()); err != nil {
		return fmt.Errorf("advance: %w", err)
	}
	return tx.Commit()
}

// ErrStale says that a newer run of the shard has been here: the token is refused.
var ErrStale = errors.New("stale token: a newer run has taken over this shard")

// CancelUnpaid cancels the orders of a shard that are unpaid for longer than PayWithin by the data's clock. The token fences it: a
// run that was taken over changes nothing.
func (s *Shop) CancelUnpaid(ctx context.Context, shard int, token int64) (int64, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("cancel unpaid: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	res, err := tx.ExecContext(ctx, `INSERT INTO fences VALUES (?, ?)
		ON CONFLICT (shard) DO UPDATE SET token = excluded.token WHERE excluded.token >= fences.token`, shard, token)
	if err != nil {
		return 0, fmt.Errorf("cancel unpaid: %w", err)
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return 0, ErrStale
	}
	res, err = tx.ExecContext(ctx, `UPDATE orders SET status = 'cancelled', token = ?
		WHERE shard = ? AND status = 'placed' AND placed_at + ? < (SELECT clock FROM state)`, token, shard, PayWithin.Milliseconds())
	if err != nil {
		return 0, fmt.Errorf("cancel unpaid: %w", err)
	}
	n, _ := res.RowsAffected()
	return n, tx.Commit()
}

// Account is the closing account.
type Account struct {
	Orders    int            `json:"orders"`
	Paid      int            `json:"paid"`
	Cancelled int            `json:"cancelled"`
	Shards    []ShardAccount `json:"shards"`
	Open      int            `json:"-"`
}

// ShardAccount is one shard's part.
type ShardAccount struct {
	Shard     int `json:"shard"`
	Paid      int `json:"paid"`
	Cancelled int `json:"cancelled"`
}

// Account counts what has become of the orders so far.
func (s *Shop) Account(ctx context.Context) (Account, error) {
	var a Account
	var shards int
	if err := s.db.QueryRowContext(ctx, "SELECT shards FROM state").Scan(&shards); err != nil {
		return a, fmt.Errorf("account: %w", err)
	}
	a.Shards = make([]ShardAccount, shards)
	for i := range a.Shards {
		a.Shards[i].Shard = i
	}
	rows, err := s.db.QueryContext(ctx, "SELECT shard, status, count(*) FROM orders GROUP BY shard, status")
	if err != nil {
		return a, fmt.Errorf("account: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var shard, n int
		var status string
		if err := rows.Scan(&shard, &status, &n); err != nil {
			return a, fmt.Errorf("account: %w", err)
		}
		a.Orders += n
		switch status {
		case "paid":
			a.Paid += n
			a.Shards[shard].Paid = n
		case "cancelled":
			a.Cancelled += n
			a.Shards[shard].Cancelled = n
		default:
			a.Open += n
		}
	}
	return a, rows.Err()
}

// Expected is what one query over the input says.
func (s *Shop) Expected(ctx context.Context) (a Account, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE paid_at <= placed_at + ?1),
		count(*) FILTER (WHERE paid_at IS NULL OR paid_at > placed_at + ?1) FROM input`, PayWithin.Milliseconds()).Scan(&a.Orders, &a.Paid, &a.Cancelled)
	return a, err
}

// Finish marks the run over this input as complete.
func (s *Shop) Finish(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, "UPDATE state SET done = 1")
	return err
}
