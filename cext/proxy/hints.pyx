"""Early Hints (see the .pxd).

A hint is sent before anything is known of the response, so it must be one that anybody may see. What is learned comes
from responses that a shared cache could keep, to requests that say nothing of who asks, and never from one with a query:
it is for the path whatever the query is, and a page that repeats its query in a link would speak to others.
"""

from collections import OrderedDict

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp, strlen

from cext.http.h1_reader cimport parse_request, parse_response
from cext.http.h1_writer cimport request_text
from cext.http.links cimport Link, next_link
from cext.http.message cimport FIELD_LINK, METHOD_GET, Field, Limits, Span
from cext.http.rules cimport same_name, text_end

cdef enum:
    LINKS_MAX = 32              # in one 103
    TEXT_MAX = 4096             # bytes of it
    KEY_MAX = 1024              # bytes of a host and path that something is learned of

cdef enum Lesson:
    NOTHING = 0                 # the response is somebody's own, or says nothing of the page
    FORGET = 1
    LEARN = 2

cdef bytes START = b"HTTP/1.1 103 Early Hints\r\n"

cdef Head parsed
cdef bytes parsed_text = None
cdef Limits limits
limits.line = TEXT_MAX
limits.head = 65536
limits.fields = 256


cdef class HintTable:
    """HintTable(size): room for so many pages."""

    def __init__(self, Py_ssize_t size=1024):
        self.size = size
        self.entries = OrderedDict()


cdef class EarlyHints:
    """EarlyHints(links=(b"</style.css>; rel=preload; as=style", ...), table=None, remember_ms=3600000, http1=False)

    ValueError for what is not exactly one link-value that clients act on, or for more than fits a 103.
    """

    def __init__(self, links=(), HintTable table=None, *, uint64_t remember_ms=3600000, bint http1=False):
        cdef Link link
        cdef const uint8_t *p
        cdef size_t n
        for text in links:
            p = <const uint8_t *> <const char *> <bytes> text
            n = len(<bytes> text)
            if text_end(p, 0, n) != n or next_link(p, n, 0, &link) != n or link.len != n:
                raise ValueError(f"{text!r} is not one link")
            if link.relations == 0 or link.anchored or link.target_len == 0:
                raise ValueError(f"{text!r} names nothing to be fetched early")
        self.links = tuple(links)
        self.head = compose(self.links) if links else None
        if links and (self.head is None or parse_interim(self.head) == NULL):
            raise ValueError(f"at most {LINKS_MAX} links, and {TEXT_MAX} bytes, go into a 103")
        self.table = table
        self.remember_ms = remember_ms
        self.http1 = http1

    cdef bytes find(self, const Head *request, bint http2, uint64_t now):
        if request.method != METHOD_GET or request.minor == 0 or not (http2 or self.http1) or not navigates(request):
            return None
        if request.upgrade.len:     # who waits for a 101 may take the first response for the answer
            return None
        if self.table is None:
            return self.head
        entries = self.table.entries
        key = key_of(request.base + request.host.off, request.host.len, request.base + request.path.off, request.path.len)
        entry = entries.get(key)
        if entry is None:
            return self.head
        if entry[1] <= now:
            del entries[key]
            return self.head
        entries.move_to_end(key)
        return entry[0]

    cdef void learn(self, const RequestText *request, const Head *response, uint64_t now) noexcept:
        cdef int lesson
        cdef bytes text = None
        if self.table is None or memchr(request.target, c"?", request.target_len) != NULL:
            return
        lesson = lesson_of(request, response)
        if lesson == NOTHING:
            return
        entries = self.table.entries
        key = key_of(request.host, request.host_len, request.target, request.target_len)
        if key is None:
            return
        if lesson == LEARN:
            found = self.new_links(response)
            text = compose(self.links + tuple(found)) if found else None
        if text is None:
            entries.pop(key, None)
            return
        entries[key] = (text, now + self.remember_ms)
        entries.move_to_end(key)
        if len(entries) > self.table.size:
            entries.popitem(last=False)

    cdef list new_links(self, const Head *response):
        """Links to be fetched early that a response has and the configuration has not, as many as there is room for."""
        cdef Link link
        cdef const uint8_t *value
        cdef size_t at, n
        cdef size_t room = TEXT_MAX - (len(self.head) if self.head is not None else len(START) + 2)
        cdef uint32_t i
        cdef list found = []
        cdef bytes text
        for i in range(response.n_fields):
            if response.fields[i].id != FIELD_LINK:
                continue
            value = response.base + response.fields[i].value.off
            n = response.fields[i].value.len
            at = 0
            while True:
                at = next_link(value, n, at, &link)
                if link.len == 0:
                    break
                if link.relations == 0 or link.anchored or link.target_len == 0 or link.len + 8 > room:
                    continue
                if len(found) + len(self.links) == LINKS_MAX or (self.head is not None and names(self.head, &link)):
                    continue
                text = link.text[:link.len]
                if text not in found:
                    found.append(text)
                    room -= link.len + 8
        return found

    # Python faces of find and learn, for tests: heads as text.

    def answer(self, bytes request, uint64_t now, bint http2=True):
        cdef Head h
        if parse_request(<const uint8_t *> <const char *> request, len(request), &limits, &h) < 0:
            raise ValueError("no request")
        return self.find(&h, http2, now)

    def study(self, bytes host, bytes target, bytes lines, bytes response, uint64_t now):
        cdef Head h
        cdef bytes head = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + lines + b"\r\n"
        cdef RequestText asked = request_text(<const uint8_t *> <const char *> head, len(head), 3, len(target), len(host))
        if parse_response(<const uint8_t *> <const char *> response, len(response), &limits, METHOD_GET, &h) < 0:
            raise ValueError("no response")
        self.learn(&asked, &h, now)


