"""A certificate chain and its key (see the .pxd)."""

import re

from libc.string cimport memcmp

from cext.base.wire cimport left, read_vec16, reader_init
from cext.crypto.x509 cimport certifies_plainly, issuer_name
from cext.crypto.x509 cimport public_key as read_public_key
from cext.tls.constants cimport (
    EXT_DELEGATED_CREDENTIAL, EXT_SIGNED_CERTIFICATE_TIMESTAMP, EXT_STATUS_REQUEST, HS_CERTIFICATE,
    HANDSHAKE_HEADER, HS_CERTIFICATE_STATUS, STATUS_OCSP)
from cext.tls.fields cimport is_timestamp_list
from cext.tls.negotiate cimport list_has
from cext.tls.session cimport wall_clock

from cext.tls.compression import compressed_certificate, known_algorithms

cdef enum:
    CERTIFICATE_MAX = (1 << 24) - 1
    EXTENSIONS_MAX = (1 << 16) - 1                  # bytes, of a CertificateEntry
    TIMESTAMPS_MAX = 1 << 14                        # bytes of them, that a ServerHello of TLS 1.2 has room for

CURVES = {"ecdsa-p256": 0x0017, "ecdsa-p384": 0x0018, "ecdsa-p521": 0x0019}
LABEL = re.compile("[a-z0-9_-]+")


