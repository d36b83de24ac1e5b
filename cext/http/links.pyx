"""Links (see the .pxd)."""

from libc.string cimport memchr, memcmp, memmove

from cext.base.buffer cimport bytes_append, bytes_free, bytes_reserve
from cext.http.rules cimport HTTP_TOKEN, http_class, same_name


cdef size_t next_link(const uint8_t *value, size_t n, size_t at, Link *out) noexcept nogil:
    cdef const uint8_t *end
    cdef size_t name, name_len, start, stop
    cdef bint related = False
    out.len = 0
    while at < n and (value[at] == c" " or value[at] == c"\t" or value[at] == c","):
        at += 1
    if at == n or value[at] != c"<":
        return n
    end = <const uint8_t *> memchr(value + at, c">", n - at)
    if end == NULL:
        return n
    out.text = value + at
    out.target = value + at + 1
    out.target_len = end - out.target
    out.relations = 0
    out.nopush = out.anchored = False
    stop = end - value + 1
    at = blanks(value, n, stop)
    while at < n and value[at] == c";":
        name = blanks(value, n, at + 1)
        stop = at = token_end(value, n, name)
        name_len = at - name
        at = blanks(value, n, at)
        if at < n and value[at] == c"=":
            start = blanks(value, n, at + 1)
            if start < n and value[start] == c'"':
                stop = quoted_end(value, n, start)
                if stop == 0:
                    return n
                if is_name(value + name, name_len, b"rel", 3) and not related:
                    out.relations = relations(value + start + 1, stop - start - 2)
            else:
                stop = token_end(value, n, start)
                if is_name(value + name, name_len, b"rel", 3) and not related:
                    out.relations = relations(value + start, stop - start)
            at = blanks(value, n, stop)
        related |= is_name(value + name, name_len, b"rel", 3)      # only the first counts (RFC 8288, section 3.3)
        out.nopush |= is_name(value + name, name_len, b"nopush", 6)
        out.anchored |= is_name(value + name, name_len, b"anchor", 6)
    if at < n and value[at] != c",":
        return n
    out.len = value + stop - out.text
    return at


cdef size_t blanks(const uint8_t *p, size_t n, size_t at) noexcept nogil:
    while at < n and (p[at] == c" " or p[at] == c"\t"):
        at += 1
    return at


cdef size_t token_end(const uint8_t *p, size_t n, size_t at) noexcept nogil:
    while at < n and http_class[p[at]] & HTTP_TOKEN:
        at += 1
    return at


cdef size_t quoted_end(const uint8_t *p, size_t n, size_t at) noexcept nogil:
    """Behind the quoted-string that begins at `at`; 0 when it has no end."""
    at += 1
    while at < n and p[at] != c'"':
        at += 2 if p[at] == c"\\" else 1
    return at + 1 if at < n else 0


cdef bint is_name(const uint8_t *p, size_t n, const char *name, size_t len) noexcept nogil:
    return n == len and same_name(p, <const uint8_t *> name, len)


cdef uint8_t relations(const uint8_t *p, size_t n) noexcept nogil:
    """Of a list that blanks separate."""
    cdef size_t at = 0, end
    cdef uint8_t found = 0
    while at < n:
        at = blanks(p, n, at)
        end = at
        while end < n and p[end] != c" " and p[end] != c"\t":
            end += 1
        if is_name(p + at, end - at, b"preload", 7):
            found |= LINK_PRELOAD
        elif is_name(p + at, end - at, b"modulepreload", 13):
            found |= LINK_MODULEPRELOAD
        elif is_name(p + at, end - at, b"preconnect", 10):
            found |= LINK_PRECONNECT
        at = end
    return found


# ---- targets ----

