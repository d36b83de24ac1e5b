"""What RFC 9110 and RFC 9112 rule about a head whose lines are parsed: its framing, its target and host, who the
connection options concern; and the character classes all of cext.http reads by."""

from libc.stdint cimport int64_t, uint8_t

from cext.http.message cimport Head, Span

cdef extern from *:
    """
    /* One byte of flags per character, so that a scan is one load and one test per byte. */
    enum { HTTP_TOKEN = 1, HTTP_TARGET = 2, HTTP_HEX = 4, HTTP_NAME = 8 };
    #define HTTP_BOTH (HTTP_TOKEN | HTTP_TARGET)
    static const unsigned char http_class[256] __attribute__((unused)) = {
        ['!'] = HTTP_BOTH, ['"'] = HTTP_TARGET, ['#'] = HTTP_TOKEN,
        ['$'] = HTTP_BOTH, ['%'] = HTTP_BOTH, ['&'] = HTTP_BOTH, ['\\''] = HTTP_BOTH,
        ['('] = HTTP_TARGET, [')'] = HTTP_TARGET, ['*'] = HTTP_BOTH, ['+'] = HTTP_BOTH, [','] = HTTP_TARGET,
        ['-'] = HTTP_BOTH | HTTP_NAME, ['.'] = HTTP_BOTH | HTTP_NAME, ['/'] = HTTP_TARGET,
        ['0' ... '9'] = HTTP_BOTH | HTTP_HEX | HTTP_NAME,
        [':' ... '@'] = HTTP_TARGET,
        ['A' ... 'F'] = HTTP_BOTH | HTTP_HEX | HTTP_NAME, ['G' ... 'Z'] = HTTP_BOTH | HTTP_NAME,
        ['[' ... ']'] = HTTP_TARGET, ['^'] = HTTP_BOTH, ['_'] = HTTP_BOTH | HTTP_NAME, ['`'] = HTTP_BOTH,
        ['a' ... 'f'] = HTTP_BOTH | HTTP_HEX | HTTP_NAME, ['g' ... 'z'] = HTTP_BOTH | HTTP_NAME,
        ['{'] = HTTP_TARGET, ['|'] = HTTP_BOTH, ['}'] = HTTP_TARGET, ['~'] = HTTP_BOTH,
    };
    """
    enum:
        HTTP_TOKEN              # tchar (RFC 9110 section 5.6.2)
        HTTP_TARGET             # what a request target may hold: visible ASCII but "#"
        HTTP_HEX
        HTTP_NAME               # letters, digits, "-", ".", "_": host names
    const uint8_t http_class[256]

cdef extern from "<emmintrin.h>" nogil:     # SSE2: every amd64 has it
    ctypedef struct __m128i:
        pass
    __m128i _mm_loadu_si128(const __m128i *p)
    __m128i _mm_set1_epi8(char c)
    __m128i _mm_setzero_si128()
    __m128i _mm_cmpeq_epi8(__m128i a, __m128i b)
    __m128i _mm_min_epu8(__m128i a, __m128i b)
    __m128i _mm_or_si128(__m128i a, __m128i b)
    __m128i _mm_andnot_si128(__m128i a, __m128i b)
    int _mm_movemask_epi8(__m128i a)

cdef extern from * nogil:
    int __builtin_ctz(unsigned int x)


cdef inline size_t text_end(const uint8_t *p, size_t at, size_t n) noexcept nogil:
    """Index of the first byte from `at` on that no field value may hold (a control other than HTAB), or n."""
    cdef __m128i v, controls, del_, tab
    cdef unsigned int hits
    if at + 16 <= n:
        controls, del_, tab = _mm_set1_epi8(0x1F), _mm_set1_epi8(0x7F), _mm_set1_epi8(9)
        while at + 16 <= n:
            v = _mm_loadu_si128(<const __m128i *> (p + at))
            hits = _mm_movemask_epi8(_mm_or_si128(
                _mm_cmpeq_epi8(v, del_),
                _mm_andnot_si128(_mm_cmpeq_epi8(v, tab), _mm_cmpeq_epi8(_mm_min_epu8(v, controls), v))))
            if hits:
                return at + __builtin_ctz(hits)
            at += 16
    while at < n and ((p[at] >= 0x20 and p[at] != 0x7F) or p[at] == 9):
        at += 1
    return at


cdef inline size_t line_break(const uint8_t *p, size_t at, size_t n) noexcept nogil:
    """Index of the first CR, LF or NUL from `at` on, or n."""
    cdef __m128i v, cr, lf, nul
    cdef unsigned int hits
    if at + 16 <= n:
        cr, lf, nul = _mm_set1_epi8(13), _mm_set1_epi8(10), _mm_setzero_si128()
        while at + 16 <= n:
            v = _mm_loadu_si128(<const __m128i *> (p + at))
            hits = _mm_movemask_epi8(_mm_or_si128(
                _mm_or_si128(_mm_cmpeq_epi8(v, cr), _mm_cmpeq_epi8(v, lf)), _mm_cmpeq_epi8(v, nul)))
            if hits:
                return at + __builtin_ctz(hits)
            at += 16
    while at < n and p[at] != 13 and p[at] != 10 and p[at] != 0:
        at += 1
    return at


cdef int field_id(const uint8_t *name, size_t n) noexcept nogil
"""FieldId of a valid field name; -1 for a name that is one of them but for "_" in place of "-": what reads such
names through CGI variables (WSGI, PHP) cannot tell the two apart, so it must not reach an upstream."""

cdef bint same_name(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil
"""a[:n] equals b[:n] without regard to the case of ASCII letters."""

cdef bint valid_authority(const uint8_t *p, size_t n, bint need_port) noexcept nogil
"""host [":" port] with a DNS name, IPv4 address or bracketed IPv6 address. Narrower than RFC 3986 section 3.2.2:
no userinfo, percent-encoding, sub-delims, empty labels, empty or zero port, so that no later reader of the name
(log, Forwarded, a list in X-Forwarded-Host) can take it apart differently."""

cdef int64_t parse_content_length(const uint8_t *p, size_t n) noexcept nogil
"""1*DIGIT below 2^63, else -1 (RFC 9110 section 8.6)."""

cdef bint claims_origin(const uint8_t *name, size_t n) noexcept nogil
"""Whether a field without a FieldId speaks for a proxy in front: X-Forwarded-* (-Port, -Prefix, -Ssl ...), X-Real-IP,
with "_" for "-" too."""

cdef bint next_member(const uint8_t *p, Span *rest, Span *member) noexcept nogil
"""Takes the next member of the comma-separated list in `rest`, without the whitespace around it; 0 at the list's end."""

cdef bint trailer_forbidden(const uint8_t *name, size_t n) noexcept nogil
"""Whether a field must not come after the content: RFC 9110 section 6.5.1."""

cdef int settle_request(Head *h) noexcept nogil
"""From the parsed lines: path, query, host, framing, keep_alive, expectations, hop-by-hop marks. 0 or -status."""

cdef int settle_response(Head *h, int request_method) noexcept nogil
"""Likewise for a response to request_method; 0 or -502."""
