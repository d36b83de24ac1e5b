"""What server and client settle on: pure functions of a ClientHello and our preferences (RFC 8446 section 4.1.1)."""

from libc.string cimport memcmp

from cext.base.wire cimport left, read_u16, read_vec8, reader_init
from cext.crypto.kx cimport GROUP_SECP256R1, GROUP_SECP384R1, GROUP_SECP521R1, GROUP_X25519
from cext.tls.constants cimport (
    TLS12,
    TLS13,
    TLS_AES_128_GCM_SHA256,
    TLS_AES_256_GCM_SHA384,
    TLS_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS_FALLBACK_SCSV,
    handshake_failure,
    illegal_parameter,
    inappropriate_fallback,
    no_application_protocol,
    protocol_version,
)
from cext.tls.extensions cimport U16Set, set_add, set_forget, set_has
from cext.tls.messages cimport next_key_share

cdef enum:
    NAMES_KEPT = 1024

cdef U16Set offered                                 # empty between calls: a worker is one thread

# server_name objects shared between connections: an idle one should not keep its own copy.
cdef dict names = {}


cdef bint list_has(Reader list, uint16_t v) noexcept nogil:
    cdef uint16_t one = 0
    while read_u16(&list, &one):
        if one == v:
            return 1
    return 0


cdef bint is_among(uint16_t v, const uint16_t *values, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if values[i] == v:
            return 1
    return 0


cdef int choose_version(const ClientHello *ch, int min_version, int max_version) noexcept nogil:
    cdef int version = common_version(ch, min_version, max_version)
    # The client could do better, and so could we, but something kept it from trying (RFC 7507, section 3).
    if version < max_version and list_has(ch.cipher_suites, TLS_FALLBACK_SCSV):
        return -inappropriate_fallback
    return version


cdef int common_version(const ClientHello *ch, int min_version, int max_version) noexcept nogil:
    cdef bint offers_tls12
    # SSL 3.0 is refused wherever it shows (RFC 8446 appendix D.5).
    if ch.legacy_version <= 0x0300:
        return -protocol_version
    if ch.offers_tls13 and max_version >= TLS13:
        return TLS13
    # Where supported_versions stands, it alone tells (section 4.2.1).
    if ch.supported_versions.p != NULL:
        offers_tls12 = list_has(ch.supported_versions, TLS12)
    else:
        offers_tls12 = ch.legacy_version >= TLS12
    return TLS12 if offers_tls12 and min_version <= TLS12 else -protocol_version


cdef int choose_cipher_suite(const ClientHello *ch, const uint16_t *suites, size_t n) noexcept nogil:
    cdef size_t i
    if prefers_chacha20(ch.cipher_suites):
        for i in range(n):
            if suites[i] == TLS_CHACHA20_POLY1305_SHA256:
                return TLS_CHACHA20_POLY1305_SHA256
    for i in range(n):
        if list_has(ch.cipher_suites, suites[i]):
            return suites[i]
    return -handshake_failure


cdef bint prefers_chacha20(Reader suites) noexcept nogil:
    """ChaCha20 before any AES of TLS 1.3: a client that likely computes AES in software. GREASE and suites of TLS 1.2
    are passed over."""
    cdef uint16_t one = 0
    while read_u16(&suites, &one):
        if one == TLS_CHACHA20_POLY1305_SHA256:
            return 1
        if one == TLS_AES_128_GCM_SHA256 or one == TLS_AES_256_GCM_SHA384:
            return 0
    return 0


cdef int choose_cipher_suite12(const ClientHello *ch, const uint16_t *suites, size_t n, bint ecdsa) noexcept nogil:
    cdef int pass_
    cdef size_t i
    # A client that prefers ChaCha20-Poly1305 gets it; else the second pass goes by our order.
    for pass_ in range(0 if prefers_chacha20_12(ch.cipher_suites) else 1, 2):
        for i in range(n):
            if is_ecdsa_suite(suites[i]) != ecdsa or (pass_ == 0 and not is_chacha20_12(suites[i])):
                continue
            if list_has(ch.cipher_suites, suites[i]):
                return suites[i]
    return -handshake_failure


cdef bint is_ecdsa_suite(uint16_t suite) noexcept nogil:
    return (suite == TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 or suite == TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            or suite == TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)


cdef inline bint is_chacha20_12(uint16_t suite) noexcept nogil:
    return (suite == TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            or suite == TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)


cdef bint prefers_chacha20_12(Reader suites) noexcept nogil:
    """As prefers_chacha20, by the suites of TLS 1.2."""
    cdef uint16_t one = 0
    while read_u16(&suites, &one):
        if is_chacha20_12(one):
            return 1
        if (one == TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 or one == TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                or one == TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or one == TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384):
            return 0
    return 0


cdef int choose_group12(const ClientHello *ch, const uint16_t *groups, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if is_group12(groups[i]) and list_has(ch.supported_groups, groups[i]):
            return groups[i]
    return -handshake_failure


cdef bint is_group12(uint16_t group) noexcept nogil:
    return group == GROUP_X25519 or group == GROUP_SECP256R1 or group == GROUP_SECP384R1 or group == GROUP_SECP521R1


cdef int choose_group(const ClientHello *ch, const uint16_t *groups, size_t n, GroupChoice *choice) noexcept nogil:
    cdef Reader list = ch.supported_groups
    cdef uint16_t group = 0
    cdef int result
    choice.group = 0
    choice.retry = 0
    while read_u16(&list, &group):
        set_add(&offered, group)
    result = choose_among_offered(ch, groups, n, choice)
    list = ch.supported_groups
    while read_u16(&list, &group):
        set_forget(&offered, group)
    return result


cdef int choose_among_offered(const ClientHello *ch, const uint16_t *groups, size_t n,
                              GroupChoice *choice) noexcept nogil:
    cdef Reader shares = ch.key_shares
    cdef KeyShare share
    cdef size_t best = n
    cdef size_t i
    while next_key_share(&shares, &share):
        if not set_has(&offered, share.group):      # section 4.2.8
            return -illegal_parameter
        for i in range(best):
            if groups[i] == share.group:
                best = i
                choice.share = share
                break
    if best < n:
        choice.group = groups[best]
        return 0
    for i in range(n):
        if set_has(&offered, groups[i]):
            choice.group = groups[i]
            choice.retry = 1
            return 0
    return -handshake_failure


cdef int choose_scheme(const uint16_t *schemes, size_t n, Reader signature_algorithms) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if list_has(signature_algorithms, schemes[i]):
            return schemes[i]
    return -handshake_failure


cdef int choose_alpn(Reader client, const uint8_t *ours, size_t n, Reader *selected) noexcept nogil:
    cdef Reader list
    reader_init(&list, ours, n)
    selected.p = NULL
    selected.end = NULL
    if client.p == NULL or n == 0:
        return 0
    while read_vec8(&list, selected):
        if offers_protocol(client, selected):
            return 0
    selected.p = NULL
    selected.end = NULL
    return -no_application_protocol


cdef bint offers_protocol(Reader client, const Reader *protocol) noexcept nogil:
    cdef Reader one
    while read_vec8(&client, &one):
        if left(&one) == left(protocol) and memcmp(one.p, protocol.p, left(&one)) == 0:
            return 1
    return 0


cdef bytes name_of(const Reader *name):
    """The server_name as an object that connections share; b"" when there is none."""
    cdef bytes key, known
    if name.p == NULL:
        return b""
    key = name.p[:name.end - name.p]
    known = names.get(key)
    if known is not None:
        return known
    if len(names) >= NAMES_KEPT:        # names are the peers' choice: the table must not grow by it
        names.clear()
    names[key] = key
    return key


cdef bytes protocol_of(tuple protocols, const Reader *selected):
    """The configuration's own object of a protocol that choose_alpn selected."""
    cdef bytes p
    for p in protocols:
        if len(p) == selected.end - selected.p and memcmp(<const char *> p, selected.p, len(p)) == 0:
            return p
    return selected.p[:selected.end - selected.p]


# --- the Python face, for tests and tools

cdef enum:
    PREFERENCES_MAX = 32


cdef size_t preferences(values, uint16_t *out) except? 0:
    cdef size_t n = 0
    if len(values) > PREFERENCES_MAX:
        raise ValueError(f"at most {PREFERENCES_MAX} values")
    for value in values:
        out[n] = value
        n += 1
    return n


cdef Reader u16_list(bytes encoded):
    cdef Reader r
    reader_init(&r, encoded, len(encoded))
    return r


def encode_u16_list(values):
    """16-bit numbers as the content of a vector."""
    return b"".join(int(v).to_bytes(2, "big") for v in values)


def encode_protocol_names(names):
    """ALPN names as the content of a ProtocolNameList."""
    return b"".join(bytes((len(name),)) + name for name in names)


def version(supported_versions, int legacy_version=0x0303, int min_version=TLS12, int max_version=TLS13, suites=()):
    """TLS13 or TLS12, or a negative AlertDescription. supported_versions None: the extension is absent."""
    cdef ClientHello ch
    cdef bytes encoded_suites = encode_u16_list(suites)
    cdef bytes encoded = encode_u16_list(supported_versions or ())
    ch.legacy_version = legacy_version
    ch.cipher_suites = u16_list(encoded_suites)
    ch.supported_versions = u16_list(encoded)
    if supported_versions is None:
        ch.supported_versions.p = NULL
    ch.offers_tls13 = TLS13 in (supported_versions or ())
    return choose_version(&ch, min_version, max_version)


def cipher_suite12(client, server, bint ecdsa):
    """The suite, or a negative AlertDescription."""
    cdef ClientHello ch
    cdef uint16_t ours[PREFERENCES_MAX]
    cdef size_t n = preferences(server, ours)
    cdef bytes encoded = encode_u16_list(client)
    ch.cipher_suites = u16_list(encoded)
    return choose_cipher_suite12(&ch, ours, n, ecdsa)


def cipher_suite(client, server):
    """The suite, or a negative AlertDescription."""
    cdef ClientHello ch
    cdef uint16_t ours[PREFERENCES_MAX]
    cdef size_t n = preferences(server, ours)
    cdef bytes encoded = encode_u16_list(client)
    ch.cipher_suites = u16_list(encoded)
    return choose_cipher_suite(&ch, ours, n)


def group(supported_groups, key_shares, server):
    """(group, retry, share), or a negative AlertDescription. key_shares: pairs of group and bytes."""
    cdef ClientHello ch
    cdef GroupChoice choice
    cdef uint16_t ours[PREFERENCES_MAX]
    cdef size_t n = preferences(server, ours)
    cdef bytes groups = encode_u16_list(supported_groups)
    cdef bytes shares = b"".join(g.to_bytes(2, "big") + len(key).to_bytes(2, "big") + key for g, key in key_shares)
    cdef int result
    ch.supported_groups = u16_list(groups)
    ch.key_shares = u16_list(shares)
    result = choose_group(&ch, ours, n, &choice)
    if result:
        return result
    return choice.group, bool(choice.retry), None if choice.retry else choice.share.data[:choice.share.len]


def scheme(client, server):
    """The SignatureScheme, or a negative AlertDescription."""
    cdef uint16_t ours[PREFERENCES_MAX]
    cdef size_t n = preferences(server, ours)
    cdef bytes encoded = encode_u16_list(client)
    return choose_scheme(ours, n, u16_list(encoded))


def alpn(client, server):
    """The protocol, None, or a negative AlertDescription. client None: no ALPN extension."""
    cdef Reader theirs, selected
    cdef bytes ours = encode_protocol_names(server)
    cdef bytes encoded = encode_protocol_names(client or ())
    cdef int result
    theirs.p = NULL
    theirs.end = NULL
    if client is not None:
        theirs = u16_list(encoded)
    result = choose_alpn(theirs, ours, len(ours), &selected)
    if result:
        return result
    return None if selected.p == NULL else selected.p[:left(&selected)]
