"""The asking end of HTTP/2 (see the .pxd): requests out, responses in.

A backend is trusted with the content of its responses and with nothing else: what it sends is bounded as a client's is.
"""

from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint32_t
from libc.string cimport memset, strlen

from cext.base.buffer cimport Bytes, bytes_append, bytes_free, bytes_reserve
from cext.http.h1_reader cimport parse_request, parse_response
from cext.http.h1_writer cimport reason_phrase
from cext.http.h2_fields cimport set_field, set_request
from cext.http.h2_session cimport H2_CANCEL, H2_PROTOCOL_ERROR, H2_REFUSED_STREAM, append_line, content_of
from cext.http.message cimport INTERIMS_MAX, MAX_FIELDS, METHOD_CONNECT, METHOD_HEAD, Head, Limits
from cext.http.rules cimport same_name
from cext.lib.nghttp2 cimport *

cdef enum:
    STATUS_LENGTH = 3
    COST_REFUSAL = 1                    # a reset of what we opened ourselves
    EARNED_BY_REQUEST = 2               # what ends its stream, and that the peer opens a window for it

cdef Limits OF_REQUESTS                 # which were read by narrower ones
OF_REQUESTS.line = OF_REQUESTS.head = UINT32_MAX
OF_REQUESTS.fields = MAX_FIELDS

cdef Head asked                         # within request(), which may be called while `scratch` holds a response


