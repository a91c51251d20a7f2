package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on documents.
const (
	MaxFileBytes = 8 << 20
	maxDocBytes  = 512 << 10
	maxDepth     = 40
	maxAliases   = 32
)

// Namespace is a tenant's document.
type Namespace struct {
	APIVersion string   `json:"apiVersion" yaml:"apiVersion"`
	Kind       string   `json:"kind" yaml:"kind"`
	Metadata   Metadata `json:"metadata" yaml:"metadata"`
}

// Documents are what a file holds.
type Documents struct {
	Jobs       []Job
	Namespaces []Namespace
}

// Parse reads a file of one or more YAML documents. It returns all mistakes that it can find, each with its place; jobs are
// validated too. The documents are usable only when the error is nil.
func Parse(file string, data []byte) (Documents, error) {
	docs, errs := parse(data)
	for i := range errs {
		errs[i].File = file
	}
	if len(errs) > 0 {
		return docs, errs
	}
	return docs, nil
}

func parse(data []byte) (docs Documents, errs FieldErrors) {
	if len(data) > MaxFileBytes { // before anything else touches it
		return docs, FieldErrors{{Message: fmt.Sprintf("is %d bytes long; at most %d are allowed", len(data), MaxFileBytes)}}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	if e := tooMuch(data); e != nil {
		return docs, FieldErrors{*e}
	}
	line := 0
	for _, part := range split(data) {
		d, es := parseOne(part.text)
		for i := range es {
			if es[i].Line > 0 {
				es[i].Line += part.line
			}
		}
		line += part.line
		docs.Jobs = append(docs.Jobs, d.Jobs...)
		docs.Namespaces = append(docs.Namespaces, d.Namespaces...)
		errs = append(errs, es...)
	}
	seen := map[string]bool{}
	for _, j := range docs.Jobs {
		id := j.Metadata.Namespace + "/" + j.Metadata.Name
		if seen[id] {
			errs = append(errs, FieldError{Path: "metadata.name", Message: fmt.Sprintf("job %q is defined twice", j.Metadata.Name)})
		}
		seen[id] = true
	}
	if len(errs) == 0 && len(docs.Jobs)+len(docs.Namespaces) == 0 {
		errs = append(errs, FieldError{Message: "holds no document"})
	}
	return docs, errs
}

// tooMuch refuses input that is hostile to a YAML parser before one sees it.
func tooMuch(data []byte) *FieldError {
	if !utf8.Valid(data) {
		return &FieldError{Message: "is not valid UTF-8"}
	}
	line, depth, indent, start := 1, 0, 0, true
	dashes := 0
	for i, c := range data {
		switch c {
		case '\n':
			line, indent, start, dashes = line+1, 0, true, 0
			continue
		case ' ':
			if start {
				indent++
			}
			continue
		case '\t':
			if start && i+1 < len(data) && data[i+1] != '\n' {
				return &FieldError{Line: line, Column: indent + 1, Message: "a tab cannot indent YAML: use spaces"}
			}
		case '-':
			if i+1 < len(data) && data[i+1] == ' ' {
				dashes++
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case 0:
			return &FieldError{Line: line, Column: 1, Message: "holds a NUL byte"}
		}
		start = start && c == '-'
		if depth > 4*maxDepth || indent > 20*maxDepth || dashes > 4*maxDepth {
			return &FieldError{Line: line, Column: 1, Message: "is nested too deeply"}
		}
	}
	return nil
}

type part struct {
	text []byte
	line int // lines before it
}

func split(data []byte) []part {
	var out []part
	cur, line := part{}, 0
	flush := func() {
		if len(bytes.TrimSpace(stripComments(cur.text))) > 0 {
			out = append(out, cur)
		}
	}
	for _, l := range bytes.SplitAfter(data, []byte("\n")) {
		if bytes.HasPrefix(l, []byte("---")) && len(bytes.TrimSpace(l[3:])) == 0 {
			flush()
			cur = part{line: line + 1}
		} else {
			cur.text = append(cur.text, l...)
		}
		line++
	}
	flush()
	return out
}

func stripComments(b []byte) []byte {
	var out []byte
	for _, l := range bytes.SplitAfter(b, []byte("\n")) {
		if t := bytes.TrimSpace(l); len(t) > 0 && t[0] != '#' {
			out = append(out, l...)
		}
	}
	return out
}

func parseOne(data []byte) (Documents, FieldErrors) {
	if len(data) > maxDocBytes {
		return Documents{}, FieldErrors{{Line: 1, Column: 1, Message: fmt.Sprintf("the document is %d bytes long; at most %d are allowed", len(data), maxDocBytes)}}
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return Documents{}, FieldErrors{syntax(err)}
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return Documents{}, nil
	}
	body := file.Docs[0].Body
	idx := &index{at: map[string]*token.Token{}}
	idx.walk("", body, 0)
	if idx.err != nil {
		return Documents{}, FieldErrors{*idx.err}
	}
	var head struct{ Kind string }
	_ = yaml.NodeToValue(body, &head)
	switch head.Kind {
	case "Namespace":
		var ns Namespace
		errs := decode(body, &ns)
		if msg := ValidNamespace(ns.Metadata.Name); len(errs) == 0 && msg != "" {
			errs = append(errs, FieldError{Path: "metadata.name", Message: msg})
		}
		return Documents{Namespaces: []Namespace{ns}}, idx.place(errs)
	default:
		j := Job{Spec: Spec{Shards: Shards{Count: 1}}}
		errs := decode(body, &j)
		if len(errs) == 0 {
			errs = j.Validate()
		}
		return Documents{Jobs: []Job{j}}, idx.place(errs)
	}
}

// decode reports unknown fields first, all of them, then the first value of a wrong type.
func decode(body ast.Node, v any) FieldErrors {
	if errs := unknown("", body, reflect.TypeOf(v).Elem()); len(errs) > 0 {
		return errs
	}
	if err := yaml.NodeToValue(body, v); err != nil {
		return FieldErrors{syntax(err)}
	}
	return nil
}

func syntax(err error) FieldError {
	var ye yaml.Error
	if errors.As(err, &ye) {
		e := FieldError{Message: ye.GetMessage(), Line: 1, Column: 1}
		if t := ye.GetToken(); t != nil && t.Position != nil {
			e.Line, e.Column = t.Position.Line, t.Position.Column
		}
		return e
	}
	return FieldError{Line: 1, Column: 1, Message: strings.SplitN(err.Error(), "\n", 2)[0]}
}

// index remembers where each path of a document stands.
type index struct {
	at      map[string]*token.Token
	aliases int
	err     *FieldError
}

func (x *index) walk(path string, n ast.Node, depth int) {
	if n == nil || x.err != nil {
		return
	}
	if depth > maxDepth {
		p := n.GetToken().Position
		x.err = &FieldError{Line: p.Line, Column: p.Column, Message: "is nested too deeply"}
		return
	}
	if x.at[path] == nil {
		x.at[path] = n.GetToken()
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			x.walk(path, v, depth)
		}
	case *ast.MappingValueNode:
		p := join(path, n.Key.GetToken().Value)
		x.at[p] = n.Key.GetToken()
		if n.Value != nil && n.Value.Type() != ast.MappingType && n.Value.Type() != ast.SequenceType {
			x.at[p] = n.Value.GetToken()
		}
		x.walk(p, n.Value, depth+1)
	case *ast.SequenceNode:
		for i, v := range n.Values {
			x.walk(fmt.Sprintf("%s[%d]", path, i), v, depth+1)
		}
	case *ast.AnchorNode:
		x.walk(path, n.Value, depth+1)
	case *ast.AliasNode:
		if x.aliases++; x.aliases > maxAliases {
			p := n.GetToken().Position
			x.err = &FieldError{Line: p.Line, Column: p.Column, Message: fmt.Sprintf("uses more than %d aliases", maxAliases)}
		}
	case *ast.TagNode:
		p := n.GetToken().Position
		x.err = &FieldError{Line: p.Line, Column: p.Column, Message: fmt.Sprintf("tags such as %s are not supported", n.GetToken().Value)}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// place gives errors without a line the line of their path, or of the nearest parent that is there.
func (x *index) place(errs FieldErrors) FieldErrors {
	for i := range errs {
		for p := errs[i].Path; errs[i].Line == 0; {
			if t := x.at[p]; t != nil && t.Position != nil {
				errs[i].Line, errs[i].Column = t.Position.Line, t.Position.Column
				break
			}
			if p == "" {
				errs[i].Line, errs[i].Column = 1, 1
				break
			}
			p = p[:max(0, strings.LastIndexAny(p, ".["))]
		}
	}
	return errs
}

// unknown finds fields that the type does not have.
func unknown(path string, n ast.Node, t reflect.Type) FieldErrors {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if a, ok := n.(*ast.AnchorNode); ok {
		n = a.Value
	}
	var errs FieldErrors
	switch {
	case t.Kind() == reflect.Slice:
		if seq, ok := n.(*ast.SequenceNode); ok {
			for i, v := range seq.Values {
				errs = append(errs, unknown(fmt.Sprintf("%s[%d]", path, i), v, t.Elem())...)
			}
		}
	case t.Kind() == reflect.Map:
		for _, v := range mapping(n) {
			errs = append(errs, unknown(join(path, v.Key.GetToken().Value), v.Value, t.Elem())...)
		}
	case t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeOf(Job{}).PkgPath() && t != reflect.TypeOf(Shards{}):
		if s, ok := n.(*ast.StringNode); ok && path != "" {
			return FieldErrors{{Path: path, Message: fmt.Sprintf("%q stands where fields are expected", s.Value)}}
		}
		known := map[string]reflect.Type{}
		var names []string
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name != "-" {
				known[name] = f.Type
				names = append(names, name)
			}
		}
		for _, v := range mapping(n) {
			key := v.Key.GetToken()
			if key.Value == "<<" {
				continue
			}
			ft, ok := known[key.Value]
			if !ok {
				errs = append(errs, FieldError{
					Line: key.Position.Line, Column: key.Position.Column, Path: path,
					Message: fmt.Sprintf("unknown field %q%s", key.Value, suggest(key.Value, names)),
				})
				continue
			}
			errs = append(errs, unknown(join(path, key.Value), v.Value, ft)...)
		}
	}
	return errs
}

func mapping(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

// suggest returns `; did you mean "x"?` for the closest candidate, or "".
func suggest(word string, candidates []string) string {
	best, dist := "", 3
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(c)); d < dist && d < len(c) {
			best, dist = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// YAML writes a definition as a person would.
func (j *Job) YAML() ([]byte, error) {
	return yaml.MarshalWithOptions(j, yaml.Indent(2), yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
}
