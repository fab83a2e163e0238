package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// How long certificates hold. A clock that is behind by clockSkew still takes a
// fresh one.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	LeafLife      = 2 * 365 * 24 * time.Hour
	clockSkew     = time.Hour
)

// AuthorityDir is where the cluster with its state in data keeps its CA.
func AuthorityDir(data string) string { return filepath.Join(data, "pki", "ca") }

// IdentityDir is where it keeps the certificate of role and name.
func IdentityDir(data, role, name string) string {
	return filepath.Join(data, "pki", role+"-"+name)
}

// Authority is a cluster's own certificate authority: whoever holds its key
// can let processes into the cluster. It is needed to issue certificates only.
type Authority struct {
	cert *x509.Certificate
	der  []byte
	key  *ecdsa.PrivateKey
}

// CreateAuthority makes a CA (ECDSA P-256) and keeps it in dir as ca.pem and
// key.pem, both readable by their owner only. It does not replace one.
func CreateAuthority(dir string) (*Authority, error) {
	caPath, keyPath := filepath.Join(dir, caFile), filepath.Join(dir, keyFile)
	for _, p := range []string{caPath, keyPath} {
		if _, err := os.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			return nil, pkiError(p, "exists: this cluster has a certificate authority already")
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, pkiError(keyPath, "cannot be made: %v", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, pkiError(caPath, "cannot be made: %v", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "QuernFS cluster CA " + serial.Text(36)[:8]},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(AuthorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, pkiError(caPath, "cannot be made: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, pkiError(dir, "cannot be made: %v", err)
	}
	// The key first: a CA without its key would look whole.
	if err := writeKey(keyPath, key); err != nil {
		return nil, err
	}
	if err := writePEM(caPath, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return LoadAuthority(dir)
}

// LoadAuthority reads the CA that CreateAuthority made in dir.
func LoadAuthority(dir string) (*Authority, error) {
	caPath, keyPath := filepath.Join(dir, caFile), filepath.Join(dir, keyFile)
	caPEM, err := readPKI(caPath)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readPKI(keyPath)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(caPEM)
	if block == nil {
		return nil, pkiError(caPath, "is not PEM: restore it from a backup")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, pkiError(caPath, "is not a certificate (%v): restore it from a backup", err)
	}
	kb, _ := pem.Decode(keyPEM)
	if kb == nil {
		return nil, pkiError(keyPath, "is not PEM: restore it from a backup")
	}
	k, err := x509.ParsePKCS8PrivateKey(kb.Bytes)
	if err != nil {
		return nil, pkiError(keyPath, "is not a private key (%v): restore it from a backup", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, pkiError(keyPath, "is not the key of %s: restore both from one backup", caPath)
	}
	return &Authority{cert: cert, der: block.Bytes, key: key}, nil
}

// Issue certifies role and name and writes the identity to dir: cert.pem,
// key.pem, ca.pem. hosts are names and addresses of the process, for tools that
// look at them. What is in dir is replaced, so a certificate is renewed by
// issuing it again.
func (a *Authority) Issue(role, name string, hosts []string, dir string) error {
	certPath := filepath.Join(dir, certFile)
	if err := checkWho(role, name); err != nil {
		return pkiError(certPath, "cannot be issued: %v", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pkiError(certPath, "cannot be issued: %v", err)
	}
	serial, err := newSerial()
	if err != nil {
		return pkiError(certPath, "cannot be issued: %v", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: role + ":" + name},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(LeafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if h != "" {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return pkiError(certPath, "cannot be issued: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return pkiError(dir, "cannot be made: %v", err)
	}
	if err := writePEM(filepath.Join(dir, caFile), "CERTIFICATE", a.der); err != nil {
		return err
	}
	if err := writeKey(filepath.Join(dir, keyFile), key); err != nil {
		return err
	}
	return writePEM(certPath, "CERTIFICATE", der)
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	return n.Add(n, new(big.Int).Lsh(big.NewInt(1), 126)), nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pkiError(path, "cannot be written: %v", err)
	}
	return writePEM(path, "PRIVATE KEY", der)
}

// writePEM puts one PEM block into path, mode 0600, whole or not at all, also
// across a power cut.
func writePEM(path, kind string, der []byte) error {
	err := func() error {
		f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
		if err != nil {
			return err
		}
		defer os.Remove(f.Name()) // fails once it has been renamed
		defer f.Close()
		if err := pem.Encode(f, &pem.Block{Type: kind, Bytes: der}); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := os.Rename(f.Name(), path); err != nil {
			return err
		}
		d, err := os.Open(filepath.Dir(path))
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Sync()
	}()
	if err != nil {
		return pkiError(path, "cannot be written: %v", err)
	}
	return nil
}
