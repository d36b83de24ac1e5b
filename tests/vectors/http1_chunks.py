"""Chunked bodies. VALID: (name, bytes, content, kept trailer lines). REFUSED: (name, bytes)."""

VALID = [
    ("empty", b"0\r\n\r\n", b"", b""),
    ("one", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
    ("two, hex in both cases", b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", b"01234567890123456789a", b""),
    ("leading zeros", b"0005\r\nhello\r\n00000\r\n\r\n", b"hello", b""),
    ("16 digits", b"0000000000000001\r\nx\r\n0\r\n\r\n", b"x", b""),
    ("line ends as content", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", b""),
    ("extension", b"1;a\r\nx\r\n0;b\r\n\r\n", b"x", b""),
    ("extensions with values", b'1;a=b;c="d;\\"\t\x80 e\\\\";f\r\nx\r\n0\r\n\r\n', b"x", b""),
    ("size line of 256 bytes with its CR", b"1;" + b"a" * 253 + b"\r\nx\r\n0\r\n\r\n", b"x", b""),
    ("trailer", b"0\r\nX-Sum: 1\r\n\r\n", b"", b"X-Sum: 1\r\n"),
    ("trailers, spaced", b"0\r\nA:b\r\nC: \t d \t\r\nE:\r\n\r\n", b"", b"A: b\r\nC: d\r\nE: \r\n"),
    ("forbidden trailers",
     b"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHOST: a\r\nX: 1\r\nAuthorization: b\r\nTrailer: c\r\n"
     b"Content_Length: 5\r\nX-Forwarded-For: a\r\nSet-Cookie: a\r\nif-match: a\r\nContent-Type: a\r\nConnection: a\r\n"
     b"Set_Cookie: a\r\nCookie: a\r\nCookies: 1\r\n\r\n", b"", b"X: 1\r\nCookies: 1\r\n"),
    ("trailers of 8192 bytes", b"0\r\n" + b"A: " + b"b" * 8187 + b"\r\n\r\n", b"", b"A: " + b"b" * 8187 + b"\r\n"),
]

REFUSED = [
    *[("size line " + repr(line)[1:], line + b"\r\nhello\r\n0\r\n\r\n") for line in (
        b"", b" 5", b"5 ", b"\t5", b"+5", b"-5", b"0x5", b"5h", b"g", b"5_", b"5.", b"5,", b"5 ;a", b"5\t;a", b"5; a",
        b"5;", b"5;;a", b"5;=a", b"5;a=", b"5;a= b", b"5;a =b", b'5;a="b', b'5;a="b"c', b'5;a=b"', b'5;a="\0"',
        b'5;a="\n"', b'5;a="\\\n"', b"5;a\x80", b"5;a=\x7f", b"5;a=b=c", b"00000000000000005", b"10000000000000005",
        b"fffffffffffffffff",
        b"8000000000000000", b"ffffffffffffffff", b"5;" + b"a" * 254)],
    ("bare LF behind the size", b"5\nhello\r\n0\r\n\r\n"),
    ("bare CR behind the size", b"5\rhello\r\n0\r\n\r\n"),
    ("CR CR LF behind the size", b"5\r\r\nhello\r\n0\r\n\r\n"),
    ("LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("content too long", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("content too short", b"5\r\nhell\r\n0\r\n\r\n"),
    ("bare LF behind the content", b"5\r\nhello\n0\r\n\r\n"),
    ("bare CR behind the content", b"5\r\nhello\r0\r\n\r\n"),
    ("nothing behind the content", b"5\r\nhello0\r\n\r\n"),
    ("bare LF at the end", b"0\r\n\n"),
    ("CR without LF at the end", b"0\r\n\rX"),
    ("chunk behind the last", b"0\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("trailer without colon", b"0\r\nA\r\n\r\n"),
    ("trailer without name", b"0\r\n: a\r\n\r\n"),
    ("space before a trailer's colon", b"0\r\nA : b\r\n\r\n"),
    ("folded trailer", b"0\r\nA: b\r\n c\r\n\r\n"),
    ("bare LF in a trailer", b"0\r\nA: b\nC: d\r\n\r\n"),
    ("bare CR in a trailer", b"0\r\nA: b\rC: d\r\n\r\n"),
    ("NUL in a trailer", b"0\r\nA: b\0\r\n\r\n"),
    ("trailers of 8193 bytes", b"0\r\n" + b"A: " + b"b" * 8188 + b"\r\n\r\n"),
    ("many small trailers", b"0\r\n" + b"A: b\r\n" * 1366 + b"\r\n"),
    ("many forbidden trailers", b"0\r\n" + b"Host: b\r\n" * 1000 + b"\r\n"),
]
