// Package client talks to the HTTP API.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/rota-dev/rota/console/api"
)

// Client of one server. The zero HTTP is http.DefaultClient.
type Client struct {
	Server string // http://host:port
	Token  string
	HTTP   *http.Client
}

// Request is one call below /api/v1.
type Request struct {
	Method string
	Path   []string // segments, escaped by the client
	Query  url.Values
	Header map[string]string
	Body   any    // encoded as JSON, unless Raw is set
	Raw    []byte // sent as it is
}

// Do sends a request and decodes the answer into out (nil: discarded; *[]byte: raw). Errors of the server are *api.Problem.
func (c *Client) Do(ctx context.Context, r Request, out any) (http.Header, error) {
	base := strings.TrimSuffix(c.Server, "/")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u := base + "/api/v1"
	for _, p := range r.Path {
		u += "/" + url.PathEscape(p)
	}
	if len(r.Query) > 0 {
		u += "?" + r.Query.Encode()
	}
	body := r.Raw
	kind := "application/yaml"
	if r.Body != nil {
		b, err := json.Marshal(r.Body)
		if err != nil {
			return nil, err
		}
		body, kind = b, "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, u, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", c.Server, err)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", kind)
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	h := c.HTTP
	if h == nil {
		h = &http.Client{Timeout: time.Minute}
	}
	resp, err := h.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("no server answers at %s: start one with `rota dev` or name another with --server", base)
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		p := &api.Problem{}
		if json.Unmarshal(b, p) != nil || p.Status == 0 {
			p = &api.Problem{Status: resp.StatusCode, Title: resp.Status, Code: "internal", Detail: strings.TrimSpace(string(b[:min(len(b), 300)]))}
		}
		return resp.Header, p
	}
	switch o := out.(type) {
	case nil:
	case *[]byte:
		*o = b
	default:
		if err := json.Unmarshal(b, out); err != nil {
			return nil, fmt.Errorf("answer of %s is not understood: %w", u, err)
		}
	}
	return resp.Header, nil
}

// All reads every page of a list.
func All[T any](ctx context.Context, c *Client, r Request, limit int) ([]T, error) {
	items := []T{}
	q := url.Values{}
	for k, v := range r.Query {
		q[k] = v
	}
	for {
		size := 1000
		if limit > 0 {
			size = min(size, limit-len(items))
		}
		q.Set("limit", fmt.Sprint(size))
		r.Query = q
		var page api.List[T]
		if _, err := c.Do(ctx, r, &page); err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.NextPageToken == "" || limit > 0 && len(items) >= limit {
			return items, nil
		}
		q.Set("page_token", page.NextPageToken)
	}
}
