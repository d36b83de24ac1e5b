"""A parsed message head: offsets into the bytes it was read from, nothing copied (RFC 9110, RFC 9112)."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    MAX_FIELDS = 256                    # hard ceiling; Limits.fields is the configured one
    INTERIMS_MAX = 32                   # 1xx heads before a response

cdef enum FieldId:                      # names that some rule speaks of; every other is FIELD_OTHER
    FIELD_OTHER = 0
    FIELD_HOST
    FIELD_CONNECTION
    FIELD_CONTENT_LENGTH
    FIELD_TRANSFER_ENCODING
    FIELD_EXPECT
    FIELD_UPGRADE
    FIELD_TE
    FIELD_TRAILER
    FIELD_KEEP_ALIVE
    FIELD_PROXY_CONNECTION
    FIELD_PROXY_AUTHENTICATE
    FIELD_PROXY_AUTHORIZATION
    FIELD_X_FORWARDED_FOR
    FIELD_X_FORWARDED_PROTO
    FIELD_X_FORWARDED_HOST
    FIELD_FORWARDED
    FIELD_DATE
    FIELD_SERVER
    FIELD_LINK
    FIELD_VIA
    FIELD_EARLY_DATA
    FIELD_MAX_FORWARDS
    FIELD_TRACEPARENT
    FIELD_TRACESTATE
    FIELD_PROXY                         # no field of HTTP: CGI would hand it to a program as HTTP_PROXY

cdef enum Method:
    METHOD_OTHER = 0
    METHOD_GET
    METHOD_HEAD
    METHOD_POST
    METHOD_PUT
    METHOD_DELETE
    METHOD_OPTIONS
    METHOD_PATCH
    METHOD_TRACE
    METHOD_CONNECT

cdef enum Framing:                      # how the body ends
    FRAMING_NONE = 0
    FRAMING_LENGTH
    FRAMING_CHUNKED
    FRAMING_CLOSE                       # responses only: until the connection ends

cdef struct Span:                       # base[off:off+len]
    uint32_t off
    uint32_t len

cdef struct Field:
    Span name
    Span value                          # without surrounding whitespace
    uint8_t id                          # FieldId
    bint hop_by_hop                     # not forwarded: by its nature or named in Connection

cdef struct Head:                       # of a request or a response; one per worker, reused (about 7 KiB)
    const uint8_t *base                 # what the spans point into
    uint32_t length                     # of the whole head with its final CRLF
    uint8_t minor                       # HTTP/1.<minor>: 0 or 1
    bint keep_alive                     # after this message, as far as its sender says
    uint8_t framing                     # Framing
    int64_t content_length              # with FRAMING_LENGTH; for HEAD/304 the announced one, else -1
    # request
    uint8_t method                      # Method
    Span method_name
    Span target                         # as received
    Span path                           # with query; "*" for OPTIONS *; "/" when an absolute-form has none
    Span query                          # without "?"; len 0 when none
    Span host                           # from absolute-form, else Host; with port as given; len 0: none (HTTP/1.0)
    bint expect_continue
    Span protocol                       # of an extended CONNECT (RFC 8441), what is to be spoken; len 0: none
    int64_t max_forwards                # of OPTIONS and TRACE; -1: none, or not theirs to count
    # response
    uint16_t status
    Span status_text
    # both
    Span upgrade                        # value of Upgrade when Connection lists it; of a request without content
    bint te_trailers
    bint has_date
    bint has_server
    uint32_t n_fields
    Field fields[MAX_FIELDS]

cdef struct Limits:
    uint32_t line                       # request line, and any single field line, bytes
    uint32_t head                       # whole head, bytes
    uint32_t fields                     # number of fields
