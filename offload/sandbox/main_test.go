package sandbox

import (
	"os"
	"testing"
)

// The test binary is the worker, too.
func TestMain(m *testing.M) {
	if os.Getenv("QUERN_TEST_ROLE") == "exec" {
		os.Exit(Main(nil))
	}
	os.Exit(m.Run())
}
