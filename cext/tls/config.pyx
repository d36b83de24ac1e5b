"""What both ends are configured with: built once, in Python, to arrays and encoded bytes the handshake only reads.

Nothing here changes after it is built (a ClientConfig's cached leaf aside), so any number of connections share one.
"""

import ipaddress
import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr, memcmp, memset

from cext.base.wire cimport left
from cext.crypto.kx cimport (
    GROUP_SECP256R1, GROUP_SECP256R1MLKEM768, GROUP_SECP384R1, GROUP_SECP521R1, GROUP_X25519, GROUP_X25519MLKEM768,
    kx_is_hybrid)
from cext.crypto.mlkem cimport mlkem_available, mlkem_quick
from cext.crypto.sign cimport (
    ECDSA_SECP256R1_SHA256,
    ECDSA_SECP384R1_SHA384,
    ECDSA_SECP521R1_SHA512,
    ED25519,
    RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512,
    RSA_PSS_PSS_SHA256,
    RSA_PSS_PSS_SHA384,
    RSA_PSS_PSS_SHA512,
    RSA_PSS_RSAE_SHA256,
    RSA_PSS_RSAE_SHA384,
    RSA_PSS_RSAE_SHA512,
)
from cext.crypto.x509 cimport public_key as read_public_key
from cext.tls.constants cimport (
    EXT_ALPN,
    EXT_CERTIFICATE_AUTHORITIES,
    EXT_COMPRESS_CERTIFICATE,
    EXT_PSK_KEY_EXCHANGE_MODES,
    EXT_RECORD_SIZE_LIMIT,
    EXT_EC_POINT_FORMATS,
    EXT_EXTENDED_MASTER_SECRET,
    EXT_RENEGOTIATION_INFO,
    EXT_SERVER_NAME,
    EXT_SIGNATURE_ALGORITHMS,
    EXT_SIGNED_CERTIFICATE_TIMESTAMP,
    EXT_STATUS_REQUEST,
    EXT_SUPPORTED_GROUPS,
    EXT_SUPPORTED_VERSIONS,
    HS_CERTIFICATE_REQUEST,
    TLS12,
    PSK_DHE_KE,
    STATUS_OCSP,
    TLS13,
    TLS_AES_128_GCM_SHA256,
    TLS_AES_256_GCM_SHA384,
    TLS_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    handshake_failure,
    missing_extension,
    unrecognized_name,
)
from cext.tls.credential cimport NAME_MAX, fill, normal_name
from cext.tls.delegated cimport DelegatedCredential
from cext.tls.extensions cimport extension_bit, X_KEY_SHARE
from cext.tls.certificates cimport next_certificate
from cext.tls.messages12 cimport ECDSA_SIGN, RSA_SIGN
from cext.tls.negotiate cimport choose_cipher_suite12, choose_scheme, is_group12, list_has
from cext.tls.replay cimport SharedRegister
from cext.tls.session cimport LIFETIME_MAX, wall_clock

from cext.tls.compression import known_algorithms
from cext.tls.credential import known, u16_list, vector

cdef enum:
    TOGETHER = 64                                   # credentials that are entered in one go
    COOKIE_SECRET_MIN = 32
    RECORD_SIZE_LIMIT_MAX = (1 << 14) + 1
    AUTHORITIES_MAX = 1 << 14                       # bytes of certificate_authorities

SUITES13 = (TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256)
SUITES12 = (
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
)
SUITES = SUITES13 + SUITES12
GROUPS = (GROUP_X25519MLKEM768, GROUP_SECP256R1MLKEM768, GROUP_X25519, GROUP_SECP256R1, GROUP_SECP384R1)
# P-521 costs several times what P-384 does, and hardly anybody has nothing else: only where it is asked for.
OTHER_GROUPS = (GROUP_SECP521R1,)
# What a CertificateVerify may be signed with; RSA_PKCS1 is for the signatures inside certificates (section 4.2.3), and
# for a ServerKeyExchange of TLS 1.2.
SCHEMES = (
    ECDSA_SECP256R1_SHA256, ED25519, ECDSA_SECP384R1_SHA384,
    RSA_PSS_RSAE_SHA256, RSA_PSS_RSAE_SHA384, RSA_PSS_RSAE_SHA512,
    RSA_PSS_PSS_SHA256, RSA_PSS_PSS_SHA384, RSA_PSS_PSS_SHA512,
)
OTHER_SCHEMES = (ECDSA_SECP521R1_SHA512,)           # which a peer may sign by only where they are asked for
CERTIFICATE_SCHEMES = (RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512)


