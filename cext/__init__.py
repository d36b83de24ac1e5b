"""The data plane: everything on the path of a byte, in Cython.

The layers, from the ground up, and who may import whom:

    lib     declarations of libcrypto, nghttp2 and Linux (.pxd only, no logic)
    base    wire (bounded reader and writer), buffer (pooled chunks), arena (memory that sleeps), timers,
            stats (counters in memory that processes share)
    crypto  aead, hash_kdf, mlkem, kx, der, sign, x509: the only importers of lib.libcrypto
    tls     the TLS engine, sans-I/O: messages in, messages and secrets out; records around it
    http    the HTTP codec, sans-I/O: heads, bodies, framing rules, HTTP/2 sessions
    net     file descriptors: loop (epoll and timers), stream, listener, descriptors that are passed on
    proxy   downstream, router, exchange, tunnel, pool, upstream: joins tls, http and net
    worker  the composition root

`base`, `crypto`, `http` and `net` import `lib` (each its own header only); all import `base`;
`tls` imports `crypto`; `tls`, `http` and `net` never import one another; `proxy` imports all three, and
`crypto.hash_kdf`; `worker` imports `proxy`, `tls` and `net`. `cext` never imports `edge`: settings and
hooks reach it as objects. `tests/test_layers.py` parses the imports and fails on a breach.

One request reads through the files in this order: net/listener, proxy/downstream, net/stream,
tls/connection, tls/record, tls/server13, http/h1_reader, http/rules, proxy/router, proxy/directing, proxy/exchange,
proxy/pool, proxy/h1_upstream, proxy/upstream, and back through exchange, h1_writer, tls/record, net/stream.
"""