cdef bytes compose(tuple links):
    """The head of a 103; None when it is too large."""
    text = START + b"".join([b"Link: " + link + b"\r\n" for link in links]) + b"\r\n"
    return text if len(links) <= LINKS_MAX and len(text) <= TEXT_MAX else None


cdef bytes key_of(const uint8_t *host, size_t host_len, const uint8_t *target, size_t n):
    """Host and path; None when they are too long to be kept."""
    cdef const uint8_t *query = <const uint8_t *> memchr(target, c"?", n)
    if query != NULL:
        n = query - target
    if host_len + n > KEY_MAX:
        return None
    return PyBytes_FromStringAndSize(<const char *> host, host_len).lower() + target[:n]


cdef bint navigates(const Head *request) noexcept nogil:
    """Browsers use hints for the page that a window is about to show, and say of every request what it is for; who does
    not say gets them."""
    cdef uint32_t i
    cdef const Field *field
    for i in range(request.n_fields):
        field = &request.fields[i]
        if is_text(request, &field.name, b"sec-fetch-mode"):
            return is_text(request, &field.value, b"navigate")
    return True


cdef bint is_text(const Head *h, const Span *span, const char *text) noexcept nogil:
    return span.len == strlen(text) and same_name(h.base + span.off, <const uint8_t *> text, span.len)


# ---- what may be learned ----

cdef int lesson_of(const RequestText *request, const Head *response) noexcept nogil:
    cdef bint public = False
    cdef bint own = False
    cdef bint links = False
    cdef int status = response.status
    cdef uint32_t i
    cdef const Field *field
    cdef const uint8_t *value
    if status != 200 and status != 404 and status != 410 and not 300 <= status < 304 and status != 307 and status != 308:
        return NOTHING
    for i in range(response.n_fields):
        field = &response.fields[i]
        value = response.base + field.value.off
        if field.id == FIELD_LINK:
            links = True
        elif is_text(response, &field.name, b"cache-control"):
            public |= lists(value, field.value.len, b"public") or lists(value, field.value.len, b"s-maxage")
            own |= lists(value, field.value.len, b"private") or lists(value, field.value.len, b"no-store")
        elif is_text(response, &field.name, b"vary"):
            own |= varies(value, field.value.len)
        elif is_text(response, &field.name, b"set-cookie"):
            own = True
    if not public and tells_who(request):
        return NOTHING
    return LEARN if status == 200 and links and not own else FORGET


cdef bint tells_who(const RequestText *request) noexcept nogil:
    """Whether the request carries what a response may be made for its sender by."""
    cdef const uint8_t *p = request.lines
    cdef const uint8_t *stop = p + request.lines_len
    while p < stop:
        if begins(p, stop - p, b"cookie:") or begins(p, stop - p, b"authorization:"):
            return True
        p = <const uint8_t *> memchr(p, c"\n", stop - p) + 1
    return False


cdef bint begins(const uint8_t *p, size_t n, const char *name) noexcept nogil:
    cdef size_t len = strlen(name)
    return n >= len and same_name(p, <const uint8_t *> name, len)


