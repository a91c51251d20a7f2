package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rota-dev/rota/console/api"
	"github.com/rota-dev/rota/console/client"
	"github.com/rota-dev/rota/jobs"
)

// document is one definition with where it stands.
type document struct {
	file string
	job  *jobs.Job
	ns   *jobs.Namespace
}

// readFiles reads files, directories (all *.yaml and *.yml below) and - for standard input. All mistakes of all files are
// reported together; nothing is applied when there is one.
func readFiles(paths []string) ([]document, error) {
	if len(paths) == 0 {
		return nil, usage("name files with -f FILE, a directory, or - for standard input")
	}
	var files []string
	for _, p := range paths {
		st, err := os.Stat(p)
		switch {
		case p == "-":
			files = append(files, p)
		case err != nil:
			return nil, &exitWith{err: err, code: exitError}
		case !st.IsDir():
			files = append(files, p)
		default:
			n := len(files)
			err := filepath.WalkDir(p, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml")) {
					files = append(files, path)
				}
				return err
			})
			if err != nil {
				return nil, err
			}
			if len(files) == n {
				return nil, fmt.Errorf("%s holds no .yaml file", p)
			}
		}
	}
	var out []document
	var errs []error
	seen := map[string]string{}
	for _, f := range files {
		data, err := readOne(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		docs, err := jobs.Parse(f, data)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range docs.Namespaces {
			out = append(out, document{file: f, ns: &docs.Namespaces[i]})
		}
		for i := range docs.Jobs {
			j := &docs.Jobs[i]
			id := j.Metadata.Namespace + "/" + j.Metadata.Name
			if other, twice := seen[id]; twice {
				errs = append(errs, fmt.Errorf("%s: job %s is defined in %s too", f, j.Metadata.Name, other))
			}
			seen[id] = f
			out = append(out, document{file: f, job: j})
		}
	}
	after := map[string][]string{}
	for _, d := range out {
		if d.job != nil && len(d.job.Spec.After) > 0 {
			after[d.job.Metadata.Name] = d.job.Spec.After
		}
	}
	if cycle := jobs.Cycle(after); cycle != nil {
		errs = append(errs, fmt.Errorf("spec.after: cycle: %s", strings.Join(cycle, " -> ")))
	}
	return out, errors.Join(errs...)
}

func readOne(f string) ([]byte, error) {
	r := io.Reader(os.Stdin)
	if f != "-" {
		h, err := os.Open(f)
		if err != nil {
			return nil, err
		}
		defer func() { _ = h.Close() }()
		r = h
	}
	b, err := io.ReadAll(io.LimitReader(r, jobs.MaxFileBytes+1))
	if err == nil && len(b) > jobs.MaxFileBytes {
		err = fmt.Errorf("%s: is larger than %d bytes", f, jobs.MaxFileBytes)
	}
	return b, err
}

func (c *conn) nsOf(j *jobs.Job) string {
	if j.Metadata.Namespace != "" {
		return j.Metadata.Namespace
	}
	return c.namespace
}

// apply writes documents, upstream jobs before those that run after them.
func (c *conn) apply(ctx context.Context, docs []document, dry bool) error {
	sort.SliceStable(docs, func(i, j int) bool { return rank(docs[i]) < rank(docs[j]) })
	for _, d := range docs {
		if d.ns != nil {
			if dry {
				continue
			}
			if _, err := c.Do(ctx, client.Request{Method: "PUT", Path: []string{"namespaces", d.ns.Metadata.Name},
				Body: map[string]any{"description": d.ns.Metadata.Description, "labels": d.ns.Metadata.Labels}}, nil); err != nil {
				return fmt.Errorf("%s: namespace %s: %w", d.file, d.ns.Metadata.Name, err)
			}
			_, _ = fmt.Fprintf(c.out, "namespace %s applied\n", d.ns.Metadata.Name)
			continue
		}
		a, err := c.put(ctx, d.job, dry)
		if err != nil {
			return fmt.Errorf("%s: job %s: %w", d.file, d.job.Metadata.Name, err)
		}
		suffix := ""
		if dry {
			suffix = " (dry run)"
		}
		_, _ = fmt.Fprintf(c.out, "job %s/%s %s%s\n", a.Namespace, a.Name, a.Result, suffix)
	}
	return nil
}

