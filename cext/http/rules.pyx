"""The rules of a message head: framing, target, host, connection options (RFC 9112 sections 3, 6 and 9; RFC 9110
sections 7.2, 7.6.1, 8.6 and 10.1).

Wherever two readers of one message could disagree, the message is refused, never repaired. Decisions beyond the
RFCs' own MUSTs:

- A request with Content-Length and Transfer-Encoding is refused (RFC 9112 section 6.1 allows it), so are several
  Content-Length fields or members even when they are equal.
- An absolute-form target whose authority is not that of Host is refused. RFC 9112 section 3.2.2 lets the target win;
  a backend or a filter that looks at the other one would then see another site.
- Connection cannot strip a field that framing, routing or the origin of a request depend on (Host, Content-Length,
  Forwarded, Early-Data ...): RFC 9110 section 7.6.1 forbids such options, here they have no effect.
- Proxy-Authenticate and Proxy-Authorization concern the next proxy alone (RFC 9110 section 11.7); for a gateway there
  is none behind it, so they end here. Trailer and Expect are end to end.
- "Proxy" is no field of HTTP, but behind a CGI gateway it becomes the variable HTTP_PROXY, which client libraries obey
  (CVE-2016-5385): it ends here too.
- TE loses everything but "trailers", the one member that an intermediary can honour for its own hop.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, strlen

from cext.http.message cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_DATE, FIELD_EARLY_DATA, FIELD_EXPECT, FIELD_FORWARDED, FIELD_HOST,
    FIELD_KEEP_ALIVE, FIELD_LINK, FIELD_MAX_FORWARDS, FIELD_OTHER, FIELD_PROXY, FIELD_PROXY_AUTHENTICATE, FIELD_PROXY_AUTHORIZATION,
    FIELD_PROXY_CONNECTION, FIELD_SERVER, FIELD_TE, FIELD_TRACEPARENT, FIELD_TRACESTATE, FIELD_TRAILER,
    FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, FIELD_VIA,
    FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PROTO, FRAMING_CHUNKED, FRAMING_CLOSE,
    FRAMING_LENGTH, FRAMING_NONE, METHOD_CONNECT, METHOD_DELETE, METHOD_GET,
    METHOD_HEAD, METHOD_OPTIONS, METHOD_PATCH, METHOD_POST, METHOD_PUT, METHOD_TRACE, Field, Head, Span)

# Methods that have a number of their own, by name; any other is METHOD_OTHER.
METHODS = {
    "GET": METHOD_GET,
    "HEAD": METHOD_HEAD,
    "POST": METHOD_POST,
    "PUT": METHOD_PUT,
    "DELETE": METHOD_DELETE,
    "OPTIONS": METHOD_OPTIONS,
    "PATCH": METHOD_PATCH,
    "TRACE": METHOD_TRACE,
    "CONNECT": METHOD_CONNECT,
}

cdef enum:
    MAX_OPTIONS = 64            # connection options looked up in the field list: keeps the product small
    MAX_HOST = 255

cdef struct Seen:               # what one pass over the fields found
    uint32_t hosts
    Span host
    uint32_t lengths
    int64_t length
    bint transfer_encoding
    uint32_t codings            # members of Transfer-Encoding, all its fields together
    uint32_t chunked            # of them "chunked"
    bint chunked_last
    bint malformed_coding
    uint32_t expectations
    bint expect_other
    bint close
    bint keep_alive
    bint upgrade                # Connection lists it
    uint32_t upgrades           # fields
    uint32_t options
    Span upgrade_value


cdef int settle_request(Head *h) noexcept nogil:
    cdef Seen seen
    cdef int status = _look(h, &seen)
    if status < 0:
        return status
    status = _settle_target(h, &seen)
    if status < 0:
        return status
    status = _settle_request_framing(h, &seen)
    if status < 0:
        return status
    if seen.expect_other or seen.expectations > 1:
        return -417
    # An expectation of a 1.0 client is ignored, one without content MUST NOT be sent (RFC 9110, section 10.1.1).
    h.expect_continue = seen.expectations and h.minor > 0 and h.framing != FRAMING_NONE and h.content_length != 0
    if seen.expectations and not h.expect_continue:
        _end_expectation(h)
    if h.method == METHOD_TRACE and h.framing != FRAMING_NONE:
        return -400                         # a MUST NOT for its client (RFC 9110, section 9.3.8)
    _settle_connection(h, &seen)
    # With content in between nobody could say where the new protocol begins: then it is a request as any other.
    if h.framing != FRAMING_NONE and h.content_length != 0:
        h.upgrade.len = 0
    return 0


cdef void _end_expectation(Head *h) noexcept nogil:
    cdef uint32_t i
    for i in range(h.n_fields):
        if h.fields[i].id == FIELD_EXPECT:
            h.fields[i].hop_by_hop = 1


cdef int settle_response(Head *h, int request_method) noexcept nogil:
    cdef Seen seen
    if _look(h, &seen) < 0:
        return -502
    if _settle_response_framing(h, &seen, request_method) < 0:
        return -502
    _settle_connection(h, &seen)
    if h.framing == FRAMING_CLOSE:
        h.keep_alive = 0
    # A message that has no body by its status yet announces one leaves doubt about the bytes after it.
    if (h.status == 204 or h.status < 200) and (seen.transfer_encoding or seen.length > 0):
        h.keep_alive = 0
    return 0


cdef int _look(Head *h, Seen *s) noexcept nogil:
    """One pass over the fields: hop-by-hop marks by name, and what the settle functions decide by."""
    cdef uint32_t i
    cdef Field *f
    cdef bint connection = 0
    s.hosts = s.lengths = s.codings = s.chunked = s.options = s.upgrades = 0
    s.length = -1
    s.transfer_encoding = s.chunked_last = s.malformed_coding = 0
    s.expectations = s.expect_other = s.close = s.keep_alive = s.upgrade = 0
    s.upgrade_value.off = s.upgrade_value.len = 0
    h.te_trailers = h.has_date = h.has_server = h.expect_continue = 0
    h.max_forwards = -1
    for i in range(h.n_fields):
        f = &h.fields[i]
        if f.id == FIELD_OTHER:
            continue
        if f.id == FIELD_HOST:
            s.hosts += 1
            s.host = f.value
        elif f.id == FIELD_CONNECTION:
            f.hop_by_hop = 1
            connection = 1
        elif f.id == FIELD_CONTENT_LENGTH:
            s.lengths += 1
            s.length = parse_content_length(h.base + f.value.off, f.value.len)
            if s.length < 0 or s.lengths > 1:
                return -400
        elif f.id == FIELD_TRANSFER_ENCODING:
            f.hop_by_hop = 1
            s.transfer_encoding = 1
            _look_at_codings(h, f, s)
        elif f.id == FIELD_EXPECT:
            s.expectations += 1
            if f.value.len != 12 or not same_name(h.base + f.value.off, b"100-continue", 12):
                s.expect_other = 1
        elif f.id == FIELD_UPGRADE:
            f.hop_by_hop = 1
            s.upgrades += 1
            s.upgrade_value = f.value
        elif f.id == FIELD_TE:
            f.hop_by_hop = 1
            _look_at_te(h, f)
        elif f.id == FIELD_MAX_FORWARDS:
            if h.method == METHOD_OPTIONS or h.method == METHOD_TRACE:
                if h.max_forwards >= 0:
                    return -400
                h.max_forwards = parse_content_length(h.base + f.value.off, f.value.len)
                if h.max_forwards < 0:
                    return -400
        elif f.id == FIELD_DATE:
            h.has_date = 1
        elif f.id == FIELD_SERVER:
            h.has_server = 1
        elif (f.id == FIELD_KEEP_ALIVE or f.id == FIELD_PROXY_CONNECTION or f.id == FIELD_PROXY
              or f.id == FIELD_PROXY_AUTHENTICATE or f.id == FIELD_PROXY_AUTHORIZATION):
            f.hop_by_hop = 1
    if not connection:
        return 0
    for i in range(h.n_fields):
        if h.fields[i].id == FIELD_CONNECTION and _look_at_options(h, &h.fields[i], s) < 0:
            return -400
    return 0


cdef bint next_member(const uint8_t *p, Span *rest, Span *member) noexcept nogil:
    cdef uint32_t end
    if rest.len == 0:
        return 0
    end = rest.off
    while end < rest.off + rest.len and p[end] != c",":
        end += 1
    member.off = rest.off
    member.len = end - rest.off
    rest.len -= member.len
    rest.off = end
    if rest.len:
        rest.off += 1
        rest.len -= 1
    while member.len and (p[member.off] == c" " or p[member.off] == c"\t"):
        member.off += 1
        member.len -= 1
    while member.len and (p[member.off + member.len - 1] == c" " or p[member.off + member.len - 1] == c"\t"):
        member.len -= 1
    return 1


cdef bint _is_token(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if not http_class[p[i]] & HTTP_TOKEN:
            return 0
    return n > 0


cdef void _look_at_codings(const Head *h, const Field *f, Seen *s) noexcept nogil:
    """Counts the members of Transfer-Encoding. Empty members and parameters are not what any sender of chunked
    writes: malformed."""
    cdef Span rest = f.value
    cdef Span member
    cdef bint any_member = 0
    if f.value.len and h.base[f.value.off + f.value.len - 1] == c",":
        s.malformed_coding = 1
    while next_member(h.base, &rest, &member):
        any_member = 1
        s.codings += 1
        s.chunked_last = member.len == 7 and same_name(h.base + member.off, b"chunked", 7)
        if s.chunked_last:
            s.chunked += 1
        elif not _is_token(h.base + member.off, member.len):
            s.malformed_coding = 1
    if not any_member:
        s.malformed_coding = 1


cdef void _look_at_te(Head *h, const Field *f) noexcept nogil:
    cdef Span rest = f.value
    cdef Span member
    while next_member(h.base, &rest, &member):
        if member.len == 8 and same_name(h.base + member.off, b"trailers", 8):
            h.te_trailers = 1


cdef int _look_at_options(Head *h, const Field *f, Seen *s) noexcept nogil:
    """Connection options (RFC 9110, section 7.6.1): what they say of persistence, and the fields they name."""
    cdef Span rest = f.value
    cdef Span option
    cdef const uint8_t *p
    cdef uint32_t i
    while next_member(h.base, &rest, &option):
        if option.len == 0:
            continue
        p = h.base + option.off
        if not _is_token(p, option.len):
            return -400
        if option.len == 5 and same_name(p, b"close", 5):
            s.close = 1
            continue
        if option.len == 10 and same_name(p, b"keep-alive", 10):
            s.keep_alive = 1
            continue
        if option.len == 7 and same_name(p, b"upgrade", 7):
            s.upgrade = 1
            continue
        s.options += 1
        if s.options > MAX_OPTIONS:
            return -400
        for i in range(h.n_fields):
            if h.fields[i].name.len == option.len and not _protected(h.fields[i].id) \
                    and same_name(h.base + h.fields[i].name.off, p, option.len):
                h.fields[i].hop_by_hop = 1
    return 0


cdef bint _protected(int field) noexcept nogil:
    """Fields a connection option cannot strip."""
    return (field == FIELD_HOST or field == FIELD_CONTENT_LENGTH or field == FIELD_EXPECT or field == FIELD_DATE
            or field == FIELD_VIA or field == FIELD_MAX_FORWARDS or field == FIELD_EARLY_DATA or field == FIELD_FORWARDED
            or field == FIELD_X_FORWARDED_FOR or field == FIELD_X_FORWARDED_PROTO or field == FIELD_X_FORWARDED_HOST)


cdef int _settle_request_framing(Head *h, const Seen *s) noexcept nogil:
    """RFC 9112, section 6.3, for requests."""
    h.content_length = -1
    if not s.transfer_encoding:
        h.framing = FRAMING_LENGTH if s.lengths else FRAMING_NONE
        h.content_length = s.length
        return 0
    if s.lengths or h.minor == 0 or s.malformed_coding:
        return -400
    # Without a final chunked the length is unknown: 400 is a MUST, and comes before 501's SHOULD (section 6.1).
    if s.chunked != 1 or not s.chunked_last:
        return -400
    if s.codings != 1:
        return -501
    h.framing = FRAMING_CHUNKED
    return 0


cdef int _settle_response_framing(Head *h, const Seen *s, int request_method) noexcept nogil:
    """RFC 9112, section 6.3, for responses. TE was not sent with any coding, so chunked is the only one to expect."""
    h.content_length = -1
    if s.transfer_encoding:
        if s.lengths or h.minor == 0 or s.malformed_coding or s.codings != 1 or s.chunked != 1:
            return -502
    if h.status < 200 or h.status == 204 or (request_method == METHOD_CONNECT and h.status < 300):
        h.framing = FRAMING_NONE
    elif request_method == METHOD_HEAD or h.status == 304:
        h.framing = FRAMING_NONE
        h.content_length = s.length
    elif s.transfer_encoding:
        h.framing = FRAMING_CHUNKED
    elif s.lengths:
        h.framing = FRAMING_LENGTH
        h.content_length = s.length
    else:
        h.framing = FRAMING_CLOSE
    return 0


cdef void _settle_connection(Head *h, const Seen *s) noexcept nogil:
    """RFC 9112, section 9.3; Upgrade counts only where Connection lists it (RFC 9110, section 7.8)."""
    h.keep_alive = not s.close and (h.minor > 0 or s.keep_alive)
    h.upgrade.off = h.upgrade.len = 0
    if s.upgrade and s.upgrades == 1 and h.minor > 0:
        h.upgrade = s.upgrade_value


cdef int _settle_target(Head *h, const Seen *s) noexcept nogil:
    """The four forms of RFC 9112, section 3.2, and Host (RFC 9110, section 7.2)."""
    cdef const uint8_t *p = h.base + h.target.off
    cdef const uint8_t *mark
    if s.hosts > 1 or (s.hosts == 0 and h.minor > 0):
        return -400
    if s.hosts and not valid_authority(h.base + s.host.off, s.host.len, 0):
        return -400
    h.host.off = h.host.len = 0
    if s.hosts:
        h.host = s.host
    h.path = h.target
    h.query.off = h.query.len = 0

    if h.method == METHOD_CONNECT:          # authority-form and no other; it has no path
        if not valid_authority(p, h.target.len, 1):
            return -400
        if s.hosts and not _same_authority(h.base, h.target, s.host, b":443", 4):
            return -400
        h.host = h.target
        h.path.len = 0
        return 0
    if p[0] == c"*":
        return 0 if h.target.len == 1 and h.method == METHOD_OPTIONS else -400
    if p[0] != c"/":
        if _absolute_form(h, s) < 0:
            return -400

    mark = <const uint8_t *> memchr(h.base + h.path.off, c"?", h.path.len)
    if mark != NULL:
        h.query.off = <uint32_t> (mark + 1 - h.base)
        h.query.len = h.path.off + h.path.len - h.query.off
    return 0


cdef int _absolute_form(Head *h, const Seen *s) noexcept nogil:
    """Splits "http[s]://authority/path?query" into host and path."""
    cdef const uint8_t *p = h.base + h.target.off
    cdef const char *default_port = b":80"
    cdef uint32_t at = 7
    cdef uint32_t n = h.target.len
    cdef Span authority
    if n > 8 and same_name(p, b"https://", 8):
        at = 8
        default_port = b":443"
    elif n <= 7 or not same_name(p, b"http://", 7):
        return -400
    authority.off = h.target.off + at
    while at < n and p[at] != c"/" and p[at] != c"?":
        at += 1
    authority.len = h.target.off + at - authority.off
    if not valid_authority(h.base + authority.off, authority.len, 0):
        return -400
    if s.hosts and not _same_authority(h.base, authority, s.host, default_port, 3 if default_port[1] == c"8" else 4):
        return -400
    h.host = authority
    if at == n:                             # an empty path means "/": the one before the authority will do
        if h.method == METHOD_OPTIONS:      # ... but "*" here (section 3.2.4), which stands nowhere in the bytes
            return -400
        h.path.off = authority.off - 1
        h.path.len = 1
        return 0
    if p[at] == c"?":                       # "/?query" stands nowhere in the bytes, and nobody sends it
        return -400
    h.path.off = h.target.off + at
    h.path.len = n - at
    return 0


cdef bint _same_authority(const uint8_t *base, Span a, Span b, const char *port, uint32_t port_len) noexcept nogil:
    """Equal names and ports, the scheme's default port counting as none."""
    if a.len > port_len and memcmp(base + a.off + a.len - port_len, port, port_len) == 0:
        a.len -= port_len
    if b.len > port_len and memcmp(base + b.off + b.len - port_len, port, port_len) == 0:
        b.len -= port_len
    return a.len == b.len and same_name(base + a.off, base + b.off, a.len)


