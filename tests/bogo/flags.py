"""The shim's command line: a table of the flags it knows, and the parser that fills Options from them.

A flag stands in one of five tables: what its value is, or that it has none. Flags that change nothing for this engine
are read and passed over, with the reason beside them. Any other flag raises Unimplemented, which ends the shim with
the runner's exit status for "not offered here".
"""


class UnimplementedError(Exception):
    """The runner asks for something the engine does not offer; the argument says what."""


SWITCHES = (
    "server", "ipv6", "is-handshaker-supported",
    # how the stream is fed and what is written when
    "async", "shim-writes-first", "shim-shuts-down", "check-close-notify", "write-different-record-sizes",
    "key-update", "key-update-before-read", "read-with-unfinished-write",
    # versions, tickets and early data
    "no-tls1", "no-tls11", "no-tls12", "no-tls13", "no-ticket", "enable-early-data",
    "use-ticket-callback", "use-ticket-aead-callback", "skip-ticket",
    "fips-202205", "wpa-202304", "cnsa-202407", "cnsa1-202603", "cnsa2-202603",
    # names, protocols, key shares, trust
    "no-server-name-ack", "decline-alpn", "reject-alpn", "no-key-shares",
    "verify-peer", "verify-fail", "expect-verify-result",
    "use-custom-verify-callback", "require-any-client-certificate", "expect-no-peer-cert",
    "reverify-on-resume", "use-export-context", "tls-unique",
    # what stands beside certificates, and their compression
    "enable-ocsp-stapling", "enable-signed-cert-timestamps", "install-cert-compression-algs",
    "use-ocsp-callback", "set-ocsp-in-callback", "decline-ocsp-callback", "fail-ocsp-callback",
    # a server's decisions by the ClientHello
    "use-early-callback", "fail-early-callback", "install-ddos-callback", "fail-ddos-callback", "fail-cert-callback",
    # what must have been negotiated
    "expect-no-server-name", "expect-hrr", "expect-no-hrr", "handshake-never-done",
    "expect-session-miss", "expect-no-session",
    "expect-ticket-renewal", "expect-ticket-supports-early-data", "expect-accept-early-data",
    "expect-reject-early-data", "expect-no-offer-early-data",
)
NUMBERS = (
    "port", "shim-id", "resume-count", "min-version", "max-version", "repeat-shim-initial-write",
    "export-keying-material", "resumption-delay", "install-one-cert-compression-alg", "early-write-after-message",
    "expect-version", "expect-cipher", "expect-cipher-aes", "expect-curve-id", "expect-peer-signature-algorithm",
    "expect-selected-credential", "expect-ticket-age-skew",
)
NUMBER_LISTS = ("curves", "key-shares", "verify-prefs", "expect-peer-verify-pref")
CREDENTIAL_NUMBER_LISTS = ("signing-prefs",)
TEXTS = (
    "shim-initial-write", "ticket-key", "host-name", "expect-server-name", "advertise-alpn", "select-alpn",
    "expect-alpn", "expect-advertised-alpn", "expect-peer-cert-file", "cipher", "use-client-ca-list",
    "expect-client-ca-list", "expect-certificate-types", "export-label", "export-context",
    "expect-ocsp-response", "expect-signed-cert-timestamps",
)
CREDENTIAL_TEXTS = (
    "cert-file", "key-file",
    "ocsp-response", "signed-cert-timestamps", "delegated-credential",      # in base64
)
CREDENTIAL_SWITCHES = ("must-match-issuer",)
NEW_CREDENTIALS = ("new-x509-credential", "new-delegated-credential")

# Flags without a value that may be passed over, and why.
NEEDLESS_SWITCHES = {
    "implicit-handshake": "the engine has no handshake call: bytes in, bytes out",
    "handshake-twice": "as above",
    "no-op-extra-handshake": "as above",
    "partial-write": "the engine takes whole writes",
    "peek-then-read": "the engine hands every byte over once; there is nothing to peek into",
    "renegotiate-freely": "there is no renegotiation, whatever is allowed",
    "renegotiate-once": "as above",
    "renegotiate-ignore": "as above",
    "renegotiate-explicit": "as above",
    "forbid-renegotiation-after-handshake": "as above",
    "use-old-client-cert-callback": "there is one way to give a certificate",
    "server-preference": "the only order this engine knows",
    "expect-extended-master-secret": "the runner computes the master secret too: it cannot be wrong and work",
    "expect-secure-renegotiation": "the runner checks the extension",
    "expect-no-session-id": "a server keeps no sessions: its tickets hold them",
    "no-legacy-server-connect": "such servers are always refused",
    "cbc-record-splitting": "there is no CBC",
    "false-start": "our side waits for the Finished all the same",
    "allow-false-start-without-alpn": "as above",
}
# The same for flags with a value.
NEEDLESS_VALUES = {
    "advertise-npn": "ALPN, which is offered beside it, is what the server has to take",
    "trust-cert": "trust is the verify callback's affair; BoringSSL's own shim accepts any chain too",
    "read-size": "the engine delivers a record at a time",
    "expect-cipher-no-aes": "this engine serves machines with AES instructions",
    "expect-total-renegotiations": "there are none",
    "expect-early-data-reason": "BoringSSL's own words",
    "write-settings": "for fuzzers' corpora",
}