CLIENT_AUTH = {"none": CLIENT_AUTH_NONE, "request": CLIENT_AUTH_REQUEST, "require": CLIENT_AUTH_REQUIRE}


cdef class ServerConfig:
    """What a server negotiates with.

    `credentials`: the first is the default, for clients without SNI or with an unknown one; with it stand those of the
    same chain (a delegated one has its certificate's), or that share a name with it. Of several for one name the first whose key fits the client's signature_algorithms is taken.
    `cipher_suites`: of both versions, each version's in order of preference. `min_version`, `max_version`: 0x0303 or
    0x0304; a version without a suite and a group of its own is not spoken.
    `groups`: preferred first; but one the client has sent a share of goes before one that it would have to be asked for.
    Hybrids are of TLS 1.3 alone, and left out where nothing does ML-KEM.
    `alpn`: protocols, preferred first; () ignores ALPN. `require_sni`: clients without a known name are refused.
    `cookie_secret`: at least 32 bytes, the same wherever a client's second ClientHello may arrive; None: a random one.
    `client_auth`: a key of CLIENT_AUTH. `verify_client(chain)` gets the client's DER certificates, leaf first, and
    raises to distrust them (an exception's `description` may be the alert); it is asked again before a session is
    resumed. None trusts whoever holds the key of what is shown.
    `client_authorities`: DER names (RFC 8446 section 4.2.4) that help clients to choose; not sent when too many.
    `certificate_compression`: algorithms (cext.tls.compression) that clients may compress theirs by; what ours are
    compressed by is the Credential's.
    `client_schemes`: SignatureSchemes that they may sign by; those of RSASSA-PKCS1-v1_5 are for TLS 1.2 and for
    certificates only.
    `key_log(line)` gets each secret as a line of an NSS key log: whoever reads them reads the connection.
    `record_size_limit`: bytes of a record, its type included, that a client which knows RFC 8449 may send: 64 to 16385. TLS 1.2
    has no type to count.
    `policy`: the connection's owner chooses configuration and credential by the ClientHello (TLS_WAIT_POLICY); there
    may be no credentials then.
    `tickets`: TicketKeys or WrappedTickets; None: no resumption. `ticket_lifetime`: seconds, at most seven days.
    `psk_ke`: also resume without a key exchange, which gives up forward secrecy. `max_early_data`: bytes of 0-RTT data;
    `early_window`: milliseconds by which a ticket's age by the client's clock may differ from ours; `replay`: the register
    that lets early data be taken once, and remembers for twice the window; None: one of this process and its children.
    ValueError for anything that cannot work.
    """

    def __init__(self, credentials, *, alpn=(b"http/1.1",), cipher_suites=SUITES, groups=GROUPS, cookie_secret=None,
                 bint require_sni=False, bint policy=False, TicketSealer tickets=None, int ticket_count=2,
                 int ticket_lifetime=86400, bint psk_ke=False, int max_early_data=0, int early_window=10000,
                 ReplayRegister replay=None, min_version=TLS12, max_version=TLS13, client_auth="none",
                 verify_client=None, client_authorities=(), client_schemes=SCHEMES + CERTIFICATE_SCHEMES,
                 key_log=None, record_size_limit=RECORD_SIZE_LIMIT_MAX, certificate_compression=()):
        self.credentials = tuple(credentials)
        if not (self.credentials or policy) or not all(isinstance(credential, Credential) for credential in self.credentials):
            raise ValueError("a server needs at least one Credential")
        self.alpn = tuple(bytes(protocol) for protocol in alpn)
        self.alpn_list = protocol_names(self.alpn)
        groups = known_groups(groups)
        suites13, suites12 = suites_of_versions(cipher_suites, min_version, max_version, groups)
        self.n_cipher_suites = fill(self.cipher_suites, suites13, "cipher suite")
        self.n_cipher_suites12 = fill(self.cipher_suites12, suites12, "cipher suite")
        self.min_version = TLS12 if suites12 else TLS13
        self.max_version = TLS13 if suites13 else TLS12
        self.n_groups = fill(self.groups, groups, "group")
        self.cookie_secret = os.urandom(COOKIE_SECRET_MIN) if cookie_secret is None else bytes(cookie_secret)
        if len(self.cookie_secret) < COOKIE_SECRET_MIN:
            raise ValueError(f"cookie_secret is shorter than {COOKIE_SECRET_MIN} bytes")
        self.require_sni = require_sni
        self.policy = policy
        self.certificate_compression = known_algorithms(certificate_compression)
        self.decompresses = len(self.certificate_compression) > 0
        self.set_client_auth(client_auth, verify_client, client_authorities, client_schemes)
        self.key_log = checked_key_log(key_log)
        self.record_size_limit = checked_record_size_limit(record_size_limit)
        self.set_resumption(tickets, ticket_count, ticket_lifetime, psk_ke)
        self.set_early_data(max_early_data, early_window, replay)
        self.exact = {}
        self.wildcard = {}
        first = self.credentials[0] if self.credentials else None
        of_first = frozenset(first.names) if first is not None else frozenset()
        default = []
        # Wildcards are found by what follows their label: a handshake looks up at most two names.
        for i, credential in enumerate(self.credentials):
            if i % TOGETHER == 0:
                with nogil:             # other threads have their turn: there may be a loop that waits
                    pass
            if credential is first or credential.chain == first.chain or not of_first.isdisjoint(credential.names):
                default.append(credential)
            for name in credential.names:
                index = self.wildcard if name.startswith("*.") else self.exact
                key = name.removeprefix("*.").encode()
                index[key] = (*index.get(key, ()), credential)
        self.default = tuple(default)

    cdef int set_client_auth(self, str mode, object verify, object authorities, object schemes) except -1:
        if mode not in CLIENT_AUTH:
            raise ValueError(f"client_auth: {mode!r} is none of {', '.join(CLIENT_AUTH)}")
        if verify is not None and (mode == "none" or not callable(verify)):
            raise ValueError("verify_client: a callable, beside a client_auth that asks for certificates")
        self.client_auth = CLIENT_AUTH[mode]
        self.verify_client = verify
        schemes = known(schemes, SCHEMES + OTHER_SCHEMES + CERTIFICATE_SCHEMES, "signature scheme")
        self.certificate_request = certificate_request(authorities, schemes, self.certificate_compression)
        self.certificate_request12 = certificate_request12(authorities, schemes)
        of13 = [scheme for scheme in schemes if scheme not in CERTIFICATE_SCHEMES]
        self.n_schemes = fill(self.schemes, of13, "signature scheme")
        self.n_schemes12 = fill(self.schemes12, schemes, "signature scheme")
        return 0

    cdef int set_resumption(self, TicketSealer tickets, int count, int lifetime, bint psk_ke) except -1:
        if not 0 <= count <= TICKETS_MAX or not 0 < lifetime <= LIFETIME_MAX:
            raise ValueError(f"at most {TICKETS_MAX} tickets, for at most {LIFETIME_MAX} seconds")
        self.tickets = tickets
        self.ticket_count = count
        self.ticket_lifetime = lifetime
        self.psk_ke = psk_ke
        return 0

    cdef int set_early_data(self, int max_early_data, int window, ReplayRegister replay) except -1:
        if max_early_data < 0 or window <= 0:
            raise ValueError("max_early_data or early_window is out of range")
        if max_early_data and replay is None:
            replay = SharedRegister(2 * window)
        # A ClientHello may come `window` too early by its ticket's age and, sent again, as much too late.
        if max_early_data and replay.keeps < 2 * <uint64_t> window:
            raise ValueError("the replay register remembers for less than twice early_window")
        self.max_early_data = max_early_data
        self.early_window = window
        self.replay = replay
        return 0

    cdef Credential select_credential(self, const ClientHello *ch, int version, Selection *selection):
        cdef char name[NAME_MAX]
        cdef const char *dot
        cdef size_t n
        cdef Credential found = None
        cdef object named, covered
        memset(selection, 0, sizeof(Selection))
        selection.alert = handshake_failure                 # until there is a credential
        selection.reason = "no certificate's key fits the client's signature_algorithms"
        if ch.server_name.p == NULL:
            if self.require_sni:
                selection.alert = missing_extension         # RFC 8446 section 9.2
                selection.reason = "the client sent no server_name"
                return None
            return self.first_fit(self.default, ch, version, selection)

        n = lower_name(ch.server_name, name)
        named = self.exact.get(PyBytes_FromStringAndSize(name, n)) if self.exact else None
        covered = None
        if self.wildcard:                                   # it stands for the first label, and for that alone
            dot = <const char *> memchr(name, c'.', n)
            if dot != NULL and dot != name:
                covered = self.wildcard.get(PyBytes_FromStringAndSize(dot + 1, name + n - dot - 1))
        if named is None and covered is None:
            if self.require_sni:
                selection.alert = unrecognized_name         # RFC 6066 section 3
                selection.reason = "no certificate has the client's server_name"
                return None
            return self.first_fit(self.default, ch, version, selection)
        # No name of the client's is ever answered with another name's certificate, except by the default when there is
        # none of it at all.
        if named is not None:
            found = self.first_fit(named, ch, version, selection)
        if found is None and covered is not None:
            found = self.first_fit(covered, ch, version, selection)
        selection.matched = found is not None
        return found

    cdef Credential first_fit(self, tuple candidates, const ClientHello *ch, int version, Selection *selection):
        cdef Credential credential
        cdef int scheme
        cdef int suite = 0
        selection.alert = handshake_failure
        selection.reason = "no certificate's key fits the client's signature_algorithms"
        for credential in candidates:
            if credential.match_issuer and not credential.is_issued_by(ch.certificate_authorities):
                selection.reason = "the client names no issuer of a certificate's"
                continue
            if version == TLS12:
                suite = self.fit12(credential, ch, selection)
                if suite < 0:
                    continue
                scheme = choose_scheme(credential.schemes12, credential.n_schemes12, ch.signature_algorithms)
            elif credential.delegated is not None:
                scheme = delegated_scheme(credential.delegated, ch)
            else:
                scheme = choose_scheme(credential.schemes, credential.n_schemes, ch.signature_algorithms)
            if scheme > 0:
                selection.scheme = <uint16_t> scheme
                selection.cipher_suite = <uint16_t> suite
                selection.alert = 0
                return credential
        return None

    cdef int fit12(self, Credential credential, const ClientHello *ch, Selection *selection) noexcept nogil:
        """The cipher suite of TLS 1.2 that goes with a credential, or -handshake_failure."""
        cdef int suite
        # "the server's certificate MUST contain ... a public key on one of the curves" the client named (RFC 8422,
        # section 5.1).
        if credential.curve and not list_has(ch.supported_groups, credential.curve):
            selection.reason = "no certificate's key is on a curve of the client's supported_groups"
            return -handshake_failure
        suite = choose_cipher_suite12(ch, self.cipher_suites12, self.n_cipher_suites12, credential.ecdsa)
        if suite < 0:
            selection.reason = "no cipher suite in common that fits a certificate"
        return suite


