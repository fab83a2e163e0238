package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quernfs/internal/wire"
)

func TestAuthority(t *testing.T) {
	data := t.TempDir()
	if _, err := CreateAuthority(AuthorityDir(data)); err != nil {
		t.Fatal(err)
	}
	_, err := CreateAuthority(AuthorityDir(data))
	wantText(t, err, "has a certificate authority already")
	ca, err := LoadAuthority(AuthorityDir(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range knownRoles {
		dir := IdentityDir(data, role, "x:1")
		for range 2 { // the second time renews it
			if err := ca.Issue(role, "x:1", []string{"host", "10.0.0.1", "::1"}, dir); err != nil {
				t.Fatal(err)
			}
		}
		id, err := LoadIdentity(dir)
		if err != nil {
			t.Fatal(err)
		}
		if id.Role != role || id.Name != "x:1" {
			t.Errorf("issued %s, loaded %s %s", role, id.Role, id.Name)
		}
		if c := id.cert.Leaf; c.VerifyHostname("host") != nil || c.VerifyHostname("10.0.0.1") != nil {
			t.Errorf("hosts are %v %v", c.DNSNames, c.IPAddresses)
		}
	}
	err = filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, ca.Issue("root", "x", nil, t.TempDir()), `role "root" is none of`)
	wantText(t, ca.Issue("meta", "", nil, t.TempDir()), "must have 1 to 64 bytes")
}

// What is wrong with a file is said with its name and what to do.
func TestDamagedFiles(t *testing.T) {
	p := pki()
	for name, test := range map[string]struct {
		file string
		harm func(path string) error
		want string
	}{
		"missing certificate": {certFile, os.Remove, "is missing: issue the certificate"},
		"missing key":         {keyFile, os.Remove, "is missing"},
		"missing CA":          {caFile, os.Remove, "is missing"},
		"empty certificate":   {certFile, func(f string) error { return os.Truncate(f, 0) }, "is not a certificate that fits"},
		"empty key":           {keyFile, func(f string) error { return os.Truncate(f, 0) }, "issue it anew"},
		"empty CA":            {caFile, func(f string) error { return os.Truncate(f, 0) }, "holds no certificate"},
		"another CA": {caFile, func(f string) error {
			return writePEM(f, "CERTIFICATE", p.foreign.der)
		}, "does not hold against"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := p.ca.Issue("meta", "one", nil, dir); err != nil {
				t.Fatal(err)
			}
			if err := test.harm(filepath.Join(dir, test.file)); err != nil {
				t.Fatal(err)
			}
			_, err := LoadIdentity(dir)
			wantText(t, err, test.want)
			wantText(t, err, test.file)
			wantText(t, err, dir)
		})
	}
	for _, file := range []string{caFile, keyFile} {
		dir := t.TempDir()
		if _, err := CreateAuthority(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, file), 10); err != nil {
			t.Fatal(err)
		}
		_, err := LoadAuthority(dir)
		wantText(t, err, filepath.Join(dir, file)+": is not PEM: restore it")
	}
}

func wantText(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want something with %q", err, text)
	}
}

// Who may connect over QUIC, and what is said to who may not.
func TestCertificates(t *testing.T) {
	p := pki()
	expired := expiredIdentity(t, p.ca)
	for name, test := range map[string]struct {
		server, client *Identity
		want           string
	}{
		"both ours":           {p.ids["meta"], p.ids["client"], ""},
		"a chunk server":      {p.ids["chunkd"], p.ids["meta"], ""},
		"a foreign server":    {p.issue(p.foreign, "meta", "one"), p.ids["client"], "the server's certificate was not issued by this cluster's CA"},
		"a client as server":  {p.ids["client"], p.ids["client"], `the certificate of role "client" of "one" does not make it a server`},
		"an agent as server":  {p.ids["agent"], p.ids["meta"], `the certificate of role "agent"`},
		"an expired server":   {expired, p.ids["client"], "the server's certificate holds from"},
		"a foreign client":    {p.ids["meta"], mixed(p.issue(p.foreign, "client", "one"), p.ids["client"]), "the server refused the certificate in"},
		"an expired client":   {p.ids["meta"], expired, "has expired: issue it anew"},
		"a client without CA": {p.ids["meta"], p.issue(p.foreign, "client", "one"), "was not issued by this cluster's CA"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewServer(ServerConfig{Mux: echoMux(), Identity: test.server, Addr: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close(testContext(t))
			pool := NewPool(PoolConfig{Identity: test.client, Force: QUIC})
			defer pool.Close()
			c, err := pool.Get(testContext(t), s.Endpoint())
			if test.want != "" {
				wantText(t, err, test.want)
				wantCode(t, err, wire.Forbidden)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			query(t, c, 1)
		})
	}
}

// mixed is who, trusting the CA of trusts.
func mixed(who, trusts *Identity) *Identity {
	id := *who
	id.roots = trusts.roots
	return &id
}

// expiredIdentity is a meta server whose certificate has run out.
func expiredIdentity(t *testing.T, ca *Authority) *Identity {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: must(newSerial()),
		Subject:      pkix.Name{CommonName: "meta:old"},
		NotBefore:    time.Now().Add(-48 * time.Hour),
		NotAfter:     time.Now().Add(-24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key))
	id := *pki().ids["meta"]
	id.cert.Certificate = [][]byte{der}
	id.cert.PrivateKey = key
	id.cert.Leaf = must(x509.ParseCertificate(der))
	id.origin = t.TempDir()
	return &id
}
