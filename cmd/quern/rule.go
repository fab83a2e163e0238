package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"quernfs/offload"
	"quernfs/offload/jobfile"
)

func newRule() *cobra.Command {
	rule := &cobra.Command{
		Use:   "rule",
		Short: "Look at the standing rules of a mount, and try them",
		Long: `Look at the standing rules of a mount, and try them. A rule is a file NAME.yaml in
.compute/rules of the mount: cp and mv make and replace it, rm removes it. Rules of your
own are in .compute/users/UID/rules, and are called ~NAME here.`,
	}
	rule.AddCommand(newRuleLs(), newRuleShow(), newRuleRm(), newRuleTest())
	return rule
}

// ruleFlags are those of all commands about rules.
type ruleFlags struct {
	mount string
	json  bool
}

func (f *ruleFlags) add(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&f.mount, "mount", "", "where the filesystem is mounted (default: the mount that the working directory is in, or the only one)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func (f *ruleFlags) dir() (string, error) {
	mount, err := mountFor(f.mount)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(mount, ".compute", "rules")
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("%s is not a mount of QuernFS: %w", mount, err)
	}
	return dir, nil
}

// own is where the caller keeps rules of his own. It need not be there.
func (f *ruleFlags) own() (string, error) {
	dir, err := f.dir()
	return filepath.Join(filepath.Dir(dir), "users", strconv.Itoa(os.Geteuid()), "rules"), err
}

// file is where the rule of a name is; one of the caller's own is called ~NAME.
func (f *ruleFlags) file(name string) (string, error) {
	dir, err := f.dir()
	if name, own := strings.CutPrefix(name, offload.OwnMark); own && err == nil {
		if dir, err = f.own(); err == nil {
			return ruleIn(dir, name)
		}
	}
	if err != nil {
		return "", err
	}
	return ruleIn(dir, name)
}

func ruleIn(dir, name string) (string, error) {
	if name == "" || strings.Contains(name, "/") || strings.HasPrefix(name, ".") {
		return "", usagef("%q cannot be the name of a rule", name)
	}
	for _, suffix := range []string{".yaml", ".yml"} {
		p := filepath.Join(dir, strings.TrimSuffix(name, suffix)+suffix)
		if _, err := os.Stat(p); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
	}
	return "", fmt.Errorf("there is no rule %s", name)
}

// ruleInfo is what --json prints. Fields are only ever added.
type ruleInfo struct {
	Name  string   `json:"name"`
	About string   `json:"about"`
	UID   uint32   `json:"uid"`
	Match []string `json:"match"`
	When  []string `json:"when"`
	Runs  string   `json:"runs"`
	Then  string   `json:"then"`
	Error string   `json:"error,omitempty"` // why it does not count
	Text  string   `json:"text,omitempty"`
}

func ruleInfoOf(name string, text []byte, uid uint32) ruleInfo {
	info := ruleInfo{Name: name, UID: uid}
	r, err := jobfile.ParseRule(text)
	if err != nil {
		info.Error = err.Error()
		return info
	}
	info.About, info.Then = r.About, r.Then.String()
	for _, m := range r.Match {
		info.Match = append(info.Match, m.Pattern)
	}
	if r.Close {
		info.When = append(info.When, "close")
	}
	if r.Rename {
		info.When = append(info.When, "rename")
	}
	info.Runs = cmp.Or(r.Job.Map.Kernel, r.Job.Map.Wasm)
	if x := r.Job.Map.Exec; x != nil {
		info.Runs = "exec " + x.Argv[0]
	}
	return info
}

// owner is whom a file belongs to.
func owner(fi fs.FileInfo) uint32 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return 0
}

// rulesOf adds the rules of a directory, with a mark before their names.
func rulesOf(all []ruleInfo, dir, mark string) ([]ruleInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return all, err
	}
	for _, d := range entries {
		name, ok := offload.JobName(d.Name())
		fi, err := d.Info()
		if !ok || err != nil || !fi.Mode().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, d.Name()))
		if err != nil {
			return all, err
		}
		all = append(all, ruleInfoOf(mark+name, text, owner(fi)))
	}
	return all, nil
}