cdef class Credential:
    """A certificate chain and its key.

    `chain`: DER certificates, leaf first. `key`: a PrivateKey, or any object with `sign(message, scheme)`: the
    handshake then stops with TLS_WAIT_SIGN and the connection's owner has it signed. `names`: what SNI may ask for;
    "*.example.com" stands for one label. `schemes`: SignatureSchemes to sign by, preferred first; None: all that fit the
    key.
    For peers that ask: `ocsp_response` in DER, until `ocsp_expires` (seconds since 1970; 0: for ever);
    `signed_certificate_timestamps`, encoded as RFC 6962, section 3.3 has the
    list, or a sequence of them; `certificate_compression`, algorithms (cext.tls.compression), preferred first, that the
    certificates are compressed by when the first peer asks for it.
    `delegated_credential`: the structure of RFC 9345; `key` is then the one it delegates to, and the credential for
    clients of TLS 1.3 that take such: the next one of its names is for the others. `match_issuer`: only for peers whose
    certificate_authorities name an issuer of the chain's.
    ValueError when the chain is empty or too long, a certificate cannot be read, the key is not the leaf's, a scheme does
    not fit it, a name is none, there is too much to stand beside the leaf, or see DelegatedCredential.
    """

    def __init__(self, chain, key not None, names=(), schemes=None, *, ocsp_response=b"", ocsp_expires=0,
                 signed_certificate_timestamps=b"", certificate_compression=(), bytes delegated_credential=None,
                 bint match_issuer=False):
        self.chain = tuple(bytes(der) for der in chain)
        if not self.chain or not all(self.chain):
            raise ValueError("a credential needs a chain of DER certificates, leaf first")
        if delegated_credential is not None:
            self.delegated = DelegatedCredential(delegated_credential, self.chain[0])
        self.ocsp_response = bytes(ocsp_response)
        self.ocsp_expires = <uint64_t> max(int(ocsp_expires), 0) * 1000
        self.signed_certificate_timestamps = timestamp_list(signed_certificate_timestamps)
        self.encode(known_algorithms(certificate_compression))
        self.names = tuple(normal_name(name) for name in names)
        self.match_issuer = match_issuer
        self.issuers = tuple(issuer_name(der) for der in self.chain) if match_issuer else ()
        if isinstance(key, PrivateKey):
            self.use_key(key)
            kind, schemes13, schemes12 = self.key.kind, self.key.schemes, self.key.schemes12
        elif callable(getattr(key, "sign", None)):
            self.signer = key
            self.public_key = self.shown_key()
            kind, schemes13, schemes12 = self.public_key.kind, self.public_key.schemes, self.public_key.schemes12
        else:
            raise TypeError(f"a PrivateKey or an object with sign(message, scheme), not {type(key).__name__}")
        if self.delegated is not None:
            schemes13, schemes12 = (self.delegated.scheme,), ()
        if schemes is not None:
            schemes = known(schemes, {*schemes13, *schemes12}, "signature scheme")
            schemes13 = [scheme for scheme in schemes if scheme in schemes13]
            schemes12 = [scheme for scheme in schemes if scheme in schemes12]
        self.n_schemes = fill(self.schemes, schemes13, "signature scheme")
        self.n_schemes12 = fill(self.schemes12, schemes12, "signature scheme")
        self.ecdsa = not kind.startswith("rsa")
        self.curve = CURVES.get(kind, 0)
        if not self.n_schemes and not self.n_schemes12:
            raise ValueError(f"a key of kind {kind} signs nothing in TLS")

    cdef PublicKey shown_key(self):
        """The one that peers verify by."""
        return read_public_key(self.chain[0]) if self.delegated is None else self.delegated.public_key

    cdef int use_key(self, PrivateKey key) except -1:
        self.key = key
        if self.delegated is None and certifies_plainly(self.chain[0], key):
            return 0
        if not key.matches(self.shown_key()):
            raise ValueError("the key is not the one of the chain's first certificate" if self.delegated is None
                             else "the key is not the one of the delegated credential")
        return 0

    cdef int encode(self, tuple algorithms) except -1:
        """Makes the messages that show the certificates."""
        if len(self.ocsp_response) > EXTENSIONS_MAX:
            raise ValueError("ocsp_response does not fit a CertificateEntry")
        status = bytes([STATUS_OCSP]) + vector(3, self.ocsp_response) if self.ocsp_response else b""
        delegated = b"" if self.delegated is None else self.delegated.encoded
        bodies = [certificate_body(self.chain, delegated, status if variant & WITH_STATUS else b"",
                                   self.signed_certificate_timestamps if variant & WITH_TIMESTAMPS else b"")
                  for variant in range(<int> VARIANTS)]
        self.has_status = len(status) > 0
        self.certificate_status = bytes([HS_CERTIFICATE_STATUS]) + vector(3, status) if status else b""
        for variant, body in enumerate(bodies):
            self.form[<int> variant] = <uint8_t> bodies.index(body)
        messages = {body: bytes([HS_CERTIFICATE]) + vector(3, body) for body in bodies}
        self.certificates = tuple(messages[body] for body in bodies)
        self.algorithms = algorithms
        self.n_compressions = fill(self.compressions, [algorithm.number for algorithm in algorithms], "compression")
        return 0

    @property
    def certificate_body(self):
        """Of the Certificate message, with an empty request context."""
        return (<bytes> self.certificates[0])[HANDSHAKE_HEADER:]

    @property
    def certificate_body12(self):
        """The same of TLS 1.2. Not kept: whoever has thousands of certificates shows few of them to clients of 1.2."""
        return vector(3, b"".join([vector(3, der) for der in self.chain]))

    cdef bint shows_status(self) noexcept nogil:
        return self.has_status and (self.ocsp_expires == 0 or wall_clock() < self.ocsp_expires)

    cdef bytes certificate_message(self, int variant, Reader algorithms):
        cdef size_t i
        cdef bytes message
        for i in range(self.n_compressions if left(&algorithms) else 0):
            if list_has(algorithms, self.compressions[i]):
                message = self.compress(i, variant)
                if message is not None:
                    return message
        return self.certificates[variant]

    cdef bytes compress(self, size_t algorithm, int variant):
        cdef int form = self.form[variant]
        cdef dict made
        if self.compressed is None:
            self.compressed = [None] * len(self.algorithms)
        made = self.compressed[algorithm]
        if made is None:
            made = self.compressed[algorithm] = {}
        if form not in made:
            body = (<bytes> self.certificates[form])[HANDSHAKE_HEADER:]
            try:
                made[form] = compressed_certificate(self.algorithms[algorithm], body)
            except Exception:               # a handshake can do without
                made[form] = None
        return made[form]

    cdef bint is_issued_by(self, Reader authorities) noexcept:
        cdef Reader name
        cdef bytes issuer
        while left(&authorities) and read_vec16(&authorities, &name):
            for issuer in self.issuers:
                if <size_t> len(issuer) == left(&name) and memcmp(<const char *> issuer, name.p, left(&name)) == 0:
                    return 1
        return 0

    def __repr__(self):
        return f"Credential({self.key.kind if self.key else 'remote key'}, {', '.join(self.names) or 'no names'})"


