package wire

// spoken has what an error says instead of the name of a call, a command or a query:
// these are for programmers, and a sentence about a failure is for a user. It has a
// row for each; one whose name is a plain word has no words. What an error's code and
// fields hold stays the name.
var spoken = map[string]struct {
	words string
	at    string // stands before the object; "": a space
}{
	// Calls. The object is the server that was called.
	"describe":   {"ask who serves", " at "},
	"mutate":     {"change metadata", " at "},
	"query":      {"ask for metadata", " at "},
	"session":    {},
	"lock":       {},
	"bad-shard":  {"report a bad shard", " to "},
	"heartbeat":  {"report that the server lives", " to "},
	"poll":       {"ask for tasks", " at "},
	"join":       {},
	"put-shard":  {"store a shard", " on "},
	"get-shard":  {"read a shard", " from "},
	"open-shard": {"open a shard", " on "},
	"segment-fd": {"open a segment", " of "},
	"raft":       {"connect metadata servers", " with "},

	// What a leader does for its scheduler.
	"propose": {"change metadata", ""},

	// Commands.
	"create":          {},
	"unlink":          {"remove", ""},
	"rename":          {},
	"link":            {},
	"set attr":        {"change attributes", ""},
	"set xattr":       {"change an extended attribute", ""},
	"commit":          {"store", ""},
	"fallocate":       {"reserve space", ""},
	"clone":           {},
	"release orphans": {"remove what is closed", ""},
	"batch":           {"make several changes", ""},
	"open session":    {},
	"end session":     {},
	"lease horizon":   {"extend leases", ""},
	"reserve blocks":  {"reserve numbers of blocks", ""},
	"put node":        {"register a server", ""},
	"move shard":      {"move a shard", ""},
	"lose shard":      {"give up a shard", ""},
	"purge blocks":    {"remove unused blocks", ""},
	"bootstrap":       {"make the filesystem", ""},
	"reserve inodes":  {"reserve numbers of files", ""},
	"expire tickets":  {"end permissions to store", ""},
	"submit job":      {"submit the job", ""},
	"update task":     {"change a task", ""},
	"update job":      {"change the job", ""},
	"remove job":      {"remove the job", ""},
	"put refusal":     {"note a refusal", ""},
	"clear refusal":   {"forget a refusal", ""},
	"stage tasks":     {"store tasks", ""},
	"drop staged":     {"drop tasks", ""},

	// Queries.
	"lookup":        {"look up", ""},
	"get inode":     {"look at a file", ""},
	"read dir":      {"list a directory", ""},
	"get xattr":     {"read an extended attribute", ""},
	"list xattr":    {"list extended attributes", ""},
	"get extents":   {"look where data lies", ""},
	"acquire":       {"take a lease", ""},
	"stat fs":       {"look how much space there is", ""},
	"get blocks":    {"look where blocks lie", ""},
	"allocate":      {"find room", ""},
	"list jobs":     {},
	"get job":       {"look at a job", ""},
	"list nodes":    {"list servers", ""},
	"status":        {},
	"access":        {"look at permissions", ""},
	"explain job":   {"explain a job", ""},
	"get memo":      {"look for an earlier result", ""},
	"list refusals": {},
	"list accounts": {},
	"list usage":    {},
}

// about is the beginning of an error's text: what was done, and to what.
func about(op, object string) string {
	row := spoken[op]
	if row.words != "" {
		op = row.words
	}
	switch {
	case op == "" || object == "":
		return op + object
	case row.at != "":
		return op + row.at + object
	}
	return op + " " + object
}
