"""Certificates compressed (RFC 8879): a CompressedCertificate stands where a Certificate would."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cext.base.wire cimport Reader

cdef struct CompressedCertificate:
    uint16_t algorithm                 # CertificateCompressionAlgorithm
    uint32_t uncompressed_length       # of the Certificate's body
    Reader compressed
    const char *reason

cdef int parse_compressed_certificate(const uint8_t *body, size_t n, CompressedCertificate *cc) noexcept nogil
"""As in `messages`."""

cdef bytes decompress_certificate(tuple algorithms, const uint8_t *body, size_t n, size_t most, int *code,
                                  const char **reason)
"""The body of the Certificate that a CompressedCertificate's body[:n] stands for, at most `most` bytes, by one of the
algorithms that were offered. None with `code` set, -AlertDescription, and a reason."""
