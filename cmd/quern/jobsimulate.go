package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"quernfs/offload/place/sim"
)

func newJobSimulate() *cobra.Command {
	var name string
	var policies []string
	var seed int64
	var asJSON bool
	cmd := &cobra.Command{
		Use: "simulate [FILE]", Short: "Run a workload on a simulated cluster, and compare policies of placement",
		Long: `Run a workload on a simulated cluster in simulated time, under our placement and
under others, and compare when tasks end, how long they wait, and how many bytes
move. No cluster is needed.

The workload is a YAML file, or one of those that come with quern (--workload).
quern job simulate --print prints one to begin with.`,
		Example: `  quern job simulate
  quern job simulate --workload day --policy ours
  quern job simulate cluster.yaml --seed 7 --json`,
		Args: cobra.MaximumNArgs(1),
	}
	printIt := false
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 && cmd.Flags().Changed("workload") {
			return usagef("either FILE or --workload is needed, not both")
		}
		if printIt {
			text, err := sim.Text(name)
			if err != nil {
				return usageError{err}
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		}
		w, err := workload(args, name)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("seed") {
			w.Seed = seed
		}
		var results []sim.Result
		for _, p := range policies {
			policy, err := sim.PolicyNamed(p)
			if err != nil {
				return usageError{err}
			}
			results = append(results, sim.Run(w, policy))
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), results)
		}
		return printResults(cmd.OutOrStdout(), w, results)
	}
	var names []string
	for _, p := range sim.Policies {
		names = append(names, p.Name)
	}
	f := cmd.Flags()
	f.StringVar(&name, "workload", "mixed", "one that comes with quern: "+strings.Join(sim.Builtins(), ", "))
	f.StringSliceVar(&policies, "policy", names, "policies to compare: "+strings.Join(names, ", "))
	f.Int64Var(&seed, "seed", 0, "of chance, in place of the workload's own")
	f.BoolVar(&printIt, "print", false, "print the workload and do nothing")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func workload(args []string, name string) (*sim.Workload, error) {
	if len(args) == 0 {
		w, err := sim.Builtin(name)
		if err != nil {
			return nil, usageError{err}
		}
		return w, nil
	}
	raw, err := os.ReadFile(args[0])
	if err != nil {
		return nil, err
	}
	w, err := sim.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	return w, nil
}

func printResults(out io.Writer, w *sim.Workload, results []sim.Result) error {
	if w.About != "" {
		fmt.Fprintf(out, "%s (seed %d)\n\n", w.About, w.Seed)
	}
	t := newTable(out, "POLICY", "TASKS", "LEFT", "LOST", "MAKESPAN", "SUM", "MOVED", "BUSY", "PREDICTION ERROR BY QUARTERS")
	for _, r := range results {
		var errs []string
		for _, e := range r.Errors {
			errs = append(errs, fmt.Sprintf("%.1f %%", 100*e))
		}
		t.row(r.Policy, r.Tasks, r.Left, r.Lost, fmt.Sprintf("%.0f s", r.Makespan), fmt.Sprintf("%.0f s", r.Sum), size(r.Moved),
			fmt.Sprintf("%.0f %%", 100*r.Busy), strings.Join(errs, ", "))
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	t = newTable(out, "POLICY", "USER", "TASKS", "MEAN WAIT", "MEDIAN", "LONGEST")
	for _, r := range results {
		for _, u := range r.Waiting {
			t.row(r.Policy, u.User, u.Tasks, fmt.Sprintf("%.1f s", u.Mean), fmt.Sprintf("%.1f s", u.Median), fmt.Sprintf("%.1f s", u.Max))
		}
	}
	return t.flush()
}
