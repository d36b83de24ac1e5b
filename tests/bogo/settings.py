"""From the runner's flags to a configuration of the engine."""

import binascii
import os

from cext.crypto.kx import SECP256R1MLKEM768, X25519MLKEM768
from cext.crypto.sign import PrivateKey
from cext.tls.alert import TlsAlert
from cext.tls.config import (
    CERTIFICATE_SCHEMES,
    GROUPS,
    OTHER_GROUPS,
    OTHER_SCHEMES,
    SCHEMES,
    SUITES13,
    ClientConfig,
    ServerConfig,
)
from cext.tls.credential import Credential
from cext.tls.replay import SharedRegister
from cext.tls.session import TicketKeys, WrappedTickets
from flags import UnimplementedError

TLS12, TLS13 = 0x0303, 0x0304
# The certificates of the runner bear no name that its ClientHello asks for: one name for all makes them candidates
# alike, in their order.
NAMES = ("shim.example",)
HYBRIDS = (X25519MLKEM768, SECP256R1MLKEM768)
KNOWN_SCHEMES = SCHEMES + OTHER_SCHEMES + CERTIFICATE_SCHEMES
NO_PROTOCOL = b"\0none"     # offered by nobody: every ALPN list is refused
HANDSHAKE_FAILURE, CERTIFICATE_UNKNOWN = 40, 46
EARLY_WINDOW = 60_900       # milliseconds that a ticket's age may be off: BoringSSL's 60 are whole seconds
EARLY_DATA = 14336          # bytes that a server takes: the runner goes up to and beyond it

SUITES12 = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": 0xC02B, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": 0xC02F,
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": 0xC02C, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": 0xC030,
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA9, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA8,
}
# What the runner writes in OpenSSL's rule language.
CIPHER_RULES = {
    "ALL:3DES": tuple(SUITES12.values()),       # the rest of it we do not have
    "DEFAULT:!AES": (0xCCA9, 0xCCA8),
    "AES128": (0xC02B, 0xC02F),
}


# BoringSSL's compliance policies, as what a configuration of ours says: (lowest version, cipher suites of TLS 1.3,
# those of TLS 1.2, groups, signature schemes). 0x0202 is MLKEM1024.
POLICIES = {
    "fips_202205": (
        TLS12, (0x1301, 0x1302), (0xC02B, 0xC02F, 0xC02C, 0xC030), (0x0017, 0x0018),
        (0x0401, 0x0501, 0x0601, 0x0403, 0x0503, 0x0804, 0x0805, 0x0806)),
    "wpa_202304": (
        TLS12, (0x1302,), (0xC02C, 0xC030), (0x0018,), (0x0501, 0x0601, 0x0503, 0x0805, 0x0806)),
    "cnsa1_202603": (
        TLS12, (0x1302,), (0xC02C, 0xC030), (0x0202, 0x0018), (0x0501, 0x0503, 0x0805)),
    "cnsa2_202603": (
        TLS13, (0x1302,), (), (0x0202,), (0x0501, 0x0503, 0x0805)),
    "cnsa_202407": (
        TLS12, (0x1302, 0x1301, 0x1303), tuple(SUITES12.values()), GROUPS, SCHEMES + CERTIFICATE_SCHEMES),
}


def build(options, retry, memory):
    """A ServerConfig or ClientConfig; `memory` is the Memory of the connections before, `retry` are the Options for a
    client whose early data was rejected."""
    if not spoken(options):
        raise UnimplementedError("TLS 1.1 and older")
    return server(options, memory) if options.server else client(options, retry, memory)


class Memory:
    """What one connection leaves to the next: a client's session; a server's ticket keys, here and in BoringSSL kept
    by its context."""

    def __init__(self):
        self.session = None
        self.shift = 0
        self.trusted = []               # chains that were verified
        self.ticket_keys = TicketKeys([(os.urandom(16), os.urandom(32))])
        self.register = None            # of early data

    def later(self, seconds):
        """How far the clock is to be shifted, milliseconds, when so many seconds more have gone by."""
        self.shift += seconds * 1000
        return self.shift

    def replay(self):
        if self.register is None:
            self.register = SharedRegister(2 * EARLY_WINDOW, capacity=1024)
        return self.register


class TicketWrapper:
    """Tickets by the application, which none but this process reads: they need no seal here. With -skip-ticket there
    are none."""

    def __init__(self, skip):
        self.skip = skip

    def wrap(self, _info, content):
        return b"" if self.skip else b"ticket:" + content

    def unwrap(self, _client_hello, ticket):
        return ticket.removeprefix(b"ticket:") if ticket.startswith(b"ticket:") else None


def tickets(options, memory):
    if options.no_ticket:
        return None
    if options.use_ticket_callback or options.use_ticket_aead_callback:
        return WrappedTickets(TicketWrapper(options.skip_ticket))
    if options.ticket_key:
        from boring_tickets import BoringTickets  # few tests need it, and what it loads

        return WrappedTickets(BoringTickets(binascii.a2b_base64(options.ticket_key)))
    return memory.ticket_keys