VALUES = {*NUMBERS, *NUMBER_LISTS, *CREDENTIAL_NUMBER_LISTS, *CREDENTIAL_TEXTS}


class Options:
    """What the flags say. An attribute per flag, with '-' as '_'; a switch is False, a number 0, a text None unless
    it was given, and key_shares is None (the engine's choice) or a list."""

    def __init__(self):
        for name in SWITCHES:
            setattr(self, attribute(name), False)
        for name in NUMBERS:
            setattr(self, attribute(name), 0)
        for name in TEXTS:
            setattr(self, attribute(name), None)
        self.expect_selected_credential = None
        self.expect_ticket_age_skew = None
        self.shim_initial_write = b"hello"
        self.repeat_shim_initial_write = 1
        self.curves = []
        self.verify_prefs = []
        self.expect_peer_verify_pref = []
        self.key_shares = None
        self.credentials = [{}]         # the first is the default one; a flag of NEW_CREDENTIALS begins another

    def set(self, name, value):
        if name in NUMBER_LISTS:
            if getattr(self, attribute(name)) is None:
                setattr(self, attribute(name), [])
            getattr(self, attribute(name)).append(int(value))
        elif name in NUMBERS:
            setattr(self, attribute(name), int(value))
        elif name in CREDENTIAL_NUMBER_LISTS:
            self.credentials[-1].setdefault(attribute(name), []).append(int(value))
        elif name in CREDENTIAL_TEXTS:
            self.credentials[-1][attribute(name)] = value
        elif name == "no-key-shares":
            self.key_shares = []
        elif name in NEW_CREDENTIALS:
            self.credentials.append({})
        elif name in CREDENTIAL_SWITCHES:
            self.credentials[-1][attribute(name)] = True
        else:
            setattr(self, attribute(name), value)

    @property
    def versions(self):
        """The versions the runner allows, as a set of numbers from TLS 1.0 up."""
        off = {
            0x0301: self.no_tls1, 0x0302: self.no_tls11, 0x0303: self.no_tls12, 0x0304: self.no_tls13,
        }
        lowest, highest = self.min_version or 0x0301, self.max_version or 0x0304
        return {version for version, is_off in off.items() if not is_off and lowest <= version <= highest}


def parse(arguments):
    """(initial, resume, retry) Options of a command line without the program's name. UnimplementedError for a flag
    that stands in no table; ValueError for a number that is none; IndexError when a value is missing."""
    initial, resume, retry = Options(), Options(), Options()
    arguments = list(arguments)
    while arguments:
        flag = arguments.pop(0)
        name, targets = target(flag.removeprefix("-").removeprefix("on-shim-"), initial, resume, retry)
        if name in NEEDLESS_SWITCHES:
            continue
        if name in NEEDLESS_VALUES:
            arguments.pop(0)
        elif name in SWITCHES or name in NEW_CREDENTIALS or name in CREDENTIAL_SWITCHES:
            for options in targets:
                options.set(name, True)
        elif name in VALUES:
            value = arguments.pop(0)
            for options in targets:
                options.set(name, value)
        elif name in TEXTS:
            value = arguments.pop(0).encode("utf-8", "surrogateescape")
            for options in targets:
                options.set(name, value)
        else:
            raise UnimplementedError(f"-{name}")
    return initial, resume, retry


def target(name, initial, resume, retry):
    """The flag without its prefix, and the Options it is for."""
    for prefix, options in (("on-initial-", initial), ("on-resume-", resume), ("on-retry-", retry)):
        if name.startswith(prefix):
            return name.removeprefix(prefix), (options,)
    return name, (initial, resume, retry)


def attribute(name):
    return "async_" if name == "async" else name.replace("-", "_")
