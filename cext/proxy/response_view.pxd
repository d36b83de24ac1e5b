"""A response, as hooks see and change it."""

from cext.proxy.header_view cimport HeadView
from cext.proxy.request_view cimport Answer, RequestView

cdef class ResponseView(HeadView):
    """What a response hook sees: the final head that an upstream has sent."""
    cdef RequestView asked
    cdef Answer given                       # in its place; None: none
