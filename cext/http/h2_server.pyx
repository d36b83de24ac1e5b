"""The server's part of HTTP/2 (see the .pxd): requests in, responses and promises out."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset, strlen

from cext.base.arena cimport arena_wake
from cext.base.buffer cimport Bytes, bytes_append, bytes_free, bytes_reserve
from cext.http.h1_reader cimport parse_request
from cext.http.h1_writer cimport ALLOWED, DECIMAL_MAX, passes_soon, reason_phrase
from cext.http.h2_fields cimport set_field, set_length, set_request, set_response, set_status
from cext.http.h2_session cimport H2_INTERNAL_ERROR, H2_NO_ERROR, append_line, content_of
from cext.http.message cimport MAX_FIELDS, METHOD_CONNECT, Head, Limits
from cext.http.rules cimport HTTP_TOKEN, http_class, same_name
from cext.lib.nghttp2 cimport *


cdef class H2Server(H2Session):
    """Made by `open`."""

    cdef int open(self, const H2Settings *settings, const Limits *limits, Head *scratch) except -1:
        cdef nghttp2_settings_entry iv[5]
        cdef size_t n = 4
        iv[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        iv[0].value = settings.max_streams
        iv[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        iv[1].value = settings.stream_window
        iv[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        iv[2].value = settings.max_header_list
        iv[3].settings_id = NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES      # RFC 9218's take their place
        iv[3].value = 1
        if settings.connect_protocol:
            iv[n].settings_id = NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL
            iv[n].value = 1
            n += 1
        return self.start(True, iv, n, settings, limits, scratch)

    # --- requests

    cdef H2Stream *opened(self, int32_t id) noexcept:
        cdef H2Stream *s = self.new_stream(id)
        if s == NULL:
            return NULL
        if nghttp2_session_set_stream_user_data(self.session, id, s) != 0:
            self.forget(s)
            return NULL
        self.last_id = max(self.last_id, id)
        return s

    cdef int take_line(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept:
        cdef int r = 0
        if n == 6 and memcmp(name, b"cookie", 6) == 0:
            if s.cookie.len:
                r |= bytes_append(&s.cookie, b"; ", 2)
            r |= bytes_append(&s.cookie, value, m)
        elif n == 4 and memcmp(name, b"host", 4) == 0 and s.authority_len:
            # Two names of the origin must be the same one (section 8.3.1).
            if m != s.authority_len or not same_name(value, s.head.data + s.authority_at, m):
                s.refused = 400
        else:
            return H2Session.take_line(self, s, name, n, value, m)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE if r < 0 else 0

    cdef int take_pseudo(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept:
        cdef uint32_t at = <uint32_t> s.head.len
        if at + m > self.limits.head:
            s.refused = 431
            return 0
        if n == 7 and memcmp(name, b":method", 7) == 0:
            s.method_at, s.method_len = at, <uint32_t> m
        elif n == 5 and memcmp(name, b":path", 5) == 0:
            s.path_at, s.path_len = at, <uint32_t> m
        elif n == 10 and memcmp(name, b":authority", 10) == 0:
            s.authority_at, s.authority_len = at, <uint32_t> m
        elif n == 9 and memcmp(name, b":protocol", 9) == 0:
            s.protocol_at, s.protocol_len = at, <uint32_t> m
        else:                                   # :scheme; nghttp2 has refused all others
            return 0
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE if bytes_append(&s.head, value, m) < 0 else 0

    cdef void finish_head(self, H2Stream *s) noexcept:
        """The block of a request's head has ended."""
        cdef Bytes text
        cdef Head *h = self.scratch
        cdef size_t n
        cdef int r
        s.head_whole = True
        self.served = True
        memset(&text, 0, sizeof(text))
        r = -<int> s.refused
        s.head_only = s.method_len == 4 and memcmp(s.head.data + s.method_at, b"HEAD", 4) == 0
        if r == 0 and s.path_len and s.head.data[s.path_at] != c"/" and s.head.data[s.path_at] != c"*":
            r = -400                            # an absolute-form would speak of another authority
        if r == 0 and s.protocol_len and (s.has_length or not is_protocol(s.head.data + s.protocol_at, s.protocol_len)):
            r = -400
        if r == 0:
            r = self.write_head(s, &text)
        if r == 0:
            n = text.len
            if s.protocol_len and (bytes_append(&text, b"CONNECT", 7) < 0
                                   or bytes_append(&text, s.head.data + s.protocol_at, s.protocol_len) < 0):
                r = -500
            else:
                r = parse_request(text.data, n, &self.limits, h)
                if s.protocol_len:
                    h.method = METHOD_CONNECT
                    h.method_name.off, h.method_name.len = <uint32_t> n, 7
                    h.protocol.off, h.protocol.len = <uint32_t> n + 7, s.protocol_len
        bytes_free(&s.head)
        bytes_free(&s.cookie)
        if r < 0:
            self.on_refused(s, -r)
        else:
            self.on_request(s, h, s.peer_ended)
        bytes_free(&text)

    cdef int write_head(self, H2Stream *s, Bytes *text) noexcept nogil:
        """The head as HTTP/1.1 has it, that of an extended CONNECT as if it were a GET: their target has the same form, and
        neither has content. 0 or -500."""
        cdef size_t lines = s.head.len - s.lines_at if s.lines_at else 0
        cdef uint8_t *base = s.head.data
        cdef int r = bytes_reserve(text, s.head.len + s.cookie.len + 128)
        if s.protocol_len:
            r |= bytes_append(text, b"GET", 3)
        else:
            r |= bytes_append(text, base + s.method_at, s.method_len)
        r |= bytes_append(text, b" ", 1)
        if s.path_len:
            r |= bytes_append(text, base + s.path_at, s.path_len)
        else:                                   # CONNECT's target is the authority (section 8.5)
            r |= bytes_append(text, base + s.authority_at, s.authority_len)
        r |= bytes_append(text, b" HTTP/1.1\r\n", 11)
        if s.authority_len:
            r |= append_line(text, b"Host", 4, base + s.authority_at, s.authority_len)
        r |= bytes_append(text, base + s.lines_at, lines)
        if s.cookie.len:
            r |= append_line(text, b"cookie", 6, s.cookie.data, s.cookie.len)
        if not s.peer_ended and not s.has_length and not s.protocol_len:
            r |= append_line(text, b"Transfer-Encoding", 17, b"chunked", 7)
        r |= bytes_append(text, b"\r\n", 2)
        return -500 if r < 0 else 0

    cdef void finish_message(self, H2Stream *s) noexcept:
        self.on_request_end(s)

    # --- responses

    cdef int respond(self, H2Stream *s, const Head *h, const char *date, bint content) noexcept:
        cdef nghttp2_nv nv[MAX_FIELDS + 3]
        cdef uint8_t status[3]
        cdef uint8_t length[DECIMAL_MAX]
        cdef size_t n = set_response(nv, status, h)
        s.tunnel = s.protocol_len and h.status // 100 == 2
        if h.content_length >= 0 and h.status != 204 and not s.tunnel:
            set_length(&nv[n], length, <uint64_t> h.content_length)
            n += 1
        if not h.has_date and date != NULL:
            set_field(&nv[n], b"date", 4, <const uint8_t *> date, strlen(date))
            n += 1
        return self.submit(s, nv, n, content)

    cdef int submit(self, H2Stream *s, const nghttp2_nv *nv, size_t n, bint content) noexcept:
        cdef nghttp2_data_provider provider = content_of(s)
        s.body_done = not content
        if nghttp2_submit_response(self.session, s.id, nv, n, &provider if content else NULL) != 0:
            self.reset(s, H2_INTERNAL_ERROR)
            return -1
        return 0

    cdef int respond_interim(self, H2Stream *s, const Head *h) noexcept:
        cdef nghttp2_nv nv[MAX_FIELDS + 1]
        cdef uint8_t status[3]
        cdef size_t n = set_response(nv, status, h)
        return 0 if nghttp2_submit_headers(self.session, NGHTTP2_FLAG_NONE, s.id, NULL, nv, n, NULL) == 0 else -1

    cdef int respond_simple(self, H2Stream *s, int status, const char *date, const char *text, bint head_only) noexcept:
        """As h1_writer's write_simple."""
        cdef nghttp2_nv nv[5]
        cdef uint8_t digits[3]
        cdef uint8_t length[DECIMAL_MAX]
        cdef size_t n = 2
        cdef bint content = not head_only and status != 204
        if text == NULL:
            text = reason_phrase(status)
        set_status(&nv[0], digits, status)
        set_field(&nv[1], b"date", 4, <const uint8_t *> date, strlen(date))
        if status == 405 or status == 204:      # CONNECT and TRACE refused, OPTIONS answered
            set_field(&nv[n], b"allow", 5, <const uint8_t *> ALLOWED, strlen(ALLOWED))
            n += 1
        elif passes_soon(status):
            set_field(&nv[n], b"retry-after", 11, <const uint8_t *> b"1", 1)
            n += 1
        if status != 204:
            set_field(&nv[n], b"content-type", 12, b"text/plain; charset=utf-8", 25)
            set_length(&nv[n + 1], length, strlen(text) + 1)
            n += 2
        if content and (self.append(s, <const uint8_t *> text, strlen(text)) < 0
                        or self.append(s, <const uint8_t *> b"\n", 1) < 0):
            return -1
        if self.submit(s, nv, n, content) < 0:
            return -1
        s.body_done = True
        return 0

    cdef void frame_sent(self, const nghttp2_frame *frame) noexcept:
        """The end of a response to a request that still goes on: the rest of it is not wanted (section 8.1)."""
        cdef H2Stream *s
        if frame.hd.type == NGHTTP2_PUSH_PROMISE:
            s = <H2Stream *> nghttp2_session_get_stream_user_data(self.session, frame.push_promise.promised_stream_id)
            if s != NULL:
                self.promised(s)
            return
        if frame.hd.type != NGHTTP2_DATA and frame.hd.type != NGHTTP2_HEADERS:
            return
        if not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            return
        s = <H2Stream *> nghttp2_session_get_stream_user_data(self.session, frame.hd.stream_id)
        if s != NULL and not s.peer_ended and not s.tunnel:
            s.unread = True
            self.note_drained(s)

    cdef void on_unread(self, H2Stream *s) noexcept:
        """Behind what else is sent now, not with it: a client that reads the reset together with the response may show
        its user no response (curl 7.88 does so)."""
        self.reset(s, H2_NO_ERROR)
        self.on_reset_due()

    cdef void frame_not_sent(self, const nghttp2_frame *frame) noexcept:
        """A head that nghttp2 cannot send leaves its stream without an end; a promise, one that never begins."""
        cdef H2Stream *s = self.streams
        if frame.hd.type == NGHTTP2_HEADERS:
            s = <H2Stream *> nghttp2_session_get_stream_user_data(self.session, frame.hd.stream_id)
            if s != NULL and not s.reset_by_us:
                self.reset(s, H2_INTERNAL_ERROR)
        elif frame.hd.type == NGHTTP2_PUSH_PROMISE:
            while s != NULL and s.id != frame.push_promise.promised_stream_id:
                s = s.next
            # Where nghttp2 has opened the stream already, it closes it now.
            if s != NULL and nghttp2_session_get_stream_user_data(self.session, s.id) == NULL:
                self.forget(s)

    # --- promises

    cdef bint takes_promises(self) noexcept nogil:
        return (not self.warned and not self.draining and not self.failed
                and nghttp2_session_get_remote_settings(self.session, NGHTTP2_SETTINGS_ENABLE_PUSH) == 1)

    cdef int promise(self, H2Stream *parent, Bytes *text) noexcept:
        cdef nghttp2_nv nv[MAX_FIELDS + 4]
        cdef Head *h = self.scratch
        cdef size_t n
        cdef int32_t id
        cdef H2Stream *s
        if parse_request(text.data, text.len, &self.limits, h) < 0:
            return -1
        n = set_request(nv, h, b"https", 5)
        s = self.new_stream(0)
        if s == NULL:
            return -1
        id = nghttp2_submit_push_promise(self.session, NGHTTP2_FLAG_NONE, parent.id, nv, n, s)
        if id < 0:
            self.forget(s)
            return -1
        s.id = id
        s.pushed = s.head_whole = s.peer_ended = True
        s.head = text[0]
        memset(text, 0, sizeof(Bytes))
        return 0

    cdef void promised(self, H2Stream *s) noexcept:
        """The promise has been sent: its request is served as any other."""
        cdef Bytes text = s.head
        memset(&s.head, 0, sizeof(Bytes))
        if parse_request(text.data, text.len, &self.limits, self.scratch) == 0:
            self.on_request(s, self.scratch, True)
        bytes_free(&text)

    cdef void warn(self) noexcept:
        if not self.warned and not self.draining:
            self.warned = True
            arena_wake(&self.arena)
            nghttp2_submit_shutdown_notice(self.session)

    # --- for the consumer to override

    cdef void on_request(self, H2Stream *s, Head *h, bint ended) noexcept:
        """A request; h is valid during the call. With `ended` no content follows."""

    cdef void on_refused(self, H2Stream *s, int status) noexcept:
        """A head that is no request: to be answered with `status`."""

    cdef void on_request_end(self, H2Stream *s) noexcept:
        """All of the request has come; s.trailers is what followed the content."""

    cdef void on_reset_due(self) noexcept:
        """send_all is to be called once more, when what it gave has gone."""


cdef bint is_protocol(const uint8_t *p, size_t n) noexcept nogil:
    """Whether p[:n] has the form of an upgrade token (RFC 9110, section 7.8), which :protocol holds."""
    cdef size_t i
    for i in range(n):
        if not http_class[p[i]] & HTTP_TOKEN and p[i] != c"/":
            return False
    return True
