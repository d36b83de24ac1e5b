"""Our engine against other people's, in both roles: each peer, version, kind of key and way of a handshake is a test.

What a cell asserts is what our end knows of the connection (edge.tls.ConnectionState), and that the data came through.
"""

import contextlib
import socket
import ssl
import threading

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge import tls
from tests.e2e.interop_peers import NAME, PEERS, REQUEST, go_version
from tests.e2e.pki import Authority

VERSIONS = ("1.2", "1.3")
KINDS = ("ecdsa", "rsa", "ed25519")
WAYS = ("full", "resumed", "retry", "client_certificate", "key_update", "mlkem")
ROLES = ("server", "client")    # ours



def have_mlkem():
    with contextlib.suppress(ValueError):
        return bool(tls.Config(groups=["x25519mlkem768"]))
    return False


# (role, peer, version, kind, way), "*" for any: why there is no such test.
LEFT_OUT = {
    ("*", "*", "1.2", "*", "retry"): "TLS 1.2 has no HelloRetryRequest",
    ("*", "*", "1.2", "*", "key_update"): "TLS 1.2 has no KeyUpdate",
    ("*", "go", "1.2", "*", "resumed"): "Debian 12's Go has no extended master secret: nothing is resumed",
    ("*", "*", "1.2", "*", "mlkem"): "TLS 1.2 has no hybrid groups",
    ("*", "gnutls", "*", "*", "mlkem"): "GnuTLS 3.7 and 3.8 of Debian have no ML-KEM",
    ("*", "nss", "*", "*", "mlkem"): "Debian 12's NSS has no ML-KEM",
    ("*", "python", "*", "*", "mlkem"): "the ssl module cannot choose it; OpenSSL's own programs stand for it",
    ("*", "nss", "*", "ed25519", "*"): "NSS has no Ed25519 certificates",
    ("server", "chromium", "*", "ed25519", "*"): "Chromium takes no Ed25519 certificates",
    ("client", "chromium", "*", "*", "*"): "Chromium is no server",
    ("server", "chromium", "*", "*", "client_certificate"): "headless, it asks nobody which certificate to show",
    ("server", "chromium", "*", "*", "resumed"): "it opens connections ahead of need: how many is its own affair",
    ("server", "chromium", "*", "rsa", "retry"): "a browser's start is slow: once, with ECDSA",
    ("server", "chromium", "*", "rsa", "key_update"): "a browser's start is slow: once, with ECDSA",
}
if not have_mlkem():
    LEFT_OUT["*", "*", "1.3", "*", "mlkem"] = "neither libcrypto nor the cryptography package has ML-KEM here"
if go_version() < (1, 24):
    LEFT_OUT["*", "go", "1.3", "*", "mlkem"] = "Go has ML-KEM from 1.24 on"
if ssl.OPENSSL_VERSION_INFO < (3, 5):
    LEFT_OUT["*", "openssl", "1.3", "*", "mlkem"] = "this OpenSSL has no ML-KEM"
SCHEMES = {"ecdsa": "ecdsa_secp256r1_sha256", "rsa": "rsa_", "ed25519": "ed25519"}


def left_out(cell):
    """The reason, or None."""
    for pattern, reason in LEFT_OUT.items():
        if all(p in ("*", c) for p, c in zip(pattern, cell, strict=True)):
            return reason
    return None


def cells(role):
    every = [(p, v, k, w) for p in PEERS for v in VERSIONS for k in KINDS for w in WAYS]
    return [pytest.param(cell, id="-".join(cell)) for cell in every if not left_out((role, *cell))]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("interop"))


@pytest.fixture(scope="module")
def certificates(authority):
    kinds = {"ecdsa": "p256", "rsa": "rsa", "ed25519": "ed25519"}
    return {kind: authority.issue(f"interop-{kind}", key, NAME) for kind, key in kinds.items()}


@pytest.fixture(scope="module")
def mine(authority):
    """What clients show."""
    return authority.issue("interop-client", "p256", "client.test", usage=ExtendedKeyUsageOID.CLIENT_AUTH)