func rank(d document) int {
	switch {
	case d.ns != nil:
		return 0
	case len(d.job.Spec.After) == 0:
		return 1
	}
	return 2
}

func (c *conn) put(ctx context.Context, j *jobs.Job, dry bool) (a api.Applied, err error) {
	q := url.Values{}
	if dry {
		q.Set("dry_run", "true")
	}
	_, err = c.Do(ctx, client.Request{Method: "PUT", Path: []string{"namespaces", c.nsOf(j), "jobs", j.Metadata.Name}, Query: q, Body: inNamespace(j, c.nsOf(j))}, &a)
	return a, err
}

func inNamespace(j *jobs.Job, ns string) *jobs.Job {
	cp := *j
	cp.Metadata.Namespace, cp.Status = ns, nil
	return &cp
}

func fileFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayP("file", "f", nil, "file, directory, or - for standard input; repeatable")
}

func applyCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "apply -f FILE|DIR|-", Short: "Create or change jobs as files say", Args: args(cobra.NoArgs),
		Long:    "Creates or changes jobs as files say. All files are checked before the first job is written.",
		Example: "  rota apply -f jobs/\n  rota apply -f jobs/ --prune --dry-run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			files, _ := cmd.Flags().GetStringArray("file")
			prune, _ := cmd.Flags().GetBool("prune")
			dry, _ := cmd.Flags().GetBool("dry-run")
			docs, err := readFiles(files)
			if err != nil {
				return err
			}
			if err := c.apply(cmd.Context(), docs, dry); err != nil || !prune {
				return err
			}
			return c.prune(cmd.Context(), docs, dry)
		},
	})
	fileFlag(cmd)
	cmd.Flags().Bool("prune", false, "delete jobs that no file defines, in the namespaces that the files name")
	cmd.Flags().Bool("dry-run", false, "say what would happen, change nothing")
	return cmd
}

// prune deletes what no document defines, in the namespaces that the documents name.
func (c *conn) prune(ctx context.Context, docs []document, dry bool) error {
	keep := map[string]map[string]bool{}
	for _, d := range docs {
		if d.job == nil {
			continue
		}
		ns := c.nsOf(d.job)
		if keep[ns] == nil {
			keep[ns] = map[string]bool{}
		}
		keep[ns][d.job.Metadata.Name] = true
	}
	for ns, names := range keep {
		items, err := client.All[api.Job](ctx, &c.Client, client.Request{Method: "GET", Path: []string{"namespaces", ns, "jobs"}}, 0)
		if err != nil {
			return err
		}
		for _, j := range items {
			if names[j.Name] {
				continue
			}
			if dry {
				_, _ = fmt.Fprintf(c.out, "job %s/%s deleted (dry run)\n", ns, j.Name)
				continue
			}
			if _, err := c.Do(ctx, client.Request{Method: "DELETE", Path: []string{"namespaces", ns, "jobs", j.Name}}, nil); err != nil {
				return fmt.Errorf("job %s/%s: %w", ns, j.Name, err)
			}
			_, _ = fmt.Fprintf(c.out, "job %s/%s deleted\n", ns, j.Name)
		}
	}
	return nil
}

func diffCmd() *cobra.Command {
	cmd := clientFlags(&cobra.Command{
		Use: "diff -f FILE|DIR|-", Short: "What apply would change; exit 0: nothing, 1: something, more: an error", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			different, err := diff(cmd)
			if err != nil {
				code := codeOf(err)
				if code == exitError {
					code = exitUsage
				}
				return &exitWith{err: err, code: code}
			}
			if different {
				return &exitWith{err: errors.New("different"), code: 1, silent: true}
			}
			return nil
		},
	})
	fileFlag(cmd)
	return cmd
}

