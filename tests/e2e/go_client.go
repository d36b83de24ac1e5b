// A client on Go's net/http: go_client URL CA. Each fact it verifies is a line "ok NAME"; the first fault ends it.
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"time"
)

func fail(format string, arguments ...any) {
	fmt.Printf("FAILED "+format+"\n", arguments...)
	os.Exit(1)
}

func check(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

var (
	address  = os.Args[1]
	protocol = os.Args[3]
	pool     = x509.NewCertPool()
)

func client(configure func(*tls.Config)) *http.Client {
	settings := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, ServerName: "edge.test"}
	if configure != nil {
		configure(settings)
	}
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: settings, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: protocol == "HTTP/2.0",
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext},
		Timeout: 20 * time.Second,
	}
}

func read(response *http.Response, what string) []byte {
	body, err := io.ReadAll(response.Body)
	check(err, what)
	response.Body.Close()
	return body
}

func main() {
	ca, err := os.ReadFile(os.Args[2])
	check(err, "CA")
	pool.AppendCertsFromPEM(ca)

	shared := client(nil)
	response, err := shared.Get(address + "/app/echo?go=1")
	check(err, "GET")
	if response.StatusCode != 200 || response.Proto != protocol || response.TLS.Version != tls.VersionTLS13 {
		fail("GET: %v %v %x", response.Status, response.Proto, response.TLS.Version)
	}
	if !strings.Contains(string(read(response, "GET")), `"query": "go=1"`) {
		fail("GET: not its echo")
	}
	fmt.Println("ok get")

	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := sha256.Sum256(content)
	want := fmt.Sprintf("%s %d", hex.EncodeToString(sum[:]), len(content))
	response, err = shared.Post(address+"/app/sha256", "application/octet-stream", bytes.NewReader(content))
	check(err, "POST")
	if got := string(read(response, "POST")); got != want {
		fail("POST: %s", got)
	}
	fmt.Println("ok post")

	// A reader of unknown length is sent in chunks.
	response, err = shared.Post(address+"/app/sha256", "application/octet-stream", io.MultiReader(bytes.NewReader(content)))
	check(err, "chunked POST")
	if got := string(read(response, "chunked POST")); got != want {
		fail("chunked POST: %s", got)
	}
	fmt.Println("ok chunked")

	reused := 0
	for i := 0; i < 20; i++ {
		request, _ := http.NewRequest("GET", address+"/1k", nil)
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			if info.Reused {
				reused++
			}
		}}
		response, err = shared.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
		check(err, "keep-alive")
		if len(read(response, "keep-alive")) != 1024 {
			fail("keep-alive: not 1024 bytes")
		}
	}
	if reused != 20 {
		fail("keep-alive: %d of 20 requests on the old connection", reused)
	}
	fmt.Println("ok keepalive")

	response, err = shared.Get(address + "/chunked/1k")
	check(err, "trailer")
	read(response, "trailer")
	if response.Trailer.Get("X-Trailer") != "at the end" {
		fail("trailer: %v", response.Trailer)
	}
	fmt.Println("ok trailer")

	response, err = shared.Head(address + "/10m")
	check(err, "HEAD")
	if response.ContentLength != 10<<20 || len(read(response, "HEAD")) != 0 {
		fail("HEAD: %d", response.ContentLength)
	}
	fmt.Println("ok head")

	// Go forbids nothing of TLS 1.3's suites to be chosen, but groups.
	for name, group := range map[string]tls.CurveID{"X25519": tls.X25519, "P256": tls.CurveP256, "P384": tls.CurveP384} {
		one := client(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{group} })
		response, err = one.Get(address + "/1k")
		check(err, name)
		read(response, name)
	}
	fmt.Println("ok groups")

	retried := client(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521, tls.CurveP384} })
	response, err = retried.Get(address + "/1k")
	check(err, "hello retry request")
	read(response, "hello retry request")
	fmt.Println("ok hrr")

	for _, name := range []string{"p384.edge.test", "rsa.edge.test", "ed25519.edge.test", "go.wild.edge.test"} {
		one := client(func(c *tls.Config) { c.ServerName = name })
		response, err = one.Get(address + "/1k")
		check(err, name)
		read(response, name)
		if err := response.TLS.PeerCertificates[0].VerifyHostname(name); err != nil {
			fail("%s: %v", name, err)
		}
	}
	fmt.Println("ok names")

	for _, suite := range []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	} {
		old := client(func(c *tls.Config) {
			c.MinVersion, c.MaxVersion, c.CipherSuites = tls.VersionTLS12, tls.VersionTLS12, []uint16{suite}
		})
		response, err = old.Get(address + "/1k")
		check(err, "TLS 1.2")
		read(response, "TLS 1.2")
		if response.TLS.Version != tls.VersionTLS12 || response.TLS.CipherSuite != suite {
			fail("TLS 1.2: %x %x", response.TLS.Version, response.TLS.CipherSuite)
		}
	}
	older := client(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 })
	if _, err = older.Get(address + "/1k"); err == nil || !strings.Contains(err.Error(), "protocol version") {
		fail("TLS 1.1: %v", err)
	}
	fmt.Println("ok tls12")

	var group sync.WaitGroup
	faults := make(chan string, 64)
	for i := 0; i < 32; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			mine := shared
			if i%2 == 1 {
				mine = client(nil)
			}
			for j := 0; j < 15; j++ {
				body := strings.Repeat(fmt.Sprintf("%d-%d,", i, j), 500)
				response, err := mine.Post(address+"/app/echo", "text/plain", strings.NewReader(body))
				if err != nil {
					faults <- err.Error()
					return
				}
				told, err := io.ReadAll(response.Body)
				response.Body.Close()
				sum := sha256.Sum256([]byte(body))
				if err != nil || !strings.Contains(string(told), hex.EncodeToString(sum[:])) {
					faults <- fmt.Sprintf("%v: %.200s", err, told)
					return
				}
			}
		}(i)
	}
	group.Wait()
	if len(faults) > 0 {
		fail("concurrency: %s", <-faults)
	}
	fmt.Println("ok concurrency")
}
