"""The public key in a certificate. Chains and names are policy: `edge.certs` reads those."""

from cext.crypto.sign cimport PublicKey

cpdef PublicKey public_key(bytes certificate_der)
"""The key of a DER certificate; ValueError when it cannot be read, is of no kind TLS 1.3 signs with, or may not sign by
the certificate's key usage."""
