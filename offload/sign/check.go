package sign

import (
	"errors"
	"fmt"
)

// KeysEnv is the variable of the environment that tells workers of the file of
// trusted keys.
const KeysEnv = "QUERN_FPGA_KEYS"

// Check says who of those whom the file keys names has signed a file and its
// manifest. Its error is a sentence about name, the file's.
func Check(keys, name string, file, manifest, signatures []byte) (string, error) {
	if keys == "" {
		return "", &Error{name, errors.New("this host trusts no key (--fpga-keys)")}
	}
	trusted, err := ReadKeys(keys)
	if err != nil {
		return "", &Error{name, err}
	}
	who, err := trusted.Verify(file, manifest, signatures)
	if err != nil {
		return "", &Error{name, err}
	}
	return who, nil
}

// Error is a file that is not loaded since nobody vouches for it.
type Error struct {
	File string
	Err  error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s is not loaded: %v", e.File, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }
