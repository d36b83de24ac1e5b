// Go's crypto/tls as a peer of tests/e2e/test_interop.py, in either role:
//
//	interop client ADDRESS CA VERSION CONNECTIONS [CERTIFICATE KEY]   a request on each connection ("c" for each)
//	interop server ADDRESS CERTIFICATE KEY MODE [CA]                  MODE: plain, retry, client_certificate
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println("FAILED", err)
		os.Exit(1)
	}
}

func roots(file string) *x509.CertPool {
	pem, err := os.ReadFile(file)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

func pair(certificate, key string) []tls.Certificate {
	loaded, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	return []tls.Certificate{loaded}
}

func client(arguments []string) {
	version := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[arguments[2]]
	config := &tls.Config{RootCAs: roots(arguments[1]), ServerName: "edge.test", MinVersion: version, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if len(arguments) > 4 {
		config.Certificates = pair(arguments[4], arguments[5])
	}
	for i := 0; i < len(arguments[3]); i++ {
		conn, err := tls.Dial("tcp", arguments[0], config)
		check(err)
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n"))
		check(err)
		said, err := io.ReadAll(bufio.NewReader(conn))
		check(err)
		fmt.Printf("%s\n", said)
		conn.Close()
	}
}

func server(arguments []string) {
	config := &tls.Config{Certificates: pair(arguments[1], arguments[2])}
	if arguments[3] == "retry" {
		config.CurvePreferences = []tls.CurveID{tls.CurveP384}
	}
	if arguments[3] == "client_certificate" {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, roots(arguments[4])
	}
	listener, err := tls.Listen("tcp", arguments[0], config)
	check(err)
	check(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "from Go")
	})))
}

func main() {
	// A program without a module has the settings of Go 1.20, which had no ML-KEM.
	os.Setenv("GODEBUG", "tlsmlkem=1")
	if os.Args[1] == "client" {
		client(os.Args[2:])
	} else {
		server(os.Args[2:])
	}
}
