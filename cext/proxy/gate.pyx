"""Before TLS (see the .pxd).

Bytes gather in `raw` until it is known who serves the connection. Then they go to another process with the descriptor,
or to TLS as if they had just come. What is no whole, well-formed ClientHello is never handed over: TLS has the alert for it.
"""

from libc.string cimport memset

from cext.base.buffer cimport bytes_append, bytes_consume, bytes_free
from cext.base.wire cimport Reader, left, read_u16, read_vec8
from cext.net.networks cimport Networks
from cext.net.proxy_header cimport ProxyHeader, proxy_parse
from cext.proxy.context cimport OVER_NONE
from cext.proxy.downstream cimport READ_HANDSHAKE
from cext.proxy.handover cimport hand_over
from cext.proxy.hook_call cimport HookCall
from cext.proxy.limits cimport admit_address, may_answer
from cext.proxy.proxied cimport new_proxied
from cext.tls.messages cimport parse_client_hello

cdef enum:
    GATHER_MAX = 32 * 1024      # of a ClientHello's records; a longer one is served here
    RECORD_HEADER = 5
    MESSAGE_HEADER = 4
    FRAGMENT_MAX = 16384
    CONTENT_HANDSHAKE = 22
    CLIENT_HELLO = 1

cdef enum:                      # what find_hello found
    NOT_YET = 0
    NO_HELLO = 1
    HELLO = 2


# ---- settings ----

cdef class ProxySettings:
    """ProxySettings([(IP, bits of the prefix), ...], serve_others, timeout_ms)"""

    def __init__(self, networks, bint serve_others, int timeout_ms):
        self.proxies = Networks(networks)
        self.serve_others = serve_others
        self.timeout_ms = timeout_ms


cdef class HandoffRule:
    """HandoffRule(target, names=None, versions=None, protocols=None, fingerprints=None)

    names: server names as bytes in lower case, b"*.example.com" for all below; versions: 0x0301 ...; protocols: bytes;
    fingerprints: called with a ClientHello message (bytes), tells whether it is one of those.
    """

    def __init__(self, HandoffTarget target, *, names=None, versions=None, protocols=None, fingerprints=None):
        self.target = target
        self.by_name = names is not None
        self.names = frozenset(name for name in names or () if not name.startswith(b"*"))
        self.suffixes = frozenset(name[1:] for name in names or () if name.startswith(b"*"))
        for version in versions or ():
            self.versions |= <uint16_t> (1 << (version - 0x0300))
        self.protocols = frozenset(protocols) if protocols is not None else None
        self.fingerprints = fingerprints

    cdef bint matches(self, Context ctx, const ClientHello *hello, const uint8_t *message, size_t n) noexcept:
        try:
            return (
                (self.versions == 0 or self.versions >> highest_version(hello) & 1)
                and (not self.by_name or self.matches_name(hello))
                and (self.protocols is None or offers(hello, self.protocols))
                and (self.fingerprints is None or self.fingerprints((<const char *> message)[:n]))
            )
        except Exception as e:
            ctx.log("error", f'handing over to "{self.target.name}": {e!r}')
            return False

    cdef bint matches_name(self, const ClientHello *hello):
        cdef bytes name
        cdef Py_ssize_t dot
        if hello.server_name.p == NULL:
            return False
        name = (<const char *> hello.server_name.p)[:left(&hello.server_name)].lower().rstrip(b".")
        if name in self.names:
            return True
        if not self.suffixes:
            return False
        dot = name.find(b".")
        while dot >= 0:
            if name[dot:] in self.suffixes:
                return True
            dot = name.find(b".", dot + 1)
        return False


cdef int highest_version(const ClientHello *hello) noexcept nogil:
    """Of those that exist, as a number behind 0x0300; unknown ones are passed over (RFC 9846, section 4.3.1)."""
    cdef Reader versions = hello.supported_versions
    cdef uint16_t version = 0
    cdef int highest = 0
    if versions.p == NULL:
        version = hello.legacy_version
        return 3 if version > 0x0303 else (version - 0x0300 if version >= 0x0300 else 0)
    while read_u16(&versions, &version):
        if 0x0300 <= version <= 0x0304 and version - 0x0300 > highest:
            highest = version - 0x0300
    return highest


cdef bint offers(const ClientHello *hello, frozenset protocols):
    cdef Reader list = hello.alpn
    cdef Reader one
    if list.p == NULL:
        return False
    while read_vec8(&list, &one):
        if (<const char *> one.p)[:left(&one)] in protocols:
            return True
    return False


cdef class GateSettings:
    """GateSettings(proxy=None, rules=(), targets={})"""

    def __init__(self, *, ProxySettings proxy=None, rules=(), dict targets={}):
        self.proxy = proxy
        self.rules = tuple(rules)
        self.targets = targets
        for rule in self.rules:
            if not isinstance(rule, HandoffRule):
                raise TypeError(f"{rule!r} is no HandoffRule")


# ---- a connection ----

cdef bint must_close(ListenerSettings settings, const Peer *peer) noexcept:
    cdef ProxySettings proxy = (<GateSettings> settings.gate).proxy
    return proxy is not None and not proxy.serve_others and not proxy.proxies.has(peer)


