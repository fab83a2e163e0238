package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newDocs() *cobra.Command {
	docs := &cobra.Command{Use: "docs", Short: "Write the manual"}
	docs.AddCommand(&cobra.Command{
		Use:     "man DIR",
		Short:   "Write a man page of each command into DIR",
		Example: `  quern docs man /usr/local/share/man/man1`,
		Args:    exactArgs(1, "a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeManPages(cmd.Root(), args[0])
		},
	})
	return docs
}

// writeManPages writes one page for cmd and each of its visible subcommands.
func writeManPages(cmd *cobra.Command, dir string) error {
	if cmd.Hidden {
		return nil
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	f, err := os.Create(filepath.Join(dir, name+".1"))
	if err != nil {
		return err
	}
	manPage(f, cmd, name)
	if err := f.Close(); err != nil {
		return err
	}
	for _, c := range cmd.Commands() {
		if err := writeManPages(c, dir); err != nil {
			return err
		}
	}
	return nil
}

// manPage writes the page of one command in the macros of man(7).
func manPage(w io.Writer, cmd *cobra.Command, name string) {
	escape := strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'").Replace
	fmt.Fprintf(w, ".TH %s 1 \"\" \"QuernFS\" \"QuernFS manual\"\n", strings.ToUpper(escape(name)))
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n", escape(name), escape(cmd.Short))
	fmt.Fprintf(w, ".SH SYNOPSIS\n.B %s\n", escape(cmd.UseLine()))
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(w, ".SH DESCRIPTION\n%s\n", escape(text))
	cmd.InitDefaultHelpFlag()
	if cmd.LocalFlags().HasAvailableFlags() {
		fmt.Fprintln(w, ".SH OPTIONS")
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			value, usage := pflag.UnquoteUsage(f)
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
				usage += " (default " + f.DefValue + ")"
			}
			fmt.Fprintf(w, ".TP\n\\fB\\-\\-%s\\fR %s\n%s\n", escape(f.Name), escape(value), escape(usage))
		})
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, ".SH EXAMPLES\n.nf\n%s\n.fi\n", escape(cmd.Example))
	}
	var also []string
	if cmd.HasParent() {
		also = append(also, strings.ReplaceAll(cmd.Parent().CommandPath(), " ", "-"))
	}
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			also = append(also, strings.ReplaceAll(c.CommandPath(), " ", "-"))
		}
	}
	if len(also) > 0 {
		fmt.Fprintf(w, ".SH SEE ALSO\n%s(1)\n", escape(strings.Join(also, "(1), ")))
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "quern", version())
		},
	}
}

// version is the commit that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := map[string]string{}
	for _, s := range info.Settings {
		v[s.Key] = s.Value
	}
	if v["vcs.revision"] == "" {
		return "development, " + info.GoVersion
	}
	text := v["vcs.revision"][:min(12, len(v["vcs.revision"]))]
	if v["vcs.modified"] == "true" {
		text += " with changes"
	}
	return text + ", " + v["vcs.time"] + ", " + info.GoVersion
}
