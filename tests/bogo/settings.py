"""From the runner's flags to a configuration of the engine."""

import binascii

from cext.crypto.sign import PrivateKey
from cext.tls.alert import TlsAlert
from cext.tls.config import GROUPS, ClientConfig, Credential, ServerConfig
from flags import UnimplementedError

TLS12, TLS13 = 0x0303, 0x0304
# The certificates of the runner bear no name that its ClientHello asks for: one name for all makes them candidates
# alike, in their order.
NAMES = ("shim.example",)
NO_PROTOCOL = b"\0none"     # offered by nobody: every ALPN list is refused
HANDSHAKE_FAILURE, CERTIFICATE_UNKNOWN = 40, 46


def build(options, seen):
    """A ServerConfig or ClientConfig. `seen` is a dict that gets "chain", the certificates a client was shown."""
    if TLS13 not in options.versions:
        raise UnimplementedError("TLS 1.2" if TLS12 in options.versions else "TLS 1.1 and older")
    return server(options) if options.server else client(options, seen)


def server(options):
    credentials = [credential(files) for files in options.credentials if files]
    if not credentials:
        raise UnimplementedError("a server without a certificate")
    if options.verify_peer or options.use_custom_verify_callback:
        raise UnimplementedError("client certificates")
    protocols = () if options.select_alpn is None else (options.select_alpn,)
    if options.reject_alpn:
        protocols = (NO_PROTOCOL,)
    return ServerConfig(credentials, alpn=protocols, groups=groups(options))


def client(options, seen):
    if any(options.credentials):
        raise UnimplementedError("client certificates")

    def verify(chain, _server_name):
        seen["chain"] = chain
        # Without verification asked for, BoringSSL's verdict is not heeded.
        if options.verify_fail and options.verify_peer:
            raise TlsAlert(CERTIFICATE_UNKNOWN if options.use_custom_verify_callback else HANDSHAKE_FAILURE,
                           "certificate verification failed")

    offered = groups(options)
    shares = options.key_shares
    if shares is not None and not set(shares) <= set(offered):
        raise UnimplementedError("key shares of other groups")
    return ClientConfig(
        server_name=options.host_name.decode() if options.host_name else None,
        alpn=protocol_names(options.advertise_alpn or b""),
        groups=offered,
        key_share_groups=shares,
        verify=verify,
    )


def groups(options):
    unknown = [group for group in options.curves if group not in GROUPS]
    if unknown:
        raise UnimplementedError(f"group {unknown[0]:#06x}")
    return tuple(options.curves) or GROUPS


def credential(files):
    if "cert_file" not in files or "key_file" not in files:
        raise UnimplementedError("a credential of another kind than certificate and key")
    with open(files["key_file"], "rb") as file:
        pem = file.read()
    try:
        return Credential(read_chain(files["cert_file"]), PrivateKey.from_pem(pem), NAMES)
    except ValueError as error:
        raise UnimplementedError(f"a key that this engine does not take: {error}") from None


def read_chain(path):
    """The certificates of a PEM file in DER, in their order."""
    with open(path, "rb") as file:
        blocks = file.read().split(b"-----BEGIN CERTIFICATE-----")[1:]
    return [binascii.a2b_base64(block.partition(b"-----END")[0]) for block in blocks]


def protocol_names(encoded):
    names = []
    while encoded:
        names.append(encoded[1:1 + encoded[0]])
        encoded = encoded[1 + encoded[0]:]
    return tuple(names)
