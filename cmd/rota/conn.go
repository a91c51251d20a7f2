package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/console/client"
)

// conn is a client with the flags that all its verbs share.
type conn struct {
	client.Client
	namespace string
	format    string
	out       io.Writer
}

func clientFlags(cmd *cobra.Command) *cobra.Command { return connectFlags(cmd, "n") }

func connectFlags(cmd *cobra.Command, short string) *cobra.Command {
	f := cmd.Flags()
	f.String("server", "http://127.0.0.1:8080", "address of a Rota server; also $ROTA_SERVER")
	f.String("token", "", "API token; also $ROTA_TOKEN")
	f.StringP("namespace", short, "default", "namespace; also $ROTA_NAMESPACE")
	f.StringP("output", "o", "table", "table, json or yaml")
	return cmd
}

func connect(cmd *cobra.Command) (*conn, error) {
	f := cmd.Flags()
	c := &conn{out: cmd.OutOrStdout()}
	c.Server, _ = f.GetString("server")
	c.Token, _ = f.GetString("token")
	c.namespace, _ = f.GetString("namespace")
	c.format, _ = f.GetString("output")
	switch c.format {
	case "table", "json", "yaml":
	default:
		return nil, usage("--output %q: table, json or yaml", c.format)
	}
	return c, nil
}

// path below the namespace.
func (c *conn) path(parts ...string) []string {
	return append([]string{"namespaces", c.namespace}, parts...)
}

// print writes v in the asked format; table is called for tables.
func (c *conn) print(v any, table func(w io.Writer)) error {
	switch c.format {
	case "json":
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		b, err := json.Marshal(v)
		if err == nil {
			b, err = yaml.JSONToYAML(b)
		}
		if err == nil {
			_, err = c.out.Write(b)
		}
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 4, 2, ' ', 0)
	table(w)
	return w.Flush()
}

func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			_, _ = io.WriteString(w, "\t")
		}
		s := fmt.Sprint(c)
		if s == "" {
			s = "-"
		}
		_, _ = io.WriteString(w, strings.NewReplacer("\n", " ", "\t", " ").Replace(s))
	}
	_, _ = io.WriteString(w, "\n")
}

func list[T any](items []T) api.List[T] { return api.List[T]{Items: items} }

// when shows an instant in the reader's zone.
func when(t *api.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05.000 -07:00")
}

func millis(ms *int64) string {
	if ms == nil {
		return "-"
	}
	return (time.Duration(*ms) * time.Millisecond).String()
}

func note(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) }