cdef int resolve_path(const uint8_t *host, size_t host_len, const uint8_t *base, size_t base_len,
                      const uint8_t *ref, size_t n, Bytes *out) noexcept nogil:
    cdef const uint8_t *mark = <const uint8_t *> memchr(ref, c"#", n) if n else NULL
    cdef size_t kept, path, begin = out.len
    cdef int r
    if mark != NULL:
        n = mark - ref
    if n >= 6 and same_name(ref, <const uint8_t *> b"https:", 6):
        ref += 6
        n -= 6
        if n < 2 or ref[0] != c"/" or ref[1] != c"/":
            return -1
    elif has_scheme(ref, n):
        return -1
    if n == 0:
        return -1
    kept = 0                                    # of the base's path
    if n >= 2 and ref[0] == c"/" and ref[1] == c"/":
        ref += 2
        n -= 2
        if n < host_len or not same_name(ref, host, host_len):
            return -1
        ref += host_len
        n -= host_len
        if n and ref[0] != c"/" and ref[0] != c"?":
            return -1
    elif ref[0] != c"/":
        kept = path_end(base, base_len)
        while ref[0] != c"?" and kept and base[kept - 1] != c"/":
            kept -= 1
    if bytes_reserve(out, kept + n + 1) < 0:
        return -1
    r = bytes_append(out, base, kept) if kept else 0
    if kept == 0 and (n == 0 or ref[0] == c"?"):
        r |= bytes_append(out, b"/", 1)
    r |= bytes_append(out, ref, n) if n else 0
    if r < 0 or out.data[begin] != c"/":
        return -1
    path = path_end(out.data + begin, out.len - begin)
    kept = remove_dot_segments(out.data + begin, path)
    memmove(out.data + begin + kept, out.data + begin + path, out.len - begin - path)
    out.len -= path - kept
    return 0


cdef bint has_scheme(const uint8_t *p, size_t n) noexcept nogil:
    """Whether a colon comes before whatever else may follow a scheme's letters."""
    cdef size_t i
    for i in range(n):
        if p[i] == c":":
            return True
        if p[i] == c"/" or p[i] == c"?":
            return False
    return False


cdef size_t path_end(const uint8_t *p, size_t n) noexcept nogil:
    cdef const uint8_t *mark = <const uint8_t *> memchr(p, c"?", n)
    return mark - p if mark != NULL else n


cdef size_t remove_dot_segments(uint8_t *p, size_t n) noexcept nogil:
    """Of an absolute path, in place -> its new length (RFC 3986, section 5.2.4)."""
    cdef size_t at = 0, to = 0, end, size
    while at < n:
        end = at + 1
        while end < n and p[end] != c"/":
            end += 1
        size = end - at - 1
        if size == 2 and memcmp(p + at + 1, b"..", 2) == 0:
            while to:
                to -= 1
                if p[to] == c"/":
                    break
        elif not (size == 1 and p[at + 1] == c"."):
            memmove(p + to, p + at, end - at)
            to += end - at
            at = end
            continue
        if end == n:                            # "/a/." and "/a/.." are directories
            p[to] = c"/"
            to += 1
        at = end
    return to


# ---- Python faces, for tests ----

def links_of(bytes value):
    """The links of a field's value: (link-value, target, relations, nopush, anchored) for each."""
    cdef const uint8_t *p = <const uint8_t *> <const char *> value
    cdef size_t at = 0
    cdef Link link
    found = []
    while True:
        at = next_link(p, len(value), at, &link)
        if link.len == 0:
            return found
        found.append((link.text[:link.len], link.target[:link.target_len], link.relations, link.nopush, link.anchored))


def resolved(bytes host, bytes base, bytes ref):
    """resolve_path's result, or None."""
    cdef Bytes out
    out.data = NULL
    out.len = out.cap = 0
    try:
        if resolve_path(<const uint8_t *> <const char *> host, len(host), <const uint8_t *> <const char *> base, len(base),
                        <const uint8_t *> <const char *> ref, len(ref), &out) < 0:
            return None
        return out.data[:out.len]
    finally:
        bytes_free(&out)
