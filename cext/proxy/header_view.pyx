"""Fields for hooks (see the .pxd).

What a hook writes is held to what a client's or server's bytes are held to: it is a name of tchar, and a value without
control characters. Beyond that it cannot touch what says where a message ends and whose connection it is on, nor what
edge itself tells its upstreams of the client.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cython cimport freelist
from libc.stdint cimport uint32_t

from cext.http.message cimport (
    FIELD_DATE,
    FIELD_FORWARDED,
    FIELD_HOST,
    FIELD_LINK,
    FIELD_OTHER,
    FIELD_SERVER,
    FIELD_TRACEPARENT,
    FIELD_TRACESTATE,
    FIELD_VIA,
    FIELD_X_FORWARDED_FOR,
    FIELD_X_FORWARDED_HOST,
    FIELD_X_FORWARDED_PROTO,
    Field,
)
from cext.http.rules cimport HTTP_TOKEN, claims_origin, field_id, http_class, same_name, text_end

from cext.proxy.hooks import RequestOver

cdef enum:
    NAME_MAX = 256
    VALUE_MAX = 32768


cdef str latin1(const void *p, size_t n):
    return PyBytes_FromStringAndSize(<const char *> p, n).decode("latin-1")


cdef class HeadView(Overseer):
    cdef int keep(self) noexcept:
        cdef HeadCopy copy
        if self.own is not None:
            return 0
        copy = HeadCopy.__new__(HeadCopy)
        if copy.copy(self.head) < 0:
            return -1
        self.own = copy
        self.head = copy.head
        return 0

    cdef HeadCopy change(self):
        if self.head == NULL:
            raise RequestOver("too late: the head has been passed on")
        if self.keep() < 0:
            raise MemoryError
        self.changed = True
        return self.own

    cdef void end(self) noexcept:
        self.head = NULL
        self.own = None

    cdef const Head *shown(self) except NULL:
        if self.head == NULL:
            raise RequestOver("the headers are gone")
        return self.head


@freelist(16)
cdef class Headers:
    """The fields of a request or a response: names in whatever case, values as str (Latin-1).

    headers["name"] joins the values of fields with that name by ", " (RFC 9110, section 5.3); dict(headers) copies all.
    headers["name"] = value replaces them by one field, headers.add() puts one more behind all others, del and pop() take
    them away; what is written is looked at, and ValueError raised for what cannot stand there.
    """

    cdef list values_of(self, name):
        cdef const Head *h = self.view.shown()
        cdef const Field *field
        cdef bytes wanted
        cdef uint32_t i
        cdef list found = []
        if not isinstance(name, str):
            raise TypeError(f"a header's name is a str, not {type(name).__name__}")
        wanted = (<str> name).encode("latin-1", "replace")
        for i in range(h.n_fields):
            field = &h.fields[i]
            if field.name.len == <uint32_t> len(wanted) and same_name(
                    h.base + field.name.off, <const uint8_t *> <const char *> wanted, field.name.len):
                found.append(latin1(h.base + field.value.off, field.value.len))
        return found

    def __getitem__(self, name):
        found = self.values_of(name)
        if not found:
            raise KeyError(name)
        return joined(name, found)

    def get(self, name, default=None):
        found = self.values_of(name)
        return joined(name, found) if found else default

    def get_all(self, name):
        """The value of each field with that name, in order."""
        return self.values_of(name)

    def __contains__(self, name):
        return bool(self.values_of(name))

    def keys(self):
        """The names in lower case, each once, in order."""
        return list(dict.fromkeys(name for name, _ in self.lines()))

    def lines(self):
        """(name in lower case, value) of each field, in order."""
        cdef const Head *h = self.view.shown()
        cdef const Field *field
        cdef uint32_t i
        cdef list found = []
        for i in range(h.n_fields):
            field = &h.fields[i]
            found.append((latin1(h.base + field.name.off, field.name.len).lower(),
                          latin1(h.base + field.value.off, field.value.len)))
        return found

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self.keys())

    def items(self):
        return [(name, self[name]) for name in self.keys()]

    # ---- changes

    def __setitem__(self, name, value):
        cdef HeadView view = self.view
        cdef int field
        cdef bytes key = writable_name(view, name, &field)
        cdef bytes text = field_value(key, value)
        view.change().remove(<const uint8_t *> <const char *> key, len(key))
        put(view, key, text, field)

    def add(self, name, value):
        """One more field of that name, whether there are any or none."""
        cdef int field
        cdef bytes key = writable_name(self.view, name, &field)
        put(self.view, key, field_value(key, value), field)

    def __delitem__(self, name):
        cdef int field
        cdef bytes key = writable_name(self.view, name, &field)
        if self.view.change().remove(<const uint8_t *> <const char *> key, len(key)) == 0:
            raise KeyError(name)

    def pop(self, name, default=None):
        """Takes all fields of that name away -> their joined value, or the default when there are none."""
        cdef int field
        cdef bytes key = writable_name(self.view, name, &field)
        found = self.values_of(name)
        self.view.change().remove(<const uint8_t *> <const char *> key, len(key))
        return joined(name, found) if found else default


cdef str joined(str name, list values):
    return values[0] if len(values) == 1 else ("; " if name.lower() == "cookie" else ", ").join(values)


cdef int put(HeadView view, bytes name, bytes value, int field) except -1:
    cdef HeadCopy own = view.change()
    cdef int r = own.add(<const uint8_t *> <const char *> name, len(name),
                         <const uint8_t *> <const char *> value, len(value), field)
    view.head = own.head                    # it may have grown out of its place
    if r < 0:
        raise ValueError(f"{name.decode()}: there is no room for it in the head")
    return 0


cdef bytes writable_name(HeadView view, name, int *field):
    cdef bytes key = field_name(name, view.of_request, field)
    cdef int id = field[0]
    cdef bint ours
    if view.of_request:
        ours = view.forwards and (id == FIELD_X_FORWARDED_FOR or id == FIELD_X_FORWARDED_HOST
                                  or id == FIELD_X_FORWARDED_PROTO
                                  or id == FIELD_OTHER and claims_origin(<const uint8_t *> <const char *> key, len(key)))
        if ours or view.forwards_standard and id == FIELD_FORWARDED:
            raise ValueError(f"{name}: edge tells the upstream itself whom it asks for (`forwarded` of the listener)")
    return key


cdef bytes field_name(name, bint of_request, int *field):
    cdef bytes key
    cdef const uint8_t *p
    cdef Py_ssize_t i
    if not isinstance(name, str):
        raise TypeError(f"a header's name is a str, not {type(name).__name__}")
    key = (<str> name).encode("latin-1", "replace")
    p = <const uint8_t *> <const char *> key
    if not 0 < len(key) <= NAME_MAX:
        raise ValueError(f"a header's name has 1 to {NAME_MAX} characters, not {len(key)}")
    for i in range(len(key)):
        if not http_class[p[i]] & HTTP_TOKEN:
            raise ValueError(f"{name!r} is no name of a header")
    field[0] = field_id(p, len(key))
    if field[0] < 0:
        raise ValueError(f"{name}: write it with '-'")
    if field[0] == FIELD_HOST and of_request:
        raise ValueError(f"{name}: set request.host")
    if not may_be_written(field[0]) or of_request and same_name_as(p, len(key), b"sec-websocket-key"):
        raise ValueError(f"{name}: it says what edge and its peer do with the connection: edge writes it itself")
    return key


cdef bint may_be_written(int field) noexcept nogil:
    """Framing, connection options and what goes no further than the next hop are not for hooks; of the names that rules
    speak of these are the others."""
    return (field == FIELD_OTHER or field == FIELD_X_FORWARDED_FOR or field == FIELD_X_FORWARDED_HOST
            or field == FIELD_X_FORWARDED_PROTO or field == FIELD_FORWARDED or field == FIELD_DATE
            or field == FIELD_SERVER or field == FIELD_LINK or field == FIELD_VIA or field == FIELD_TRACEPARENT
            or field == FIELD_TRACESTATE)


cdef bint same_name_as(const uint8_t *p, size_t n, bytes name) noexcept:
    return n == <size_t> len(name) and same_name(p, <const uint8_t *> <const char *> name, n)


cdef bytes field_value(bytes name, value):
    cdef bytes text
    if not isinstance(value, str):
        raise TypeError(f"{name.decode()}: a header's value is a str, not {type(value).__name__}")
    try:
        text = (<str> value).strip(" \t").encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{name.decode()}: a header's value consists of bytes: characters up to U+00FF") from None
    if text_end(<const uint8_t *> <const char *> text, 0, len(text)) != <size_t> len(text):
        raise ValueError(f"{name.decode()}: control characters cannot stand in a header's value")
    if len(text) > VALUE_MAX:
        raise ValueError(f"{name.decode()}: a header's value has at most {VALUE_MAX} bytes, not {len(text)}")
    return text