@pytest.fixture(scope="module")
def peers(tmp_path_factory, authority, certificates, mine):
    """name -> Peer, made when it is first asked for."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = PEERS[name](tmp_path_factory.mktemp(name), authority.file, certificates, mine)
        return made[name]

    yield get
    for one in made.values():
        one.close()


def load(certificate):
    return tls.Certificate.load(certificate.chain, certificate.key)


class Server:
    """edge.tls as a server that answers each request; what it knew of each connection is in `states`."""

    def __init__(self, config, updates):
        self.config, self.updates = config, updates
        self.states, self.faults = [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.threads = []
        self.acceptor = threading.Thread(target=self.accept)
        self.acceptor.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self.listener.accept()
                accepted.settimeout(15)
                thread = threading.Thread(target=self.serve, args=(accepted,))
                thread.start()
                self.threads.append(thread)

    def serve(self, accepted):
        try:
            with tls.server(accepted, self.config) as conn:
                conn.handshake()
                self.states.append(conn.connection_state())
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    data = conn.read()
                    if not data:
                        return
                    request += data
                if self.updates:
                    conn._connection.request_key_update(True)
                body = f"interop {len(self.states)}\n"
                head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
                conn.write((head + body).encode())
                conn.close_write()
                while conn.read():      # to the peer's close_notify, under its new keys
                    pass
        except (tls.TlsError, OSError) as fault:
            self.faults.append(fault)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.acceptor.join()
        for thread in self.threads:
            thread.join()


def check(state, version, kind, way):
    assert state.version == f"TLSv{version}"
    assert state.resumed == (way == "resumed")
    assert state.hello_retried == (way == "retry")
    if way == "retry":
        assert state.group == "secp384r1"
    if way == "mlkem":
        assert state.group == "x25519mlkem768"
    if way != "resumed":
        assert state.signature_scheme.startswith(SCHEMES[kind])


@pytest.mark.parametrize("cell", cells("server"))
def test_server(peers, authority, certificates, mine, cell):
    name, version, kind, way = cell
    options = {"certificates": [load(certificates[kind])], "min_version": version, "max_version": version}
    if way == "retry":
        options["groups"] = ["secp384r1"]
    if way == "mlkem":
        options["groups"] = ["x25519mlkem768"]
    shows = way == "client_certificate"
    if shows:
        options.update(client_auth=tls.ClientAuth.REQUIRE, client_cas=authority.file)
    server = Server(tls.Config(**options), updates=way == "key_update")
    try:
        connections = 2 if way == "resumed" else 1
        said = peers(name).ask(server.port, version, connections, shows)
    finally:
        server.close()
    assert len(server.states) >= connections, (server.faults, said)
    assert "interop " in said, said
    check(server.states[connections - 1], version, kind, way)
    if connections == 2:
        assert not server.states[0].resumed
    if shows:                   # some send the CA's certificate, too
        assert server.states[0].peer_certificates[0] == load(mine).chain[0]
    if name != "chromium":      # which gives up connections that it opened ahead of need
        assert [fault for fault in server.faults if isinstance(fault, tls.TlsError)] == []


@pytest.mark.parametrize("cell", cells("client"))
def test_client(peers, authority, certificates, mine, cell):
    name, version, kind, way = cell
    mode = way if way in ("retry", "client_certificate") else "plain"
    port = peers(name).server(kind, mode)
    options = {"root_cas": authority.file, "min_version": version, "max_version": version}
    if way == "client_certificate":
        options["certificates"] = [load(mine)]
    if way == "retry":
        options["groups"] = ["x25519", "secp384r1"]
    if way == "mlkem":
        options["groups"] = ["x25519mlkem768"]
    config = tls.Config(**options)
    session = None
    for _ in range(2 if way == "resumed" else 1):
        with (
            socket.create_connection(("127.0.0.1", port), 15) as s,
            tls.client(s, config, server_name=NAME, session=session) as conn,
        ):
            conn.handshake()
            if way == "key_update":
                conn._connection.request_key_update(True)
            conn.write(REQUEST.encode())
            said = b""
            while b"200" not in said or b"\r\n\r\n" not in said:
                data = conn.read()
                assert data, said
                said += data
            session = conn.session
            state = conn.connection_state()
    check(state, version, kind, way)


def test_every_reason_is_for_something():
    every = [(r, p, v, k, w) for r in ROLES for p in PEERS for v in VERSIONS for k in KINDS for w in WAYS]
    for pattern in LEFT_OUT:
        assert any(all(p in ("*", c) for p, c in zip(pattern, cell, strict=True)) for cell in every), pattern
    kept = [cell for cell in every if not left_out(cell)]
    for name in PEERS:
        assert {("server", name, version, "ecdsa", "full") for version in VERSIONS} <= set(kept)