func diff(cmd *cobra.Command) (bool, error) {
	c, err := connect(cmd)
	if err != nil {
		return false, err
	}
	files, _ := cmd.Flags().GetStringArray("file")
	docs, err := readFiles(files)
	if err != nil {
		return false, err
	}
	different := false
	for _, d := range docs {
		if d.job == nil {
			continue
		}
		ns := c.nsOf(d.job)
		var live jobs.Job
		_, err := c.Do(cmd.Context(), client.Request{Method: "GET", Path: []string{"namespaces", ns, "jobs", d.job.Metadata.Name}}, &live)
		var p *api.Problem
		was := ""
		if errors.As(err, &p) && p.Status == 404 {
			err = nil
		} else if err == nil {
			b, _ := inNamespace(&live, ns).YAML()
			was = string(b)
		}
		if err != nil {
			return false, err
		}
		b, err := inNamespace(d.job, ns).YAML()
		if err != nil {
			return false, err
		}
		if was == string(b) {
			continue
		}
		different = true
		_, _ = fmt.Fprintf(c.out, "--- %s/%s (server)\n+++ %s/%s (%s)\n", ns, d.job.Metadata.Name, ns, d.job.Metadata.Name, d.file)
		for _, l := range lineDiff(was, string(b)) {
			_, _ = fmt.Fprintln(c.out, l)
		}
	}
	return different, nil
}

// lineDiff is a plain longest-common-subsequence diff; definitions are short.
func lineDiff(a, b string) []string {
	x, y := strings.Split(strings.TrimSuffix(a, "\n"), "\n"), strings.Split(strings.TrimSuffix(b, "\n"), "\n")
	if a == "" {
		x = nil
	}
	n := make([][]int, len(x)+1)
	for i := range n {
		n[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				n[i][j] = n[i+1][j+1] + 1
			} else {
				n[i][j] = max(n[i+1][j], n[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			out = append(out, " "+x[i])
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && n[i+1][j] >= n[i][j+1]:
			out = append(out, "-"+x[i])
			i++
		default:
			out = append(out, "+"+y[j])
			j++
		}
	}
	return out
}

func validateCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "validate -f FILE|DIR|-", Short: "Check files without a server", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, _ := cmd.Flags().GetStringArray("file")
			docs, err := readFiles(files)
			if err != nil {
				return err
			}
			if len(docs) == 1 {
				fmt.Println("1 document is valid")
			} else {
				fmt.Printf("%d documents are valid\n", len(docs))
			}
			return nil
		},
	}
	fileFlag(cmd)
	return cmd
}

func deleteCmd() *cobra.Command {
	return clientFlags(&cobra.Command{
		Use: "delete JOB", Short: "Delete a job; what runs ends, nothing more is started", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var out api.Applied
			if _, err := c.Do(cmd.Context(), client.Request{Method: "DELETE", Path: c.path("jobs", a[0])}, &out); err != nil {
				return err
			}
			return c.print(out, func(w io.Writer) { row(w, fmt.Sprintf("job %s/%s deleted", out.Namespace, out.Name)) })
		},
	})
}

func switchCmd(verb, short string) *cobra.Command {
	return clientFlags(&cobra.Command{
		Use: verb + " JOB", Short: short, Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			reason := ""
			if f := cmd.Flags().Lookup("reason"); f != nil {
				reason = f.Value.String()
			}
			var out api.Applied
			if _, err := c.Do(cmd.Context(), client.Request{Method: "POST", Path: c.path("jobs", a[0], verb), Body: api.ReasonRequest{Reason: reason}}, &out); err != nil {
				return err
			}
			return c.print(out, func(w io.Writer) {
				row(w, fmt.Sprintf("job %s/%s %sd (%s)", out.Namespace, out.Name, verb, out.Result))
			})
		},
	})
}

func enableCmd() *cobra.Command { return switchCmd("enable", "Put a job's schedule in force") }

func disableCmd() *cobra.Command {
	cmd := switchCmd("disable", "Suspend a job's schedule; runs by hand stay possible")
	cmd.Flags().String("reason", "", "why, for those who wonder later")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}

func schemaCmd() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a job, for editors", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := jobs.Schema()
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), string(b))
			}
			return err
		},
	}
}
