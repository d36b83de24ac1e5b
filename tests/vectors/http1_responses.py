"""HTTP/1.1 response heads and what must become of them; refused ones are all 502.

VALID: (name, head, request method's name, what the parsed head says). REFUSED: (name, head).
"""

NONE, LENGTH, CHUNKED, CLOSE = 0, 1, 2, 3


def _ok(fields=b"", line=b"HTTP/1.1 200 OK"):
    return line + b"\r\n" + fields + b"\r\n"


VALID = [
    ("until close", _ok(), "GET", {"status": 200, "reason": b"OK", "framing": CLOSE, "keep_alive": False, "minor": 1}),
    ("length", _ok(b"Content-Length: 5\r\n"), "GET", {"framing": LENGTH, "content_length": 5, "keep_alive": True}),
    ("length 0", _ok(b"Content-Length: 0\r\n"), "POST", {"framing": LENGTH, "content_length": 0}),
    ("chunked", _ok(b"Transfer-Encoding: Chunked\r\n"), "GET",
     {"framing": CHUNKED, "content_length": -1, "keep_alive": True}),
    ("close", _ok(b"Content-Length: 5\r\nConnection: close\r\n"), "GET", {"keep_alive": False}),
    ("1.0", _ok(b"Content-Length: 5\r\n", b"HTTP/1.0 200 OK"), "GET", {"minor": 0, "keep_alive": False}),
    ("1.0 keep-alive", _ok(b"Content-Length: 5\r\nConnection: keep-alive\r\n", b"HTTP/1.0 200 OK"), "GET",
     {"keep_alive": True}),
    ("a later minor version", _ok(b"", b"HTTP/1.7 200 OK"), "GET", {"minor": 1}),
    ("no phrase", _ok(b"", b"HTTP/1.1 200 "), "GET", {"reason": b""}),
    ("no space either", _ok(b"", b"HTTP/1.1 200"), "GET", {"reason": b"", "status": 200}),
    ("phrase with obs-text and tab", _ok(b"", b"HTTP/1.1 404 N\xe3o\tda"), "GET",
     {"status": 404, "reason": b"N\xe3o\tda"}),
    ("HEAD", _ok(b"Content-Length: 5\r\n"), "HEAD", {"framing": NONE, "content_length": 5, "keep_alive": True}),
    ("HEAD, chunked", _ok(b"Transfer-Encoding: chunked\r\n"), "HEAD",
     {"framing": NONE, "content_length": -1, "keep_alive": True}),
    ("HEAD, neither", _ok(), "HEAD", {"framing": NONE, "content_length": -1, "keep_alive": True}),
    ("304", _ok(b"Content-Length: 5\r\n", b"HTTP/1.1 304 Not Modified"), "GET",
     {"framing": NONE, "content_length": 5, "keep_alive": True}),
    ("204", _ok(b"", b"HTTP/1.1 204 No Content"), "GET", {"framing": NONE, "content_length": -1, "keep_alive": True}),
    ("204 that announces none", _ok(b"Content-Length: 0\r\n", b"HTTP/1.1 204 No Content"), "GET",
     {"framing": NONE, "content_length": -1, "keep_alive": True}),
    ("204 that announces content", _ok(b"Content-Length: 5\r\n", b"HTTP/1.1 204 No Content"), "GET",
     {"framing": NONE, "content_length": -1, "keep_alive": False}),
    ("204 that announces chunks", _ok(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 204 No Content"), "GET",
     {"framing": NONE, "keep_alive": False}),
    ("100", _ok(b"", b"HTTP/1.1 100 Continue"), "POST", {"framing": NONE, "status": 100}),
    ("103", _ok(b"Link: </a.css>\r\n", b"HTTP/1.1 103 Early Hints"), "GET", {"framing": NONE}),
    ("101", _ok(b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"HTTP/1.1 101 Switching Protocols"), "GET",
     {"framing": NONE, "upgrade": b"websocket"}),
    ("CONNECT", _ok(), "CONNECT", {"framing": NONE}),
    ("CONNECT refused", _ok(b"Content-Length: 1\r\n", b"HTTP/1.1 403 No"), "CONNECT", {"framing": LENGTH}),
    ("status 599", _ok(b"", b"HTTP/1.1 599 x"), "GET", {"status": 599}),
    ("date and server", _ok(b"date: x\r\nSERVER: y\r\n"), "GET", {"has_date": True, "has_server": True}),
    ("neither", _ok(b"Dates: x\r\n"), "GET", {"has_date": False, "has_server": False}),
    ("hop-by-hop", _ok(b"Keep-Alive: 5\r\nX-A: 1\r\nConnection: x-a\r\nProxy-Authenticate: x\r\nX-B: 2\r\n"), "GET",
     {"hop_by_hop": [True, True, True, True, False]}),
    ("underscore", _ok(b"Content_Length: 5\r\n"), "GET", {"framing": CLOSE, "ids": [0]}),
]

REFUSED = [
    *[("line " + repr(line)[1:], line + b"\r\n\r\n") for line in (
        b"", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 x", b"HTTP/1.1 600 x",
        b"HTTP/1.1 000 x", b"HTTP/1.1 -20 x", b"HTTP/1.1 2x0 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 200\tOK", b"HTTP/1.1 200OK", b" HTTP/1.1 200 OK", b"http/1.1 200 OK", b"HTTP/2 200 OK",
        b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1. 200 OK", b"HTTP/1.10 200 OK", b"HTTPS/1.1 200 OK",
        b"ICY 200 OK", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\x7fK", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK",
        b"<html></html> padding",
    )],
    ("both lengths", _ok(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")),
    ("two lengths", _ok(b"Content-Length: 3\r\nContent-Length: 4\r\n")),
    ("two equal lengths", _ok(b"Content-Length: 3\r\nContent-Length: 3\r\n")),
    *[("length " + repr(v)[1:], _ok(b"Content-Length: " + v + b"\r\n"))
      for v in (b"", b"5, 5", b"+5", b"-5", b"5 5", b"0x5", b"9223372036854775808")],
    *[("coding " + repr(v)[1:], _ok(b"Transfer-Encoding: " + v + b"\r\n"))
      for v in (b"", b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"chunked;a",
                b",")],
    ("chunked in 1.0", _ok(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.0 200 OK")),
    ("a bad length of HEAD", _ok(b"Content-Length: 5, 5\r\n")),
    ("obs-fold", _ok(b"A: b\r\n c\r\n")),
    ("space before the colon", _ok(b"A : b\r\n")),
    ("empty name", _ok(b": b\r\n")),
    ("no colon", _ok(b"A\r\n")),
    ("NUL in a value", _ok(b"A: b\0\r\n")),
    ("bare CR in a value", _ok(b"A: b\rc\r\n")),
    ("bare LF", b"HTTP/1.1 200 OK\nA: b\r\n\r\n"),
    ("bare LF at the end", b"HTTP/1.1 200 OK\r\nA: b\r\n\n"),
    ("option that is no token", _ok(b"Connection: a b\r\n")),
]