cdef Gate new_gate(ListenerSettings settings, const Peer *peer):
    cdef GateSettings passed = <GateSettings> settings.gate
    cdef bint proxied = passed.proxy is not None and passed.proxy.proxies.has(peer)
    cdef Gate gate
    if not proxied and not passed.rules and not passed.targets:
        return None
    gate = Gate.__new__(Gate)
    gate.settings = passed
    gate.pending = True
    gate.proxy_due = proxied
    gate.choosing = len(passed.targets) > 0 or len(passed.rules) > 0
    return gate


cdef class Gate(Opening):
    def __dealloc__(self):
        bytes_free(&self.message)

    cdef ssize_t on_bytes(self, Downstream client, const uint8_t *p, size_t n) noexcept:
        if bytes_append(&self.raw, p, n) < 0:
            client.shut(b"out of memory")
            return -1
        if self.proxy_due and not self.read_proxy_header(client):
            return n if client.fd >= 0 else -1
        if self.choosing and not client.refused and not self.choose(client):
            return n if client.fd >= 0 else -1
        self.release(client)
        return n

    cdef bint read_proxy_header(self, Downstream client) noexcept:
        """Whether it has come, and the connection is still there."""
        cdef ProxyHeader h
        cdef const char *fault = NULL
        cdef ssize_t n = proxy_parse(self.raw.data, self.raw.len, &h, &fault)
        if n == 0:
            return False
        if n < 0:
            self.refuse(client, fault)
            return False
        self.proxy_due = False
        try:
            self.proxied = new_proxied(&client.peer, &h.local, h.tlvs, h.tlvs_len)
        except MemoryError:
            client.shut(b"out of memory")
            return False
        bytes_consume(&self.raw, n)
        client.expect(READ_HANDSHAKE, client.settings.handshake_ms)
        if h.known:
            client.peer = h.client
            client.choose_key_log()
            self.enter(client)
        return client.fd >= 0

    cdef void enter(self, Downstream client) noexcept:
        """Now it is known whose connection it is: one more of that address."""
        cdef int over
        if client.refused:
            return
        over = admit_address(client.ctx, client.settings, &client.peer, &client.place)
        if over == OVER_NONE:
            return
        if not may_answer(client.ctx, client.settings, over):
            client.shut(b"limits.per_address")
            return
        client.refused = <uint8_t> over
        client.settings.leave()
        client.ctx.answering += 1

    cdef void refuse(self, Downstream client, const char *why) noexcept:
        client.ctx.counters.proxy_refused += 1
        client.ctx.log("info", f"{client.peer_name()}: connection refused: {why.decode()}")
        client.shut(why)

    cdef bint choose(self, Downstream client) noexcept:
        """Whether TLS may go on here: not while the ClientHello is not whole, nor once it is handed over."""
        cdef ClientHello hello
        cdef HandoffRule rule
        cdef size_t n = 0
        cdef int found = self.find_hello(&n)
        if found == NOT_YET and self.raw.len < GATHER_MAX:
            return False
        self.choosing = False
        if found != HELLO:
            return True
        if parse_client_hello(self.message.data + MESSAGE_HEADER, n - MESSAGE_HEADER, &hello) == 0:
            self.whole = True
            for rule in self.settings.rules:
                if rule.matches(client.ctx, &hello, self.message.data, n):
                    bytes_free(&self.message)
                    return not hand_over(client, rule.target)
        bytes_free(&self.message)
        return True

    cdef int find_hello(self, size_t *n) noexcept:
        """Gathers the message from whole records; n: its length. Each is looked at once."""
        cdef const uint8_t *p
        cdef size_t have, size
        while True:
            p = self.raw.data + self.scanned
            have = self.raw.len - self.scanned
            if have and p[0] != CONTENT_HANDSHAKE or have > 1 and p[1] != 3:
                return NO_HELLO
            if have < RECORD_HEADER:
                return NOT_YET
            size = (<size_t> p[3] << 8) | p[4]
            if size == 0 or size > FRAGMENT_MAX:
                return NO_HELLO
            if have < RECORD_HEADER + size:
                return NOT_YET
            if bytes_append(&self.message, p + RECORD_HEADER, size) < 0:
                return NO_HELLO
            self.scanned += RECORD_HEADER + size
            p = self.message.data
            if p[0] != CLIENT_HELLO:
                return NO_HELLO
            if self.message.len >= MESSAGE_HEADER:
                n[0] = MESSAGE_HEADER + ((<size_t> p[1] << 16) | (<size_t> p[2] << 8) | p[3])
                if n[0] > GATHER_MAX:
                    return NO_HELLO
                if self.message.len >= n[0]:
                    return HELLO

    cdef void release(self, Downstream client) noexcept:
        """To TLS, with all that has come."""
        self.pending = False
        bytes_free(&self.message)
        if not self.whole or not self.settings.targets:
            client.stash = self.raw
            memset(&self.raw, 0, sizeof(Bytes))
        elif bytes_append(&client.stash, self.raw.data, self.raw.len) < 0:      # raw stays until the hook has decided
            client.shut(b"out of memory")
            return
        client.stash_news = client.stash.len > 0
        if self.proxied is None and self.raw.len == 0:
            client.opening = None

    cdef void stay(self, Downstream client) noexcept:
        cdef HookCall asked = client.ctx.deciding.get(client)
        if asked is not None:           # it was a hook that handed over
            asked.settled()
            return
        self.release(client)
        client.pump()
