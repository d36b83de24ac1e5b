"""Listeners' settings (see the .pxd)."""

from cext.net.stream cimport read_tcp
from cext.proxy.timeouts cimport read_timeouts

from cext.proxy.timeouts import DEFAULTS


cdef class Quota:
    pass


cdef class ListenerSettings:
    """ListenerSettings(tls, router, ...): see the .pxd. `quota`: None for one of its own."""

    def __init__(self, ServerConfig tls, Router router, *, int handshake_ms=5000, dict timeouts={}, dict tcp={},
                 uint32_t line_limit=8192, uint32_t head_limit=32768, uint32_t field_limit=128,
                 bint x_forwarded=True, bint forwarded=False, int first_record=1369, int first_bytes=65536,
                 int record_idle_ms=1000, uint32_t h2_streams=256, uint32_t h2_stream_window=65536,
                 uint32_t h2_connection_window=1048576, bint h2_connect_protocol=True,
                 uint32_t max_connections=0, uint32_t per_address=0,
                 uint32_t max_requests=0, uint32_t requests_per_address=0, bint answer_over=False,
                 bytes unique_header=b"", gate=None, senders=None, Networks key_logged=None,
                 Quota quota=None):
        self.tls = tls
        self.router = router
        self.handshake_ms = handshake_ms
        read_timeouts(&self.timeouts, DEFAULTS | timeouts)
        read_tcp(&self.tcp, tcp)
        self.limits.line = line_limit
        self.limits.head = min(head_limit, 49152)       # a head and a whole read must fit the scratch memory
        self.limits.fields = field_limit
        self.first_record = first_record
        self.first_bytes = first_bytes
        self.record_idle_ms = record_idle_ms
        self.max_connections = max_connections
        self.per_address = per_address
        self.max_requests = max_requests
        self.requests_per_address = requests_per_address
        self.answer_over = answer_over
        self.x_forwarded = x_forwarded
        self.forwarded = forwarded
        self.h2.max_streams = h2_streams
        self.h2.stream_window = h2_stream_window
        self.h2.connection_window = h2_connection_window
        self.h2.max_header_list = self.limits.head
        self.h2.connect_protocol = h2_connect_protocol
        self.early = router.sees_early
        self.unique_header = unique_header
        self.unique = <const uint8_t *> <const char *> unique_header
        self.unique_len = len(unique_header)
        self.gate = gate
        self.senders = senders
        self.key_logged = key_logged
        self.quota = Quota() if quota is None else quota

    def become(self, ListenerSettings other):
        """Takes all settings from `other`, which has no connections. Those there are count for its quota from now on."""
        self.tls = other.tls
        self.router = other.router
        self.handshake_ms = other.handshake_ms
        self.timeouts = other.timeouts
        self.tcp = other.tcp
        self.limits = other.limits
        self.first_record = other.first_record
        self.first_bytes = other.first_bytes
        self.record_idle_ms = other.record_idle_ms
        self.max_connections = other.max_connections
        self.per_address = other.per_address
        self.max_requests = other.max_requests
        self.requests_per_address = other.requests_per_address
        self.answer_over = other.answer_over
        self.x_forwarded = other.x_forwarded
        self.forwarded = other.forwarded
        self.h2 = other.h2
        self.early = other.early
        self.unique_header = other.unique_header
        self.unique = other.unique
        self.unique_len = other.unique_len
        self.gate = other.gate
        self.senders = other.senders
        self.key_logged = other.key_logged
        self.quota.open -= self.open
        self.quota = other.quota
        self.quota.open += self.open

    def retire(self):
        """Nobody listens there any more: sessions that open from now on are finished after their first response."""
        self.leaving = True
