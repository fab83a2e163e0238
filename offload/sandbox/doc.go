// Package sandbox runs a program of the host for one task of a job, so that
// whatever it does stays inside: under bubblewrap, in namespaces of its own,
// under control groups where the system lets us, as the job's owner.
//
//	agent                            sandbox
//	─────                            ───────
//	Host.Run ──starts──▶ bwrap (monitor) ──clone──▶ bwrap, pid 1 in its namespace
//	   ◀──── info: its process id ────                │ waits
//	   writes the user namespace's maps (as root)     │
//	   puts it into its control groups                │
//	   ──── go, and the spec ────────────────────────▶│
//	                                                  └─ quern worker exec (Main):
//	                                                     limits, then the job's owner,
//	                                                     then execve of the program
//	   ◀──── "+" , or why it could not be started ────
//	   stdin ──▶ the program ──▶ stdout, stderr
//
// # What a program sees
//
//	/usr /bin /lib …  of the host, read-only; of /etc a few files
//	/in/PATH          the declared paths of the mount, read-only
//	/out              its outputs: empty at first, limited in size
//	/scratch          empty, writable, limited in size; its working directory, its
//	                  HOME, and /tmp
//	/dev /proc        a small /dev, the processes of the sandbox only
//
// Everything else is read-only or not there. There is no network but with
// Run.Network. The program has no capability and cannot get any, and cannot make
// namespaces (a seccomp filter, see seccomp.go).
//
// # Which program
//
// Where the administrator lists programs (Run.Allow), the file is found on the host,
// in its own directories, links resolved, before there is a sandbox, and that file is
// executed (program.go): the job's PATH is not asked, what it brings along is below /in
// only, so that nothing of the host is shadowed, and variables that tell a program
// to load or run something else are refused (Widens). TestHostileProgram tries.
//
// # What the job brings along
//
// bwrap binds files by their names, and follows links. Somebody may put a link in the
// way between the moment when the agent looks and the moment when bwrap binds, and so
// show a part of the host to the program. So each Bind says which file it is, and our
// first process in the sandbox compares that with what lies there, before the program
// begins (MovedError).
//
// # Limits
//
// Memory, processes and processor share are limited by control groups, v2 or v1,
// whichever has the controller; in their absence memory (of each process) and the
// number of processes by rlimits, and the processor share not at all. Limits
// tells which. The size of /scratch and of /out is looked at while the program
// runs, files that are deleted but open included, and no single file can become
// larger (RLIMIT_FSIZE); a run ends, too, before the disk below is full.
//
// # The end
//
// When the context of a run ends every process of the sandbox gets SIGTERM, and
// after Run.Grace the first process of its namespace SIGKILL, which ends all of
// them. If the agent dies they die with it (PDEATHSIG). What it leaves behind,
// directories and empty control groups, is removed by the next Open.
package sandbox