def server(options, memory):
    names = NAMES
    if options.expect_server_name and not options.no_server_name_ack:       # a known name is acknowledged
        names += (options.expect_server_name.decode(),)
    candidates = credentials(options, names, policy_of(options))
    if not any(options.credentials):
        raise UnimplementedError("a server without a certificate")
    protocols = (options.select_alpn,) if options.select_alpn else ()
    if options.reject_alpn:
        protocols = (NO_PROTOCOL,)
    return ServerConfig(
        candidates,
        alpn=protocols,
        # A key that the policy leaves no scheme is refused by the choice, not by the configuration.
        policy=decides_itself(options) or not candidates,
        tickets=tickets(options, memory),
        max_early_data=EARLY_DATA if options.enable_early_data else 0,
        early_window=EARLY_WINDOW,
        replay=memory.replay() if options.enable_early_data else None,
        **client_auth(options, memory),
        **common(options),
    )


def client_auth(options, memory):
    """What a server asks of its clients."""
    if not options.verify_peer and not options.require_any_client_certificate:
        return {}
    return {
        "client_auth": "require" if options.require_any_client_certificate else "request",
        "verify_client": lambda chain: give_verdict(options, memory, chain),
        "client_schemes": verify_prefs(options) or SCHEMES + CERTIFICATE_SCHEMES,
        "client_authorities": name_list(options.use_client_ca_list or b""),
    }


def give_verdict(options, memory, chain):
    # The engine asks again when a client resumes; BoringSSL's takes what it has verified before.
    if chain in memory.trusted and not options.reverify_on_resume:
        return
    memory.trusted.append(chain)
    # Where no verification is asked for, BoringSSL's verdict is not heeded.
    if options.verify_fail and (options.verify_peer or options.require_any_client_certificate):
        raise TlsAlert(CERTIFICATE_UNKNOWN if options.use_custom_verify_callback else HANDSHAKE_FAILURE,
                       "certificate verification failed")


def give_verdict_on_status(options):
    """What a client's callback says of the OCSP response, or of there being none."""
    if options.fail_ocsp_callback:
        raise ValueError("the status does not please")


def decided_credential(options):
    """What a server's OCSP callback leads to, which is a decision by the ClientHello: the credential with its response,
    or without; None where it changes nothing."""
    if not options.use_ocsp_callback or not (options.set_ocsp_in_callback or options.decline_ocsp_callback):
        return None
    fields = dict(options.credentials[0])
    if options.decline_ocsp_callback:
        fields.pop("ocsp_response", None)
    return credential(fields, -1 if options.async_ else None, NAMES)


class PrefixCompression:
    """One of the runner's compressions, which are none: some bytes are put in front, or taken away."""

    def __init__(self, number, added=b"", removed=b""):
        self.number = number
        self.added = added
        self.removed = removed

    def compress(self, data):
        return self.added + data.removeprefix(self.removed)

    def decompress(self, data, _length):
        if not data.startswith(self.added):
            raise ValueError("not what was compressed")
        return self.removed + data.removeprefix(self.added)


class RandomCompression:
    number = 0xFF03

    def compress(self, data):
        return os.urandom(1) + data

    def decompress(self, data, _length):
        return data[1:]


COMPRESSIONS = (PrefixCompression(0xFF02, added=bytes((1, 2, 3, 4))), PrefixCompression(0xFF01, removed=bytes(2)),
                RandomCompression())


def compressions(options):
    only = options.install_one_cert_compression_alg
    return [algorithm for algorithm in COMPRESSIONS
            if options.install_cert_compression_algs or algorithm.number == only]


def decides_itself(options):
    """Whether the handshake is to stop at the ClientHello: where BoringSSL's would call back."""
    return (options.async_ or options.use_early_callback or options.fail_early_callback
            or options.install_ddos_callback or options.fail_cert_callback
            or (options.use_ocsp_callback and options.server))


def client(options, retry, memory):
    # BoringSSL's asks anew once early data was rejected, ours then for the first time.
    judging = retry if options.expect_reject_early_data else options
    settings = common(options)
    policy = policy_of(options)
    if policy:
        settings["schemes"] = policy[4]
    if options.verify_prefs:
        settings["schemes"] = verify_prefs(options)
    shares = options.key_shares
    if shares is None and TLS13 in options.versions:
        shares = predicted(settings["groups"])
    if shares is not None and not set(shares) <= set(settings["groups"]):
        raise UnimplementedError("key shares of other groups")
    return ClientConfig(
        server_name=options.host_name.decode() if options.host_name else None,
        alpn=protocol_names(options.advertise_alpn or b""),
        key_share_groups=shares,
        verify=lambda chain, _server_name: give_verdict(judging, memory, chain),
        credentials=credentials(options, ()),
        policy=options.async_ or options.fail_cert_callback or wants_request(options),
        session=memory.session,
        status_request=options.enable_ocsp_stapling,
        signed_certificate_timestamp=options.enable_signed_cert_timestamps,
        verify_status=(
            (lambda _chain, _response: give_verdict_on_status(options)) if options.use_ocsp_callback else None),
        certificate_compression=compressions(options),
        verify_resumed=options.reverify_on_resume,
        early_data=options.enable_early_data,
        tickets=not options.no_ticket,
        **settings,
    )