def certificate_body(chain, delegated, status, timestamps):
    """A Certificate message's content, with the leaf's extensions (RFC 8446, section 4.4.2)."""
    extensions = b""
    if delegated:
        extensions += u16_list((EXT_DELEGATED_CREDENTIAL,)) + vector(2, delegated)
    if status:
        extensions += u16_list((EXT_STATUS_REQUEST,)) + vector(2, status)
    if timestamps:
        extensions += u16_list((EXT_SIGNED_CERTIFICATE_TIMESTAMP,)) + vector(2, timestamps)
    if len(extensions) > EXTENSIONS_MAX:
        raise ValueError("ocsp_response and signed_certificate_timestamps do not fit a CertificateEntry")
    if sum(len(der) + 5 for der in chain) + len(extensions) + 4 > CERTIFICATE_MAX:
        raise ValueError("the chain does not fit a Certificate message")
    others = b"".join(vector(3, der) + bytes(2) for der in chain[1:])
    return b"\0" + vector(3, vector(3, chain[0]) + vector(2, extensions) + others)


def timestamp_list(timestamps):
    """The encoded SignedCertificateTimestampList of either form; b"" of nothing."""
    cdef Reader r
    cdef bytes encoded
    if isinstance(timestamps, (bytes, bytearray, memoryview)):
        encoded = bytes(timestamps)
    else:
        one_by_one = [bytes(timestamp) for timestamp in timestamps]
        if any(len(timestamp) > TIMESTAMPS_MAX for timestamp in one_by_one):
            raise ValueError("signed_certificate_timestamps: one is too long")
        encoded = b"".join(vector(2, timestamp) for timestamp in one_by_one)
        encoded = vector(2, encoded) if 0 < len(encoded) <= TIMESTAMPS_MAX else encoded
    reader_init(&r, encoded, len(encoded))
    if encoded and (len(encoded) > TIMESTAMPS_MAX or not is_timestamp_list(r)):
        raise ValueError("signed_certificate_timestamps: empty, too long, or no SignedCertificateTimestampList")
    return encoded


cdef str normal_name(name):
    """A name as it is looked up: lower case, no final dot. ValueError when it can be no server's."""
    if not isinstance(name, str):
        raise ValueError(f"a name is a str: {name!r}")
    normal = name.lower().removesuffix(".")
    labels = normal.removeprefix("*.").split(".")
    fits = normal.isascii() and len(normal) <= NAME_MAX
    if not fits or not all(0 < len(label) <= 63 and label.strip("-_") and LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{name!r} is no host name (international names are given in their xn-- form)")
    return normal


cdef size_t fill(uint16_t *out, values, what) except? 0:
    cdef size_t n = 0
    if len(values) > CONFIG_LIST_MAX:
        raise ValueError(f"more than {CONFIG_LIST_MAX} of {what}")
    for value in values:
        out[n] = value
        n += 1
    return n


def known(values, among, what):
    values = tuple(values)
    unknown = [f"0x{value:04x}" for value in values if value not in among]
    if unknown or not values or len(set(values)) != len(values):
        raise ValueError(f"{what}s: none, one twice, or unknown ({', '.join(unknown) or 'none'})")
    return values


def u16_list(values):
    return b"".join(int(value).to_bytes(2, "big") for value in values)


def vector(width, content):
    return len(content).to_bytes(width, "big") + content