func newRuleLs() *cobra.Command {
	var f ruleFlags
	return f.add(&cobra.Command{
		Use: "ls", Short: "List the rules", Example: `  quern rule ls --mount ~/q`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			own, err := f.own()
			if err != nil {
				return err
			}
			all, err := rulesOf([]ruleInfo{}, dir, "")
			if err != nil {
				return err
			}
			if all, err = rulesOf(all, own, offload.OwnMark); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			t := newTable(cmd.OutOrStdout(), "NAME", "UID", "MATCH", "WHEN", "RUNS", "THEN", "ABOUT")
			for _, r := range all {
				if r.Error != "" {
					r.About = "does not count: " + r.Error
				}
				t.row(r.Name, r.UID, strings.Join(r.Match, " "), strings.Join(r.When, ","), r.Runs, r.Then, r.About)
			}
			return t.flush()
		},
	})
}

func newRuleShow() *cobra.Command {
	var f ruleFlags
	return f.add(&cobra.Command{
		Use: "show NAME", Short: "Print a rule", Example: `  quern rule show cameras --mount ~/q`, Args: exactArgs(1, "a rule's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.file(args[0])
			if err != nil {
				return err
			}
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if !f.json {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			fi, err := os.Stat(p)
			if err != nil {
				return err
			}
			name, _ := offload.JobName(filepath.Base(p))
			info := ruleInfoOf(name, text, owner(fi))
			info.Text = string(text)
			return printJSON(cmd.OutOrStdout(), info)
		},
	})
}

func newRuleRm() *cobra.Command {
	var f ruleFlags
	return f.add(&cobra.Command{
		Use: "rm NAME", Short: "Remove a rule", Example: `  quern rule rm cameras --mount ~/q`, Args: exactArgs(1, "a rule's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.file(args[0])
			if err == nil {
				err = os.Remove(p)
			}
			if err != nil || !f.json {
				return err
			}
			return printJSON(cmd.OutOrStdout(), map[string]string{"name": args[0]})
		},
	})
}

// matchInfo is a file that a rule is for.
type matchInfo struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

func newRuleTest() *cobra.Command {
	var f ruleFlags
	return f.add(&cobra.Command{
		Use: "test NAME|FILE.yaml [PATH…]", Short: "List the files that a rule would fire for",
		Long: `List the files of the mount that a rule, of the mount or in a file of yours, would
fire for if they were written now: those below PATH, a path of the mount, else all
that the rule may match. Nothing is run.`,
		Example: `  quern rule test cameras --mount ~/q
  quern rule test ./new.yaml /camera/2026 --mount ~/q`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := args[0]
			_, err := f.dir()
			if err == nil && !strings.Contains(p, "/") {
				p, err = f.file(p)
			}
			if err != nil {
				return err
			}
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			r, err := jobfile.ParseRule(text)
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			found := []matchInfo{}
			for _, below := range searched(r, args[1:]) {
				if found, err = matching(found, f.mount, below, r); err != nil {
					return err
				}
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), found)
			}
			for _, m := range found {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\n", m.Path, size(uint64(m.Size)))
			}
			return nil
		},
	})
}

// searched are the trees to look through: those given, else where the patterns of
// the rule begin; none below another.
func searched(r *jobfile.Rule, given []string) []string {
	all := slices.Clone(given)
	if len(all) == 0 {
		for _, m := range r.Match {
			all = append(all, jobfile.Base(m.Pattern))
		}
	}
	for i, p := range all {
		all[i] = path.Clean("/" + p)
	}
	slices.Sort(all)
	var out []string
	for _, p := range all {
		if n := len(out); n > 0 && (p == out[n-1] || strings.HasPrefix(p, strings.TrimSuffix(out[n-1], "/")+"/")) {
			continue
		}
		out = append(out, p)
	}
	return out
}

// matching adds the files below a path of the mount that a rule is for.
func matching(found []matchInfo, mount, below string, r *jobfile.Rule) ([]matchInfo, error) {
	err := filepath.WalkDir(filepath.Join(mount, below), func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(mount, p)
		if err != nil {
			return err
		}
		name := path.Clean("/" + filepath.ToSlash(rel))
		if d.IsDir() {
			if name == "/.compute" {
				return filepath.SkipDir
			}
			return nil
		}
		fi, err := d.Info()
		if err != nil || !fi.Mode().IsRegular() || strings.HasPrefix(d.Name(), ".") || !r.Applies(name, fi.Size()) {
			return nil
		}
		found = append(found, matchInfo{name, fi.Size()})
		return nil
	})
	return found, err
}