def verify_prefs(options):
    """The signature schemes that the peer may use."""
    unknown = [scheme for scheme in options.verify_prefs if scheme not in KNOWN_SCHEMES]
    if unknown:
        raise UnimplementedError(f"signature scheme {unknown[0]:#06x}")
    return options.verify_prefs


def common(options):
    """What both ends are told alike."""
    versions = spoken(options)
    settings = {"groups": groups(options), "min_version": min(versions), "max_version": max(versions)}
    policy = policy_of(options)
    if policy:
        _, suites13, suites12, _, _ = policy
        settings["cipher_suites"] = suites13 + suites12
    if options.cipher is not None:
        settings["cipher_suites"] = SUITES13 + cipher_suites(options.cipher.decode())
    return settings


def spoken(options):
    policy = policy_of(options)
    lowest = policy[0] if policy else TLS12
    return {version for version in options.versions if version >= lowest}


def policy_of(options):
    """A row of POLICIES, or None."""
    return next((policy for name, policy in POLICIES.items() if getattr(options, name)), None)


def wants_request(options):
    """Whether a server's CertificateRequest is to be looked at."""
    return bool(options.expect_peer_verify_pref or options.expect_client_ca_list or options.expect_certificate_types)


def name_list(flag):
    """DER names as the runner gives them: in hexadecimal, between commas."""
    return tuple(bytes.fromhex(name) for name in flag.decode().split(",") if name and not name.startswith("<"))


def cipher_suites(rules):
    if rules in CIPHER_RULES:
        return CIPHER_RULES[rules]
    names = rules.replace("[", "").replace("]", "").replace("|", ":").split(":")
    if not all(name.startswith("TLS_") for name in names):
        raise UnimplementedError(f"-cipher {rules}")
    suites = tuple(SUITES12[name] for name in names if name in SUITES12)
    if not suites:
        raise UnimplementedError("none of our cipher suites")
    return suites


def groups(options):
    policy = policy_of(options)
    wanted = policy[3] if policy else options.curves or GROUPS
    known = tuple(group for group in wanted if group in GROUPS + OTHER_GROUPS)
    # A policy may go without one of its groups; the runner's own choice may not.
    if not known or (not policy and len(known) < len(wanted)):
        raise UnimplementedError(f"group {next(group for group in wanted if group not in known):#06x}")
    return known


def predicted(groups):
    """The shares that BoringSSL sends: one of each sort. So does the engine, but only where ML-KEM is quick."""
    hybrids = [group for group in groups if group in HYBRIDS]
    curves = [group for group in groups if group not in HYBRIDS]
    return [group for group in groups if group in hybrids[:1] + curves[:1]]


class RemoteKey:
    """A key that the engine cannot use itself: the handshake stops for its signature. `number`: of its credential; the
    one without -new-x509-credential is -1."""

    def __init__(self, key, number):
        self.key = key
        self.number = number

    def sign(self, message, scheme):
        if scheme in self.key.schemes:
            return self.key.sign_bytes(scheme, message)
        return self.key.sign12_bytes(scheme, message)       # in TLS 1.2 an ECDSA scheme names its hash alone


def credentials(options, names, policy=None):
    """Those that the flags give, in the order in which they are considered."""
    # Where it matters which one is taken, the signer tells.
    remote = options.async_ or options.expect_selected_credential is not None
    found = [
        credential(fields, number if remote else None, names, policy, compressions(options))
        for number, fields in enumerate(options.credentials, -1) if fields
    ]
    if options.credentials[0]:          # the one that needs no flag to begin it is the last
        found.append(found.pop(0))
    return [one for one in found if one]


def credential(fields, remote_number, names, policy=None, compression=()):
    """A Credential; None when the policy leaves its key no scheme."""
    if "cert_file" not in fields or "key_file" not in fields:
        raise UnimplementedError("a credential of another kind than certificate and key")
    with open(fields["key_file"], "rb") as file:
        pem = file.read()
    try:
        key = PrivateKey.from_pem(pem)
    except ValueError as error:
        raise UnimplementedError(f"a key that this engine does not take: {error}") from None
    schemes = fields.get("signing_prefs") or (policy and policy[4])
    if schemes is not None:
        schemes = [scheme for scheme in schemes if scheme in {*key.schemes, *key.schemes12}]
        if not schemes and policy:
            return None
        if not schemes:
            raise UnimplementedError(f"signature scheme {fields['signing_prefs'][0]:#06x}")
    if remote_number is not None:
        key = RemoteKey(key, remote_number)
    delegated = fields.get("delegated_credential")
    return Credential(
        read_chain(fields["cert_file"]), key, names, schemes,
        ocsp_response=binascii.a2b_base64(fields.get("ocsp_response", "")),
        signed_certificate_timestamps=binascii.a2b_base64(fields.get("signed_cert_timestamps", "")),
        certificate_compression=compression,
        delegated_credential=None if delegated is None else binascii.a2b_base64(delegated),
        match_issuer=fields.get("must_match_issuer", False),
    )


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
