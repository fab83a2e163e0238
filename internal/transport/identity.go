package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"quernfs/internal/wire"
)

// The files of an identity, in a directory of its own.
const (
	certFile = "cert.pem"
	keyFile  = "key.pem"
	caFile   = "ca.pem"
)

// roles that a certificate may carry.
var knownRoles = []string{"meta", "chunkd", "edge", "agent", "client"}

// Identity is what a process proves itself with over QUIC: its certificate
// and key, and the cluster's CA that its peers must have been certified by.
type Identity struct {
	Role string
	Name string

	cert   tls.Certificate
	roots  *x509.CertPool
	origin string // directory, for messages
}

// LoadIdentity reads the identity in dir: cert.pem, key.pem and ca.pem, as
// Authority.Issue writes them. An error names the file and what to do.
func LoadIdentity(dir string) (*Identity, error) {
	certPath, keyPath, caPath := filepath.Join(dir, certFile), filepath.Join(dir, keyFile), filepath.Join(dir, caFile)
	certPEM, err := readPKI(certPath)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readPKI(keyPath)
	if err != nil {
		return nil, err
	}
	caPEM, err := readPKI(caPath)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, pkiError(certPath, "is not a certificate that fits %s (%v): issue it anew", keyPath, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return nil, pkiError(caPath, "holds no certificate: copy the cluster's pki/ca/ca.pem there")
	}
	role, name, err := whoIs(cert.Leaf)
	if err != nil {
		return nil, pkiError(certPath, "%v: issue it anew", err)
	}
	id := &Identity{Role: role, Name: name, cert: cert, roots: roots, origin: dir}
	if err := id.verify(cert.Leaf, nil, x509.ExtKeyUsageAny); err != nil {
		return nil, pkiError(certPath, "does not hold against %s (%v): issue it anew", caPath, err)
	}
	return id, nil
}

// whoIs reads role and name from a certificate's CommonName, "role:name".
func whoIs(cert *x509.Certificate) (role, name string, err error) {
	role, name, ok := strings.Cut(cert.Subject.CommonName, ":")
	if !ok {
		return "", "", fmt.Errorf("the certificate's common name %q is not of the form role:name", cert.Subject.CommonName)
	}
	if err := checkWho(role, name); err != nil {
		return "", "", err
	}
	return role, name, nil
}

func checkWho(role, name string) error {
	switch {
	case !hasRole(knownRoles, role):
		return fmt.Errorf("role %q is none of %s", role, strings.Join(knownRoles, ", "))
	case name == "" || len(name) > 64 || strings.ContainsAny(name, "/\x00\n"):
		return fmt.Errorf("name %q must have 1 to 64 bytes and no slash or newline", name)
	}
	return nil
}

func hasRole(roles []string, role string) bool { return slices.Contains(roles, role) }

// verify checks that cert was issued by the cluster's CA for usage and is
// valid now. Host names are not looked at: see doc.go.
func (id *Identity) verify(cert *x509.Certificate, intermediates []*x509.Certificate, usage x509.ExtKeyUsage) error {
	pool := x509.NewCertPool()
	for _, c := range intermediates {
		pool.AddCert(c)
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:         id.roots,
		Intermediates: pool,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	return err
}

func readPKI(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, pkiError(path, "is missing: issue the certificate with the cluster's CA (quern init does) and copy it there")
	case errors.Is(err, fs.ErrPermission):
		return nil, pkiError(path, "cannot be read by this user: run as its owner")
	case err != nil:
		return nil, pkiError(path, "cannot be read: %v", err)
	}
	return b, nil
}

func pkiError(path, format string, args ...any) error {
	return wire.Errorf(wire.Invalid, "certificate", path, format, args...)
}
