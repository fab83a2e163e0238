package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"
)

// envName is the environment variable that stands for a flag.
func envName(flag string) string {
	return "QUERN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fillFlags gives each flag that the command line did not set its value from
// the environment, or else from the configuration file.
func fillFlags(flags *pflag.FlagSet, env func(string) (string, bool)) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || failed != nil || f.Name == "help" {
			return
		}
		if v, ok := env(envName(f.Name)); ok {
			if err := flags.Set(f.Name, v); err != nil {
				failed = usagef("%s: %w", envName(f.Name), err)
			}
		}
	})
	if failed != nil {
		return failed
	}
	path, values, err := readConfig(flags)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		f := flags.Lookup(name)
		// One file serves all commands, so a name that only another command
		// knows is no mistake here.
		if f == nil || f.Changed {
			continue
		}
		list, ok := values[name].([]any)
		if !ok {
			list = []any{values[name]}
		}
		for _, v := range list {
			if err := flags.Set(name, fmt.Sprint(v)); err != nil {
				return usagef("%s: %s: %w", path, name, err)
			}
		}
	}
	return nil
}

// readConfig reads the file that --config names, or DIR/quern.yaml if there is
// one.
func readConfig(flags *pflag.FlagSet) (string, map[string]any, error) {
	path, _ := flags.GetString("config")
	asked := path != ""
	if !asked {
		dir, err := flags.GetString("data")
		if err != nil || dir == "" {
			return "", nil, nil
		}
		path = filepath.Join(dir, "quern.yaml")
	}
	raw, err := os.ReadFile(path)
	if !asked && errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, usagef("configuration: %w", err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(raw, &values); err != nil {
		return "", nil, usagef("configuration %s: a map of flag names to values is needed: %w", path, err)
	}
	return path, values, nil
}
