"""Trust in the certificates that clients show."""

from collections.abc import Sequence

from cryptography import x509

from edge.tls.verify import store, verify_client
from edge.trust import Trust


class ClientTrust(Trust):
    """Of those whose chain leads to one of `authorities`, is valid now, and may authenticate a client."""

    def __init__(self, authorities: Sequence[x509.Certificate]) -> None:
        roots = store(authorities)
        super().__init__(lambda chain: verify_client(roots, chain))
