"""A certificate chain and its key (see the .pxd)."""

import re

from cext.crypto.x509 cimport public_key as read_public_key

cdef enum:
    CERTIFICATE_MAX = (1 << 24) - 1

CURVES = {"ecdsa-p256": 0x0017, "ecdsa-p384": 0x0018, "ecdsa-p521": 0x0019}
LABEL = re.compile("[a-z0-9_-]+")


cdef class Credential:
    """A certificate chain and its key.

    `chain`: DER certificates, leaf first. `key`: a PrivateKey, or any object with `sign(message, scheme)`: the
    handshake then stops with TLS_WAIT_SIGN and the connection's owner has it signed. `names`: what SNI may ask for;
    "*.example.com" stands for one label. `schemes`: SignatureSchemes to sign by, preferred first; None: all that fit the
    key. ValueError when the chain is empty or too long, the leaf cannot be read, the key is not the leaf's, a scheme does
    not fit it, or a name is none.
    """

    def __init__(self, chain, key not None, names=(), schemes=None):
        self.chain = tuple(bytes(der) for der in chain)
        if not self.chain or not all(self.chain):
            raise ValueError("a credential needs a chain of DER certificates, leaf first")
        if sum(len(der) + 5 for der in self.chain) + 4 > CERTIFICATE_MAX:
            raise ValueError("the chain does not fit a Certificate message")
        entries = b"".join(len(der).to_bytes(3, "big") + der + bytes(2) for der in self.chain)
        self.certificate_body = b"\0" + len(entries).to_bytes(3, "big") + entries
        self.certificate_body12 = vector(3, b"".join(vector(3, der) for der in self.chain))
        self.names = tuple(normal_name(name) for name in names)
        public_key = read_public_key(self.chain[0])
        if isinstance(key, PrivateKey):
            self.key = key
            if not self.key.matches(public_key):
                raise ValueError("the key is not the one of the chain's first certificate")
            schemes13 = self.key.schemes
            schemes12 = self.key.schemes12
        elif callable(getattr(key, "sign", None)):
            self.signer = key
            self.public_key = public_key
            schemes13 = public_key.schemes
            schemes12 = public_key.schemes12
        else:
            raise TypeError(f"a PrivateKey or an object with sign(message, scheme), not {type(key).__name__}")
        if schemes is not None:
            schemes = known(schemes, {*schemes13, *schemes12}, "signature scheme")
            schemes13 = [scheme for scheme in schemes if scheme in schemes13]
            schemes12 = [scheme for scheme in schemes if scheme in schemes12]
        self.n_schemes = fill(self.schemes, schemes13, "signature scheme")
        self.n_schemes12 = fill(self.schemes12, schemes12, "signature scheme")
        self.ecdsa = not public_key.kind.startswith("rsa")
        self.curve = CURVES.get(public_key.kind, 0)
        if not self.n_schemes and not self.n_schemes12:
            raise ValueError(f"a key of kind {public_key.kind} signs nothing in TLS")

    def __repr__(self):
        return f"Credential({self.key.kind if self.key else 'remote key'}, {', '.join(self.names) or 'no names'})"


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
