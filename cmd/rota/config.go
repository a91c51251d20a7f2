package main

import (
	"log/slog"
	"os"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// configure fills the flags that were not given from the environment (ROTA_LEASE_TTL for --lease-ttl), then from the
// configuration file.
func configure(cmd *cobra.Command) error {
	k := koanf.New("/")
	path, _ := cmd.Flags().GetString("config")
	if path == "" {
		path = os.Getenv("ROTA_CONFIG")
	}
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return usage("configuration file %s: %w", path, err)
		}
	}
	known := map[string]bool{}
	for _, c := range append(cmd.Root().Commands(), cmd.Root()) {
		c.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		c.PersistentFlags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
	}
	for _, key := range k.Keys() {
		if name, _, _ := strings.Cut(key, "/"); !known[name] {
			return usage("configuration file %s: unknown key %q: keys are the names of flags", path, name)
		}
	}
	if err := k.Load(env.Provider("/", env.Opt{Prefix: "ROTA_", TransformFunc: func(key, v string) (string, any) {
		return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, "ROTA_")), "_", "-"), v
	}}), nil); err != nil {
		return err
	}
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || !k.Exists(f.Name) || first != nil || f.Name == "config" {
			return
		}
		v := k.String(f.Name)
		if list := k.Strings(f.Name); len(list) > 0 {
			v = strings.Join(list, ",")
		}
		if err := cmd.Flags().Set(f.Name, v); err != nil {
			first = usage("%s (from ROTA_%s or the configuration file): %w", f.Name, strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), err)
		}
	})
	return first
}

// logger builds the logger that the flags ask for.
func logger(cmd *cobra.Command, fallback slog.Level) (*slog.Logger, error) {
	level := fallback
	if s, _ := cmd.Flags().GetString("log-level"); s != "" {
		if err := level.UnmarshalText([]byte(s)); err != nil {
			return nil, usage("--log-level %q: debug, info, warn or error", s)
		}
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f, _ := cmd.Flags().GetString("log-format"); f {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	default:
		return nil, usage("--log-format %q: text or json", f)
	}
}

// pairs reads k=v flags.
func pairs(list []string, flag string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range list {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usage("--%s %q: write key=value", flag, p)
		}
		if _, twice := out[k]; twice {
			return nil, usage("--%s %q is given twice", flag, k)
		}
		out[k] = v
	}
	return out, nil
}