cdef bint valid_authority(const uint8_t *p, size_t n, bint need_port) noexcept nogil:
    cdef size_t i = 0
    cdef size_t label = 0
    cdef uint32_t port = 0
    if n == 0 or n > MAX_HOST:
        return 0
    if p[0] == c"[":
        while i < n and p[i] != c"]":
            i += 1
        if i == n or not _valid_ipv6(p + 1, i - 1):
            return 0
        i += 1
    else:
        while i < n and http_class[p[i]] & HTTP_NAME:
            if p[i] == c".":
                if label == i:              # an empty label; one dot at the end is the DNS root
                    return 0
                label = i + 1
            i += 1
        if i == 0:
            return 0
    if i == n:
        return not need_port
    if p[i] != c":" or n - i > 6:
        return 0
    for i in range(i + 1, n):
        if p[i] < c"0" or p[i] > c"9":
            return 0
        port = port * 10 + p[i] - c"0"
    return 0 < port < 65536


cdef bint _valid_ipv6(const uint8_t *p, size_t n) noexcept nogil:
    """IPv6address of RFC 3986, section 3.2.2: eight groups, one run of zeros elided, the last two perhaps dotted."""
    cdef size_t i = 0
    cdef int groups = 0
    cdef int digits
    cdef bint elided = 0
    if n < 2:
        return 0
    if p[0] == c":":
        if p[1] != c":":
            return 0
        elided = 1
        i = 2
    while i < n:
        digits = 0
        while i + digits < n and digits < 5 and http_class[p[i + digits]] & HTTP_HEX:
            digits += 1
        if i + digits < n and p[i + digits] == c".":
            if not _valid_ipv4(p + i, n - i):
                return 0
            groups += 2
            break
        if digits == 0 or digits > 4:
            return 0
        groups += 1
        i += digits
        if i == n:
            break
        if p[i] != c":" or i + 1 == n:
            return 0
        i += 1
        if p[i] == c":":
            if elided:
                return 0
            elided = 1
            i += 1
    return groups < 8 if elided else groups == 8


