"""Responses for hooks (see the .pxd)."""

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport strlen

from cext.http.h1_writer cimport reason_phrase
from cext.http.head_copy cimport HeadCopy
from cext.proxy.header_view cimport Headers
from cext.proxy.request_view cimport check_status, make_answer


cdef class ResponseView(HeadView):
    """The head of an upstream's response, before the client sees anything of it. It is there until the hook is done."""

    @property
    def request(self):
        """The request that it answers."""
        return self.asked

    @property
    def status(self):
        return self.shown().status

    @status.setter
    def status(self, int status):
        cdef HeadCopy copy
        cdef const char *phrase
        cdef int before = self.shown().status
        check_status(self.asked.x, status)
        # What follows the head depends on these: it is there already, or will not come (RFC 9112, section 6.3).
        if (status in (204, 205, 304) or before in (204, 205, 304)) and status != before:
            raise ValueError(f"status: {before} cannot become {status}, as one of them has no content: use replace()")
        phrase = reason_phrase(status)
        copy = self.change()
        if copy.write(<const uint8_t *> phrase, strlen(phrase), &copy.head.status_text) < 0:
            raise MemoryError
        copy.head.status = <uint16_t> status

    @property
    def headers(self):
        """The fields of the response: Headers."""
        cdef Headers headers = Headers.__new__(Headers)
        headers.view = self
        return headers

    def replace(self, status, headers=(), body=b""):
        """Another response, of the hook's own, goes to the client when the hook is done; what the upstream sends is
        dropped. As request.respond()."""
        self.shown()
        self.given = make_answer(self.asked.x, status, headers, body)

    def abort(self):
        """As request.abort()."""
        self.shown()
        self.asked.abort()

    def __repr__(self):
        return f"<Response {self.status}>" if self.head != NULL else "<Response>"