cdef size_t next_item(const uint8_t *p, size_t n, size_t at, size_t *begin, size_t *end) noexcept nogil:
    """The next item's name in a list, without what follows it by "=" (it may be empty) -> where to go on."""
    while at < n and (p[at] == c"," or p[at] == c" " or p[at] == c"\t"):
        at += 1
    begin[0] = at
    while at < n and p[at] != c"," and p[at] != c"=" and p[at] != c" " and p[at] != c"\t":
        at += 1
    end[0] = at
    while at < n and p[at] != c",":
        at += 1
        if p[at - 1] == c'"':               # a quoted-string may hold commas
            while at < n and p[at] != c'"':
                at += 2 if p[at] == c"\\" else 1
            at += 1
    return min(at, n)


cdef bint lists(const uint8_t *p, size_t n, const char *name) noexcept nogil:
    cdef size_t at = 0, begin = 0, end = 0
    while at < n:
        at = next_item(p, n, at, &begin, &end)
        if end - begin == strlen(name) and same_name(p + begin, <const uint8_t *> name, end - begin):
            return True
    return False


cdef bint varies(const uint8_t *p, size_t n) noexcept nogil:
    """Whether a Vary names more than what says nothing of the page itself."""
    cdef size_t at = 0, begin = 0, end = 0
    while at < n:
        at = next_item(p, n, at, &begin, &end)
        if begin < end and not (end - begin == 15 and same_name(p + begin, <const uint8_t *> b"accept-encoding", 15)
                                or end - begin == 6 and same_name(p + begin, <const uint8_t *> b"origin", 6)):
            return True
    return False


# ---- heads ----

cdef const Head *parse_interim(bytes text) noexcept:
    global parsed_text
    parsed_text = text                      # what the spans point into
    if parse_response(<const uint8_t *> <const char *> text, len(text), &limits, METHOD_GET, &parsed) < 0:
        return NULL
    return &parsed


cdef bint names(bytes head, const Link *wanted) noexcept:
    """Whether a 103 of ours has a link with the same target and relations."""
    cdef const uint8_t *p = <const uint8_t *> <const char *> head + len(START)
    cdef const uint8_t *stop = <const uint8_t *> <const char *> head + len(head) - 2
    cdef const uint8_t *end
    cdef Link link
    while p < stop:
        end = <const uint8_t *> memchr(p, c"\r", stop - p)
        next_link(p + 6, end - p - 6, 0, &link)
        if (link.relations == wanted.relations and link.target_len == wanted.target_len
                and memcmp(link.target, wanted.target, link.target_len) == 0):
            return True
        p = end + 2
    return False


cdef const Head *without_known(const Head *interim, bytes sent) noexcept:
    cdef Link link
    cdef const Field *field
    cdef const uint8_t *value
    cdef size_t at
    cdef uint32_t i
    cdef bint dropped = False
    cdef list lines = [START]
    cdef list links = []
    for i in range(interim.n_fields):
        field = &interim.fields[i]
        value = interim.base + field.value.off
        if field.id != FIELD_LINK:
            lines.append(interim.base[field.name.off:field.name.off + field.name.len] + b": " + value[:field.value.len] + b"\r\n")
            continue
        at = 0
        while True:
            at = next_link(value, field.value.len, at, &link)
            if link.len == 0:
                break
            if names(sent, &link):
                dropped = True
            else:
                links.append(b"Link: " + link.text[:link.len] + b"\r\n")
    if not dropped:
        return interim
    if not links:
        return NULL
    rest = b"".join(lines + links) + b"\r\n"
    return parse_interim(rest)


def rest_of(bytes interim, bytes sent):
    """Python face of without_known, for tests -> (Link values, other fields) of what is left, or None."""
    cdef Head h
    cdef const Head *rest
    cdef const Field *field
    cdef uint32_t i
    cdef list links = []
    cdef list others = []
    if parse_response(<const uint8_t *> <const char *> interim, len(interim), &limits, METHOD_GET, &h) < 0:
        raise ValueError("no response")
    rest = without_known(&h, sent)
    if rest == NULL:
        return None
    for i in range(rest.n_fields):
        field = &rest.fields[i]
        value = rest.base[field.value.off:field.value.off + field.value.len]
        if field.id == FIELD_LINK:
            links.append(value)
        else:
            others.append((rest.base[field.name.off:field.name.off + field.name.len], value))
    return links, others