cdef int delegated_scheme(DelegatedCredential delegated, const ClientHello *ch) noexcept nogil:
    """The SignatureScheme of a CertificateVerify by it, for a client that takes it by that and by what its certificate
    signed it with (RFC 9345, section 4.1.1), or -handshake_failure."""
    if (list_has(ch.delegated_credential, delegated.scheme) and list_has(ch.signature_algorithms, delegated.algorithm)
            and wall_clock() < delegated.expires):
        return delegated.scheme
    return -handshake_failure


cdef class ClientConfig:
    """What a client offers.

    A minimal client, for tests and load: that the server holds its certificate's key is always checked
    (CertificateVerify), but with `verify` None no trust in the certificate is. `verify(chain, server_name)` gets the
    server's DER certificates, leaf first, and raises to distrust them.

    `server_name`: str or None; an IP address is not sent as SNI (RFC 6066 section 3) but `verify` gets it.
    `cipher_suites`: of both versions. `min_version`, `max_version`: 0x0303 or 0x0304; a version without a suite and a
    group of its own is not offered. `groups`: as ServerConfig's.
    `key_share_groups`: those a share is sent of; None: the first curve of `groups` and, where libcrypto does ML-KEM, the
    first hybrid; (): none, to be asked for one.
    `schemes`: SignatureSchemes that the server may sign by, preferred first; those of RSASSA-PKCS1-v1_5 are for TLS 1.2
    and for certificates only.
    `session`: what Connection.session gave after an earlier handshake; it is offered only where it may be. `early_data`:
    offer that, too, when the session allows it. `tickets`: False neither offers sessions nor takes new ones.
    `verify_resumed`: `verify` is asked again when the server resumes one. `credentials`: a server that asks for a
    certificate is shown the first that can sign as it wants, and whose issuer it names where a credential's match_issuer
    demands that; none when none fits. `policy`: the connection's owner chooses by the CertificateRequest
    (TLS_WAIT_CERTIFICATE).
    `status_request`, `signed_certificate_timestamp`: ask for an OCSP response, and for timestamps of Certificate
    Transparency logs; what comes is the connection's to tell, only its shape is checked. `verify_status(chain,
    ocsp_response)`: asked about the first in each full handshake, b"" when none came, and raises to refuse.
    `certificate_compression`: algorithms (cext.tls.compression) that the server may use; what our own certificates are
    compressed by is the Credential's.
    `key_log`, `record_size_limit`: as ServerConfig's; None does not offer the latter. `middlebox_compatibility`: RFC 8446 appendix D.4.
    ValueError for anything that cannot work.
    """

    def __init__(self, *, server_name=None, alpn=(), cipher_suites=SUITES, groups=GROUPS, key_share_groups=None,
                 schemes=SCHEMES + CERTIFICATE_SCHEMES, verify=None, bint middlebox_compatibility=True,
                 min_version=TLS12, max_version=TLS13, Session session=None, bint early_data=False,
                 bint tickets=True, bint verify_resumed=False, credentials=(), bint policy=False, key_log=None,
                 record_size_limit=None, bint status_request=False, bint signed_certificate_timestamp=False,
                 verify_status=None, certificate_compression=()):
        self.server_name = (server_name or "").encode("ascii")
        self.alpn = tuple(bytes(protocol) for protocol in alpn)
        self.alpn_list = protocol_names(self.alpn)
        self.verify = verify
        self.verify_resumed = verify_resumed
        self.policy = policy
        self.credentials = tuple(credentials)
        if not all(isinstance(one, Credential) and (<Credential> one).delegated is None for one in self.credentials):
            raise ValueError("a client shows Credentials, none of them delegated")
        self.verify_status = verify_status
        self.certificate_compression = known_algorithms(certificate_compression)
        self.key_log = checked_key_log(key_log)
        if record_size_limit is not None:
            self.record_size_limit = checked_record_size_limit(record_size_limit)
        self.middlebox_compatibility = middlebox_compatibility
        self.tickets = tickets
        self.session = session
        self.early_data = early_data
        groups = known_groups(groups)
        suites13, suites12 = suites_of_versions(cipher_suites, min_version, max_version, groups)
        self.n_cipher_suites = fill(self.cipher_suites, suites13, "cipher suite")
        self.n_cipher_suites12 = fill(self.cipher_suites12, suites12, "cipher suite")
        self.min_version = TLS12 if suites12 else TLS13
        self.max_version = TLS13 if suites13 else TLS12
        if not suites13:
            groups = tuple(group for group in groups if is_group12(group))
        self.n_groups = fill(self.groups, groups, "group")
        key_share_groups = default_shares(groups) if key_share_groups is None else tuple(key_share_groups)
        if len(key_share_groups) > KEY_SHARES_MAX or len(set(key_share_groups)) != len(key_share_groups):
            raise ValueError(f"at most {KEY_SHARES_MAX} key shares, of different groups")
        for group in key_share_groups:
            if group not in groups:
                raise ValueError(f"key share of a group that is not offered: 0x{group:04x}")
        self.n_key_share_groups = fill(self.key_share_groups, key_share_groups, "key share group")
        schemes = known(schemes, SCHEMES + OTHER_SCHEMES + CERTIFICATE_SCHEMES, "signature scheme")
        schemes13 = [scheme for scheme in schemes if scheme not in CERTIFICATE_SCHEMES]
        self.n_schemes = fill(self.schemes, schemes13, "signature scheme")
        self.n_schemes12 = fill(self.schemes12, schemes, "signature scheme")
        self.cipher_suite_list = u16_list(suites13 + suites12)
        sent = [
            (EXT_SUPPORTED_GROUPS, vector(2, u16_list(groups))),
            (EXT_SIGNATURE_ALGORITHMS, vector(2, u16_list(schemes))),
        ]
        if suites13:
            versions = u16_list((TLS13, TLS12)) if suites12 else u16_list((TLS13,))
            sent.insert(0, (EXT_SUPPORTED_VERSIONS, vector(1, versions)))
            if tickets:
                sent.append((EXT_PSK_KEY_EXCHANGE_MODES, vector(1, bytes([PSK_DHE_KE]))))
        if suites12:
            sent.append((EXT_EXTENDED_MASTER_SECRET, b""))
            sent.append((EXT_RENEGOTIATION_INFO, b"\0"))
            sent.append((EXT_EC_POINT_FORMATS, b"\1\0"))
        if self.server_name and not is_address(self.server_name):
            host_name = normal_name(self.server_name.decode()).encode()
            sent.append((EXT_SERVER_NAME, vector(2, b"\0" + vector(2, host_name))))
        if self.record_size_limit:
            if not suites13:                # which alone counts the type
                self.record_size_limit = min(self.record_size_limit, RECORD_SIZE_LIMIT_MAX - 1)
            sent.append((EXT_RECORD_SIZE_LIMIT, u16_list((self.record_size_limit,))))
        if status_request:              # of any responder, with no extensions (RFC 6066, section 8)
            sent.append((EXT_STATUS_REQUEST, bytes([STATUS_OCSP]) + bytes(4)))
        if signed_certificate_timestamp:
            sent.append((EXT_SIGNED_CERTIFICATE_TIMESTAMP, b""))
        if self.certificate_compression and suites13:
            sent.append(compress_certificate(self.certificate_compression))
        if self.alpn:
            sent.append((EXT_ALPN, vector(2, self.alpn_list)))
        self.extensions = b"".join(int(type).to_bytes(2, "big") + vector(2, body) for type, body in sent)
        self.offered = <uint64_t> 1 << <int> X_KEY_SHARE if suites13 else 0
        for type, _ in sent:
            self.offered |= extension_bit(<uint16_t> type)

    cdef Credential select_credential(self, Credential chosen, int version, const Wanted *wanted, int *scheme):
        cdef Credential credential
        if chosen is not None:
            scheme[0] = scheme_for(chosen, version, wanted) if chosen.delegated is None else -handshake_failure
            return chosen if scheme[0] > 0 else None
        for credential in self.credentials:
            if credential.match_issuer and not credential.is_issued_by(wanted.authorities):
                continue
            scheme[0] = scheme_for(credential, version, wanted)
            if scheme[0] > 0:
                return credential
        return None

    cdef PublicKey public_key(self, Reader leaf):
        cdef const char *cached
        if self.leaf_der is not None and <size_t> len(self.leaf_der) == left(&leaf):
            cached = self.leaf_der
            if memcmp(cached, leaf.p, left(&leaf)) == 0:
                return self.leaf_key
        der = PyBytes_FromStringAndSize(<const char *> leaf.p, left(&leaf))
        self.leaf_key = read_public_key(der)
        self.leaf_der = der
        return self.leaf_key

    cdef tuple chain_of(self, Reader entries):
        cdef const char *cached
        if self.entries is not None and <size_t> len(self.entries) == left(&entries):
            cached = self.entries
            if memcmp(cached, entries.p, left(&entries)) == 0:
                return self.chain
        chain = read_chain(entries)
        self.entries = PyBytes_FromStringAndSize(<const char *> entries.p, left(&entries))
        self.chain = chain
        return chain

    cdef tuple shared_chain(self, tuple chain):
        if self.chain == chain:
            return self.chain
        self.entries = None
        self.chain = chain
        return chain


