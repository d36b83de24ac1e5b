"""Certificate compression (see the .pxd).

An algorithm is an object of the owner's: `number`, its CertificateCompressionAlgorithm; `compress(data)`, bytes, or None
where nothing is gained; `decompress(data, length)`, the `length` bytes that data stands for, or any exception. It is
never asked for more than the handshake's limit, and must not take more memory than it is asked for.
"""

from libc.string cimport memset

from cext.base.wire cimport left, read_u16, read_u24, read_vec24, reader_init
from cext.tls.constants cimport HS_COMPRESSED_CERTIFICATE, bad_certificate, decode_error, illegal_parameter
from cext.tls.fields cimport refuse

cdef enum:
    ALGORITHMS_MAX = 8


cdef int parse_compressed_certificate(const uint8_t *body, size_t n, CompressedCertificate *cc) noexcept nogil:
    cdef Reader r
    memset(cc, 0, sizeof(CompressedCertificate))
    cc.reason = ""
    reader_init(&r, body, n)
    if (
        not read_u16(&r, &cc.algorithm)
        or not read_u24(&r, &cc.uncompressed_length)
        or not read_vec24(&r, &cc.compressed)
        or not left(&cc.compressed)
        or left(&r)
    ):
        return refuse(&cc.reason, decode_error, "CompressedCertificate cannot be decoded")
    return 0


cdef bytes decompress_certificate(tuple algorithms, const uint8_t *body, size_t n, size_t most, int *code,
                                  const char **reason):
    cdef CompressedCertificate cc
    cdef bytes certificate
    code[0] = parse_compressed_certificate(body, n, &cc)
    if code[0] < 0:
        reason[0] = cc.reason
        return None
    for algorithm in algorithms:
        if algorithm.number == cc.algorithm:
            break
    else:                               # section 4: it MUST be one that was offered
        code[0] = refuse(reason, illegal_parameter, "a certificate is compressed by an algorithm that was not offered")
        return None
    if cc.uncompressed_length > most:   # before anything is decompressed (section 5)
        code[0] = refuse(reason, bad_certificate, "a certificate is too large when decompressed")
        return None
    try:
        certificate = algorithm.decompress((<const char *> cc.compressed.p)[:left(&cc.compressed)],
                                           cc.uncompressed_length)
    except Exception:
        certificate = None
    # "If, after decompression, the specified length does not match the actual length": section 4
    if certificate is None or <size_t> len(certificate) != cc.uncompressed_length:
        code[0] = refuse(reason, bad_certificate, "a certificate cannot be decompressed")
        return None
    return certificate


def compressed_certificate(algorithm, bytes body not None):
    """The whole message for a Certificate's body, or None where compression gains nothing."""
    compressed = algorithm.compress(body)
    if compressed is None:
        return None
    content = algorithm.number.to_bytes(2, "big") + len(body).to_bytes(3, "big") + vector24(compressed)
    return bytes([HS_COMPRESSED_CERTIFICATE]) + vector24(content)


def known_algorithms(algorithms):
    """A configuration's algorithms as a tuple. ValueError when one is none, or twice there."""
    algorithms = tuple(algorithms)
    numbers = {getattr(algorithm, "number", None) for algorithm in algorithms}
    if len(algorithms) > ALGORITHMS_MAX or len(numbers) != len(algorithms) or not all(
        isinstance(number, int) and 0 < number < 0x10000 for number in numbers
    ):
        raise ValueError(f"certificate_compression: at most {ALGORITHMS_MAX} algorithms, each with a number of its own")
    return algorithms


cdef bytes vector24(bytes content):
    return len(content).to_bytes(3, "big") + content
