"""What a server's CertificateRequest asks for, for the hook that chooses a client's certificate."""

import dataclasses
from typing import Final

from cext.crypto.x509 import issuer_name, public_key
from cext.tls.inspect import parse as parse13
from cext.tls.messages12 import parse as parse12

from edge.tls.certificate import Certificate, vectors

_TLS12: Final = 0x0303
_RSA_SIGN: Final = 1
_ECDSA_SIGN: Final = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificateRequestInfo:
    """A CertificateRequest (RFC 8446, section 4.3.2; of TLS 1.2: RFC 5246, section 7.4.4), decoded."""

    version: str
    """"1.2" or "1.3"."""
    signature_schemes: tuple[int, ...]
    """SignatureSchemes that the server takes, in its order."""
    authorities: tuple[bytes, ...] = ()
    """DistinguishedNames (DER) of those whose certificates it takes; () when it names none."""
    certificate_types: tuple[int, ...] = ()
    """ClientCertificateTypes; of TLS 1.2 alone."""

    @classmethod
    def parse(cls, version: int, message: bytes) -> "CertificateRequestInfo":
        """From a whole handshake message. TlsAlert when it is malformed."""
        if version != _TLS12:
            fields = parse13("certificate_request", message[4:])
            return cls(
                version="1.3",
                signature_schemes=fields["signature_algorithms"],
                authorities=fields["certificate_authorities"] or (),
            )
        fields = parse12("certificate_request", message[4:])
        schemes = fields["signature_algorithms"]
        return cls(
            version="1.2",
            signature_schemes=tuple(int.from_bytes(schemes[i : i + 2], "big") for i in range(0, len(schemes), 2)),
            authorities=vectors(fields["authorities"]),
            certificate_types=tuple(fields["certificate_types"]),
        )

    def supports(self, certificate: Certificate) -> bool:
        """Whether the server is likely to take it: its key signs as the server wants, and its chain leads to one of the
        authorities, if the server names any."""
        leaf = public_key(certificate.chain[0])
        schemes = leaf.schemes
        if self.version == "1.2":
            schemes = leaf.schemes12
            if (_RSA_SIGN if leaf.kind.startswith("rsa") else _ECDSA_SIGN) not in self.certificate_types:
                return False
        if not set(schemes) & set(self.signature_schemes):
            return False
        return not self.authorities or any(issuer_name(der) in self.authorities for der in certificate.chain)