cdef int scheme_for(Credential credential, int version, const Wanted *wanted) noexcept nogil:
    cdef uint8_t type = ECDSA_SIGN if credential.ecdsa else RSA_SIGN
    if version != TLS12:
        return choose_scheme(credential.schemes, credential.n_schemes, wanted.schemes)
    if memchr(wanted.types.p, type, left(&wanted.types)) == NULL:
        return -handshake_failure
    return choose_scheme(credential.schemes12, credential.n_schemes12, wanted.schemes)


cdef tuple read_chain(Reader entries):
    cdef Reader der
    cdef list chain = []
    while next_certificate(&entries, &der):
        chain.append(PyBytes_FromStringAndSize(<const char *> der.p, left(&der)))
    return tuple(chain)


cdef size_t lower_name(Reader name, char *out) noexcept nogil:
    """The name (at most 255 bytes, as parsed) in lower case, without a final dot; its length."""
    cdef size_t n = left(&name)
    cdef size_t i
    for i in range(n):
        out[i] = name.p[i] | 0x20 if c'A' <= name.p[i] <= c'Z' else name.p[i]
    if n > 1 and out[n - 1] == c'.':
        n -= 1
    return n


def suites_of_versions(cipher_suites, min_version, max_version, groups):
    """(those of TLS 1.3, those of TLS 1.2) that are to be used."""
    if min_version not in (TLS12, TLS13) or max_version not in (TLS12, TLS13) or min_version > max_version:
        raise ValueError(f"versions from 0x{min_version:04x} to 0x{max_version:04x}: TLS 1.2 is 0x0303, 1.3 0x0304")
    cipher_suites = known(cipher_suites, SUITES, "cipher suite")
    suites13 = tuple(suite for suite in cipher_suites if suite in SUITES13 and max_version == TLS13)
    suites12 = tuple(suite for suite in cipher_suites if suite in SUITES12 and min_version == TLS12)
    if not any(is_group12(group) for group in groups):
        suites12 = ()
    if not suites13 and not suites12:
        raise ValueError("no cipher suite, or no group, is of a version that is allowed")
    return suites13, suites12