cdef bint _valid_ipv4(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i = 0
    cdef int octet, digits, part
    for part in range(4):
        octet = digits = 0
        while i < n and digits < 3 and c"0" <= p[i] <= c"9":
            octet = octet * 10 + p[i] - c"0"
            digits += 1
            i += 1
        if digits == 0 or octet > 255:
            return 0
        if part < 3:
            if i == n or p[i] != c".":
                return 0
            i += 1
    return i == n


cdef int64_t parse_content_length(const uint8_t *p, size_t n) noexcept nogil:
    cdef int64_t value = 0
    cdef size_t i
    cdef int digit
    if n == 0:
        return -1
    for i in range(n):
        digit = p[i] - c"0"
        if digit < 0 or digit > 9 or value > (INT64_MAX - digit) // 10:
            return -1
        value = value * 10 + digit
    return value


cdef bint same_name(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil:
    cdef size_t i
    cdef uint8_t lower
    for i in range(n):
        if a[i] == b[i]:
            continue
        lower = a[i] | 0x20
        if lower != (b[i] | 0x20) or lower < c"a" or lower > c"z":
            return 0
    return 1


cdef int _named(const uint8_t *name, size_t n, const char *known, int field) noexcept nogil:
    """`field` when name[:n] is `known` (lower case), -1 when "_" stands for a "-" of it, else FIELD_OTHER."""
    cdef size_t i
    cdef bint underscore = 0
    cdef uint8_t c
    for i in range(n):
        c = name[i]
        if c == c"_":
            underscore = 1
            c = c"-"
        if (c | 0x20) != <uint8_t> known[i]:
            return FIELD_OTHER
    return -1 if underscore else field


cdef int field_id(const uint8_t *name, size_t n) noexcept nogil:
    # The length leaves at most three candidates, one letter tells them apart.
    cdef uint8_t first = name[0] | 0x20
    if n == 4:
        if first == c"h":
            return _named(name, n, b"host", FIELD_HOST)
        if first == c"d":
            return _named(name, n, b"date", FIELD_DATE)
        if first == c"l":
            return _named(name, n, b"link", FIELD_LINK)
    elif n == 10:
        if first == c"c":
            return _named(name, n, b"connection", FIELD_CONNECTION)
        if first == c"k":
            return _named(name, n, b"keep-alive", FIELD_KEEP_ALIVE)
        if first == c"e":
            return _named(name, n, b"early-data", FIELD_EARLY_DATA)
        if first == c"t":
            return _named(name, n, b"tracestate", FIELD_TRACESTATE)
    elif n == 11:
        if first == c"t":
            return _named(name, n, b"traceparent", FIELD_TRACEPARENT)
    elif n == 14:
        if first == c"c":
            return _named(name, n, b"content-length", FIELD_CONTENT_LENGTH)
    elif n == 6:
        if first == c"e":
            return _named(name, n, b"expect", FIELD_EXPECT)
        if first == c"s":
            return _named(name, n, b"server", FIELD_SERVER)
    elif n == 7:
        if first == c"u":
            return _named(name, n, b"upgrade", FIELD_UPGRADE)
        if first == c"t":
            return _named(name, n, b"trailer", FIELD_TRAILER)
    elif n == 17:
        if first == c"t":
            return _named(name, n, b"transfer-encoding", FIELD_TRANSFER_ENCODING)
        if first == c"x":
            return _named(name, n, b"x-forwarded-proto", FIELD_X_FORWARDED_PROTO)
    elif n == 16:
        if first == c"p":
            return _named(name, n, b"proxy-connection", FIELD_PROXY_CONNECTION)
        if first == c"x":
            return _named(name, n, b"x-forwarded-host", FIELD_X_FORWARDED_HOST)
    elif n == 15:
        if first == c"x":
            return _named(name, n, b"x-forwarded-for", FIELD_X_FORWARDED_FOR)
    elif n == 5:
        if first == c"p":
            return _named(name, n, b"proxy", FIELD_PROXY)
    elif n == 12:
        if first == c"m":
            return _named(name, n, b"max-forwards", FIELD_MAX_FORWARDS)
    elif n == 2:
        if first == c"t":
            return _named(name, n, b"te", FIELD_TE)
    elif n == 3:
        if first == c"v":
            return _named(name, n, b"via", FIELD_VIA)
    elif n == 9:
        if first == c"f":
            return _named(name, n, b"forwarded", FIELD_FORWARDED)
    elif n == 18:
        if first == c"p":
            return _named(name, n, b"proxy-authenticate", FIELD_PROXY_AUTHENTICATE)
    elif n == 19:
        if first == c"p":
            return _named(name, n, b"proxy-authorization", FIELD_PROXY_AUTHORIZATION)
    return FIELD_OTHER


cdef bint claims_origin(const uint8_t *name, size_t n) noexcept nogil:
    if (name[0] | 0x20) != c"x":
        return 0
    if n > 12:
        return _named(name, 12, b"x-forwarded-", 1) != FIELD_OTHER
    return n == 9 and _named(name, 9, b"x-real-ip", 1) != FIELD_OTHER


# RFC 9110, section 6.5.1: fields for framing, routing, authentication, request modifiers, response control and
# content format. Those with a FieldId are forbidden by it; these are the others.
cdef enum:
    N_FORBIDDEN = 21
cdef const char *FORBIDDEN_TRAILERS[N_FORBIDDEN]
FORBIDDEN_TRAILERS[:] = [
    b"age", b"authorization", b"cache-control", b"content-encoding", b"content-range", b"content-type", b"cookie",
    b"expires", b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"location",
    b"pragma", b"range", b"retry-after", b"set-cookie", b"vary", b"warning", b"www-authenticate"]


cdef bint trailer_forbidden(const uint8_t *name, size_t n) noexcept nogil:
    cdef int i
    cdef int field = field_id(name, n)
    if field != FIELD_OTHER:
        return field != FIELD_LINK
    if claims_origin(name, n):
        return 1
    for i in range(N_FORBIDDEN):
        if strlen(FORBIDDEN_TRAILERS[i]) == n and _named(name, n, FORBIDDEN_TRAILERS[i], 1) != FIELD_OTHER:
            return 1
    return 0