cdef class H2Requester(H2Session):
    """Made by `open`."""

    cdef int open(self, const H2Settings *settings, const Limits *limits, Head *scratch) except -1:
        cdef nghttp2_settings_entry iv[3]
        iv[0].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
        iv[0].value = 0
        iv[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        iv[1].value = settings.stream_window
        iv[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        iv[2].value = settings.max_header_list
        self.most = settings.max_streams
        self.start(False, iv, 3, settings, limits, scratch)
        # Streams are of many clients: those who take nothing must not close the window of the others, so what is held
        # is bounded by each stream's window alone.
        self.window = <size_t> settings.max_streams * settings.stream_window
        return 0

    # --- requests

    cdef uint32_t room(self) noexcept nogil:
        cdef uint32_t most
        if self.failed or self.draining or self.left or not nghttp2_session_check_request_allowed(self.session):
            return 0
        most = min(self.most, nghttp2_session_get_remote_settings(self.session,
                                                                  NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS))
        return most - self.n_streams if most > self.n_streams else 0

    cdef H2Stream *request(self, const Bytes *text, bint https, bint content) noexcept:
        cdef nghttp2_nv nv[MAX_FIELDS + 5]
        cdef Head *h = &asked
        cdef H2Stream *s
        cdef nghttp2_data_provider provider
        cdef size_t n
        if self.room() == 0 or parse_request(text.data, text.len, &OF_REQUESTS, h) < 0 or h.method == METHOD_CONNECT:
            return NULL
        n = set_request(nv, h, b"https" if https else b"http", 5 if https else 4)
        if h.te_trailers:
            set_field(&nv[n], b"te", 2, b"trailers", 8)
            n += 1
        keep_secret(nv, n)
        s = self.new_stream(0)
        if s == NULL:
            return NULL
        s.method = h.method
        s.head_only = h.method == METHOD_HEAD
        s.body_done = not content
        provider = content_of(s)
        s.id = nghttp2_submit_request(self.session, NULL, nv, n, &provider if content else NULL, s)
        if s.id < 0:
            self.forget(s)
            return NULL
        self.last_id = s.id
        self.earn(EARNED_BY_REQUEST)
        return s

    cdef void frame_not_sent(self, const nghttp2_frame *frame) noexcept:
        """A request that came to nothing: it was taken back, or a GOAWAY was first."""
        cdef H2Stream *s = self.streams
        if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
            return
        while s != NULL and s.id != frame.hd.stream_id:
            s = s.next
        # Where nghttp2 has opened the stream already, it closes it now.
        if s != NULL and nghttp2_session_get_stream_user_data(self.session, s.id) == NULL:
            self.on_stream_closed(s, H2_CANCEL if s.reset_by_us else H2_REFUSED_STREAM)
            self.forget(s)

    # --- responses

    cdef int price(self, const nghttp2_frame_hd *hd) noexcept:
        if hd.type == NGHTTP2_RST_STREAM:
            return COST_REFUSAL
        # The request whose promise it is came behind our SETTINGS, which forbid it (section 8.4).
        if hd.type == NGHTTP2_PUSH_PROMISE:
            self.terminate(H2_PROTOCOL_ERROR, b"PUSH_PROMISE that was not enabled")
        return H2Session.price(self, hd)

    cdef int take_pseudo(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept:
        # :status alone; nghttp2 has refused all others, and what is not three digits
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE if bytes_append(&s.head, value, m) < 0 else 0

    cdef void finish_head(self, H2Stream *s) noexcept:
        cdef Bytes text
        cdef Head *h = self.scratch
        cdef int r = -1
        memset(&text, 0, sizeof(text))
        if not s.refused and self.write_head(s, &text) == 0:
            r = parse_response(text.data, text.len, &self.limits, s.method, h)
        bytes_free(&s.head)
        s.lines_at = 0
        s.fields = 0
        s.has_length = False
        if r < 0:
            self.refuse(s, b"response head too large" if s.refused == 431 else b"bad response")
        elif h.status >= 200:
            s.head_whole = True
            self.on_response(s, h, s.peer_ended)
        elif s.interims == INTERIMS_MAX:
            self.refuse(s, b"too many interim responses")
        else:
            s.interims += 1
            self.on_interim(s, h)
        bytes_free(&text)

    cdef int write_head(self, H2Stream *s, Bytes *text) noexcept nogil:
        """The head as HTTP/1.1 has it; 0 or -1."""
        cdef uint8_t *base = s.head.data
        cdef int status = (base[0] - c"0") * 100 + (base[1] - c"0") * 10 + base[2] - c"0"
        cdef const char *reason = reason_phrase(status)
        cdef int r = bytes_reserve(text, s.head.len + 128)
        r |= bytes_append(text, b"HTTP/1.1 ", 9)
        r |= bytes_append(text, base, STATUS_LENGTH)
        r |= bytes_append(text, b" ", 1)
        r |= bytes_append(text, reason, strlen(reason))
        r |= bytes_append(text, b"\r\n", 2)
        r |= bytes_append(text, base + STATUS_LENGTH, s.head.len - STATUS_LENGTH)
        if not (s.has_length or s.head_only or status < 200 or status == 204 or status == 304):
            # What frames say of the content's end (section 8.1).
            if s.peer_ended:
                r |= append_line(text, b"Content-Length", 14, b"0", 1)
            else:
                r |= append_line(text, b"Transfer-Encoding", 17, b"chunked", 7)
        r |= bytes_append(text, b"\r\n", 2)
        return -1 if r < 0 else 0

    cdef void finish_message(self, H2Stream *s) noexcept:
        self.on_response_end(s)

    cdef void refuse(self, H2Stream *s, const char *fault) noexcept:
        s.fault = fault
        self.reset(s, H2_PROTOCOL_ERROR)

    cdef void frame_came(self, const nghttp2_frame *frame) noexcept:
        if frame.hd.type == NGHTTP2_SETTINGS and not frame.hd.flags & NGHTTP2_FLAG_ACK:
            self.met = True
            self.on_settings()
        elif frame.hd.type == NGHTTP2_GOAWAY:       # nghttp2 then closes the streams behind last_stream_id as refused
            self.left = True
            self.on_goaway(frame.goaway.last_stream_id, frame.goaway.error_code)

    # --- for the consumer to override

    cdef void on_interim(self, H2Stream *s, const Head *h) noexcept:
        """A 1xx head; the response is still to come."""

    cdef void on_response(self, H2Stream *s, const Head *h, bint ended) noexcept:
        """The final head. With `ended` the response is whole: neither on_data nor on_response_end follows."""

    cdef void on_response_end(self, H2Stream *s) noexcept:
        """The content is whole; s.trailers is what followed it."""

    cdef void on_settings(self) noexcept:
        """The peer's SETTINGS have come: there may be more room for requests, or less."""

    cdef void on_goaway(self, int32_t last_id, uint32_t code) noexcept:
        """The peer takes no more requests. Those above last_id are closed as refused after this."""


cdef void keep_secret(nghttp2_nv *nv, size_t n) noexcept nogil:
    """Many clients share the connection's compression: by what shortens a guess one could learn what another has sent
    (RFC 7541, section 7.1)."""
    cdef size_t i
    for i in range(n):
        if (nv[i].namelen == 6 and same_name(nv[i].name, b"cookie", 6)
                or nv[i].namelen == 13 and same_name(nv[i].name, b"authorization", 13)):
            nv[i].flags = NGHTTP2_NV_FLAG_NO_INDEX