def known_groups(groups):
    """The groups without those that cannot be used here."""
    groups = known(groups, GROUPS + OTHER_GROUPS, "group")
    if any(kx_is_hybrid(group) for group in groups) and not mlkem_available():
        groups = tuple(group for group in groups if not kx_is_hybrid(group))
        if not groups:
            raise ValueError("groups: neither libcrypto nor the cryptography package does ML-KEM here")
    return groups


def default_shares(groups):
    """One of each sort, most servers having the one or the other; but the second must not cost more than the chance
    that it is wanted is worth."""
    curve = [group for group in groups if not kx_is_hybrid(group)][:1]
    hybrid = [group for group in groups if kx_is_hybrid(group)][:1] if mlkem_quick() or not curve else []
    return tuple(group for group in groups if group in curve + hybrid)


def compress_certificate(algorithms):
    """The extension that offers them (RFC 8879, section 3)."""
    return EXT_COMPRESS_CERTIFICATE, vector(1, u16_list([algorithm.number for algorithm in algorithms]))


def certificate_request(authorities, schemes, compression):
    """A CertificateRequest (RFC 8446, section 4.3.2), whole."""
    sent = [(EXT_SIGNATURE_ALGORITHMS, vector(2, u16_list(schemes)))]
    names = distinguished_names(authorities)
    if names:
        sent.append((EXT_CERTIFICATE_AUTHORITIES, vector(2, names)))
    if compression:
        sent.append(compress_certificate(compression))
    extensions = b"".join(int(type).to_bytes(2, "big") + vector(2, body) for type, body in sent)
    return bytes([HS_CERTIFICATE_REQUEST]) + vector(3, b"\0" + vector(2, extensions))


