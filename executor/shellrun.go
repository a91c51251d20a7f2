package executor

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rota-dev/rota/executor/engine"
	"github.com/rota-dev/rota/executor/shell"
	"github.com/rota-dev/rota/jobs"
)

// retryExit is EX_TEMPFAIL: the command asks for another attempt.
const retryExit = 75

// shell runs a command and translates how it ended.
func (x *Executor) shell(ctx context.Context, e engine.Start) engine.Outcome {
	spec := &e.Job.Spec.Run
	env, secrets, err := x.environment(e)
	if err != nil {
		return engine.Outcome{Phase: jobs.Failed, Reason: err.Error()}
	}
	res := x.runner.Run(ctx, shell.Command{
		ID: e.Run.ID, Name: logName(e.Run.ID, e.Run.Attempt), Script: spec.Shell, Env: env, Secret: secrets, Grace: spec.Grace(),
	})
	out := engine.Outcome{Phase: jobs.Succeeded, Reason: res.Reason, Message: res.Message, Result: res.Data, Output: res.Output}
	if !res.OK {
		out.Phase = jobs.Failed
		out.Again = res.ExitCode == retryExit
	}
	if res.Started {
		out.ExitCode = &res.ExitCode
	}
	return out
}

// environment of a command: the executor's own without ROTA_ variables, the job's, the resolved secrets, the contract's.
// Values only ever travel in the environment; nothing is put into the script.
func (x *Executor) environment(e engine.Start) (env, secrets []string, err error) {
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ROTA_") {
			env = append(env, kv)
		}
	}
	spec := &e.Job.Spec.Run
	for k, v := range spec.Env {
		env = append(env, k+"="+v)
	}
	for k, s := range spec.Secrets {
		v, err := resolve(s)
		if err != nil {
			return nil, nil, fmt.Errorf("secret %s: %w", k, err)
		}
		env = append(env, k+"="+v)
		if len(v) >= 4 {
			secrets = append(secrets, v)
		}
	}
	for k, v := range merged(spec.Params, e.Run.Params) {
		env = append(env, "ROTA_PARAM_"+strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(k))+"="+v)
	}
	tick := time.UnixMilli(e.Run.Tick).UTC()
	return append(env,
		"ROTA_NAMESPACE="+e.Shard.Namespace, "ROTA_JOB="+e.Shard.Name,
		"ROTA_SHARD="+strconv.Itoa(e.Shard.Shard), "ROTA_SHARDS="+strconv.Itoa(e.Shards),
		"ROTA_SHARD_PARAM="+e.Job.Spec.Shards.Param(e.Shard.Shard),
		"ROTA_TICK="+tick.Format("2006-01-02T15:04:05.999Z07:00"), "ROTA_TICK_MS="+strconv.FormatInt(e.Run.Tick, 10),
		"ROTA_TRIGGER="+string(e.Run.Trigger), "ROTA_RUN_ID="+e.Run.ID, "ROTA_ATTEMPT="+strconv.Itoa(e.Run.Attempt),
		"ROTA_TOKEN="+strconv.FormatInt(e.Run.Token, 10), "ROTA_EXECUTOR="+x.cfg.ID,
	), secrets, nil
}

func resolve(s jobs.Secret) (string, error) {
	if s.Env != "" {
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set at this executor", s.Env)
		}
		return v, nil
	}
	b, err := os.ReadFile(s.File)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
