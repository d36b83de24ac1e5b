// Receives connections that edge hands over (docs/handoff.md), and serves HTTP on them through Go's crypto/tls.
//
//	go run receiver.go SOCKET CERTIFICATE KEY
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"
)

const (
	headerSize = 52
	headerMax  = 8192
	dataMax    = 96 * 1024
	proxied    = 0x01
)

// handoff is what is said of a connection; data comes before what its descriptor will give.
type handoff struct {
	client, local net.TCPAddr
	proxied       bool
	name          string
	data          []byte
}

func decode(m []byte) (*handoff, error) {
	if len(m) < headerSize || !bytes.Equal(m[:5], []byte("EDGH\x01")) {
		return nil, errors.New("no message of version 1")
	}
	header, data := int(binary.BigEndian.Uint16(m[6:])), int(binary.BigEndian.Uint32(m[8:]))
	if m[5]&0xF0 != 0 || header < headerSize || header > headerMax || data > dataMax || header+data != len(m) {
		return nil, errors.New("an unknown flag, or lengths that do not add up")
	}
	n := map[byte]int{4: 4, 6: 16}[m[12]]
	if n == 0 {
		return nil, errors.New("no address")
	}
	h := &handoff{proxied: m[5]&proxied != 0, data: m[header:]}
	h.client = net.TCPAddr{IP: m[20 : 20+n], Port: int(binary.BigEndian.Uint16(m[14:]))}
	h.local = net.TCPAddr{IP: m[36 : 36+n], Port: int(binary.BigEndian.Uint16(m[16:]))}
	for fields := m[headerSize:header]; len(fields) > 0; {
		if len(fields) < 4 {
			return nil, errors.New("a field is cut short")
		}
		kind, size := binary.BigEndian.Uint16(fields), int(binary.BigEndian.Uint16(fields[2:]))
		if len(fields) < 4+size {
			return nil, errors.New("a field is cut short")
		}
		if kind == 1 {
			h.name = string(fields[4 : 4+size])
		} else if kind&0x8000 != 0 {
			return nil, errors.New("an unknown field")
		}
		fields = fields[4+size:]
	}
	return h, nil
}

// conn gives what was read before it was handed over, then what comes.
type conn struct {
	*net.TCPConn
	handoff *handoff
	before  io.Reader
}

func (c *conn) Read(p []byte) (int, error) { return c.before.Read(p) }
func (c *conn) RemoteAddr() net.Addr       { return &c.handoff.client }

// receive reads one message and its descriptor; no descriptor stays open if it fails.
func receive(source *net.UnixConn) (*conn, error) {
	message, control := make([]byte, headerMax+dataMax), make([]byte, syscall.CmsgSpace(4*8))
	n, cn, flags, _, err := source.ReadMsgUnix(message, control)
	if err != nil {
		return nil, err
	}
	if n == 0 && cn == 0 {
		return nil, io.EOF
	}
	var fds []int
	if parts, err := syscall.ParseSocketControlMessage(control[:cn]); err == nil {
		for i := range parts {
			if found, err := syscall.ParseUnixRights(&parts[i]); err == nil {
				fds = append(fds, found...)
			}
		}
	}
	if len(fds) != 1 || flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		for _, fd := range fds {
			syscall.Close(fd)
		}
		return nil, errors.New("cut off, or not exactly one descriptor")
	}
	file := os.NewFile(uintptr(fds[0]), "handed over")
	defer file.Close() // net.FileConn has a copy of its own
	h, err := decode(message[:n])
	if err != nil {
		return nil, err
	}
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, errors.New("no TCP connection")
	}
	if peer := tcp.RemoteAddr().(*net.TCPAddr); !h.proxied && (!peer.IP.Equal(h.client.IP) || peer.Port != h.client.Port) {
		tcp.Close()
		return nil, errors.New("not the address of the connection")
	}
	return &conn{tcp, h, io.MultiReader(bytes.NewReader(h.data), tcp)}, nil
}

// listener makes of many senders what net/http calls a listener.
type listener struct {
	*net.UnixListener
	conns chan net.Conn
}

func (l *listener) Accept() (net.Conn, error) { return <-l.conns, nil }

func (l *listener) welcome() {
	for {
		source, err := l.AcceptUnix()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer source.Close()
			for {
				c, err := receive(source)
				if err == nil {
					l.conns <- c
				} else if err == io.EOF || errors.Is(err, net.ErrClosed) || errors.As(err, new(*net.OpError)) {
					return
				} else {
					log.Print("refused: ", err)
				}
			}
		}()
	}
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("go run receiver.go SOCKET CERTIFICATE KEY")
	}
	certificate, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	os.Remove(os.Args[1])
	syscall.Umask(0o077) // who may hand over: this user, and root
	unix, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: os.Args[1], Net: "unixpacket"})
	if err != nil {
		log.Fatal(err)
	}
	l := &listener{unix, make(chan net.Conn)}
	go l.welcome()
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Go serves %s over TLS %x\n", r.RemoteAddr, r.TLS.Version)
	})
	fmt.Println("ready")
	log.Fatal(http.Serve(tls.NewListener(l, config), handler))
}