def certificate_request12(authorities, schemes):
    """The same of TLS 1.2 (RFC 5246, section 7.4.4)."""
    body = vector(1, bytes([ECDSA_SIGN, RSA_SIGN])) + vector(2, u16_list(schemes))
    return bytes([HS_CERTIFICATE_REQUEST]) + vector(3, body + vector(2, distinguished_names(authorities)))


def distinguished_names(authorities):
    """DER names as both lists have them; none when they are too many."""
    authorities = [bytes(name) for name in authorities]
    if not all(0 < len(name) < 0x10000 for name in authorities):
        raise ValueError("client_authorities: DER names, none empty")
    names = b"".join(vector(2, name) for name in authorities)
    return names if len(names) <= AUTHORITIES_MAX else b""


def checked_record_size_limit(limit):
    if not 64 <= limit <= RECORD_SIZE_LIMIT_MAX:
        raise ValueError(f"record_size_limit: from 64 to {RECORD_SIZE_LIMIT_MAX}")
    return limit


def checked_key_log(key_log):
    if key_log is not None and not callable(key_log):
        raise ValueError("key_log: a callable that takes a line")
    return key_log


def protocol_names(protocols):
    if not all(0 < len(protocol) < 256 for protocol in protocols):
        raise ValueError("an ALPN protocol is 1 to 255 bytes")
    encoded = b"".join(vector(1, protocol) for protocol in protocols)
    if len(encoded) > 0xFFFF:
        raise ValueError("too many ALPN protocols")
    return encoded


def is_address(server_name):
    try:
        ipaddress.ip_address(server_name.decode())
    except ValueError:
        return False
    return True
