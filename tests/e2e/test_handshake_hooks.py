"""Policies that decide handshakes, in `edge run`: the guide's examples, hooks that wait, faults, reload."""

import re
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge import handoff
from edge.tls import ClientHelloInfo
from tests.e2e.client import Client
from tests.e2e.processes import wait_until
from tests.e2e.server import Edge

GUIDE = Path(__file__).resolve().parents[2] / "docs/hooks.md"
EXAMPLES = dict(re.findall(r"```python\n# handshake: (\w+)\n(.*?)```", GUIDE.read_text(), re.DOTALL))


@pytest.fixture
def policed(tmp_path, pki, backend):
    """policed(policy's text, files={name: path}, tables={...}, **settings) -> an edge in front of `backend`."""
    started = []

    def start(text, *, files=(), tables=(), **settings):
        directory = tmp_path / f"edge{len(started)}"
        directory.mkdir()
        for name, source in dict(files).items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(source.read_bytes())
        (directory / "rules.py").write_text(text)
        server = {"hooks": "rules:Policy", **settings.pop("server", {})}
        edge = Edge(directory, pki, {"app": [backend.server]}, server=server, **settings)
        edge.tables.update(tables)
        started.append(edge)
        return edge.start()

    yield start
    for edge in started:
        edge.stop()


def ask(edge, name="edge.test", context=None):
    """The status of a request on a connection of its own, and that connection's ssl.SSLSocket."""
    with Client(edge, name=name, context=context) as client:
        client.send(b"GET /ok HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        return client.response().status, client.sock


def refused(edge, name="edge.test", context=None):
    """Why the handshake ended, or what came after it."""
    with pytest.raises(OSError) as caught:
        ask(edge, name, context)
    return str(caught.value)


def renew(edge, text):
    """Reloads with another policy."""
    (edge.directory / "rules.py").write_text(text)
    mark = edge.mark()
    edge.reload()
    edge.wait_error(r"generation \d+ serves", mark)


def fingerprint(context):
    """The client's JA4, when it names edge.test."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="edge.test").do_handshake()
    return ClientHelloInfo.parse(outgoing.read()[5:]).ja4


def test_every_example_is_tried_here():
    assert set(EXAMPLES) == {"turned_away", "partners", "tenants", "sessions"}


def test_turned_away(policed, tmp_path):
    path = tmp_path / "legacy.sock"
    came = []

    def receive(receiver):
        with receiver.accept() as connection:
            came.append(connection.data[:3])
            connection.sock.sendall(b"\x15\x03\x03\x00\x02\x02\x31")      # access_denied

    edge = policed(
        EXAMPLES["turned_away"], tables={"handoff": [{"name": "legacy", "socket": f"unix:{path}"}]}
    )
    assert ask(edge)[0] == 200
    assert "UNRECOGNIZED_NAME" in refused(edge, "db.internal").upper()
    edge.wait_error("handshake failed: unrecognized_name: .*not from outside")
    with handoff.Receiver(path) as receiver:
        thread = threading.Thread(target=receive, args=(receiver,))
        thread.start()
        assert "ACCESS_DENIED" in refused(edge, "legacy.example.com").upper().replace(" ", "_")
        thread.join(20)
    assert came == [b"\x16\x03\x01"]
    context = edge.tls_context()
    renew(edge, EXAMPLES["turned_away"].replace("t13d190900_9dc949149365_97f8aa674fd9", fingerprint(context)))
    assert not re.search("alert", refused(edge, context=context), re.IGNORECASE)
    edge.wait_error("dropped by a hook")
    renew(edge, EXAMPLES["turned_away"].replace("192.0.2.0/24", "127.0.0.0/8"))
    assert not re.search("alert", refused(edge), re.IGNORECASE)


def test_partners(policed, pki):
    edge = policed(EXAMPLES["partners"], files={"partners.pem": pki.ca.file})
    assert ask(edge)[0] == 200
    context = edge.tls_context()
    context.check_hostname = False
    assert "CERTIFICATE_REQUIRED" in refused(edge, "partners.edge.test", context).upper()
    partner = pki.ca.issue("partner", "p256", "partner.edge.test", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    context.load_cert_chain(partner.chain, partner.key)
    assert ask(edge, "partners.edge.test", context)[0] == 200
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "PROTOCOL_VERSION" in refused(edge, "partners.edge.test", context).upper()
    assert ask(edge, "edge.test", context)[0] == 200


def test_tenants(policed, pki, tmp_path):
    tenant = pki.ca.issue("tenant", "p384", "one.tenants.test")
    both = tmp_path / "both.pem"
    both.write_bytes(tenant.chain.read_bytes() + tenant.key.read_bytes())
    edge = policed(EXAMPLES["tenants"], files={"tenants/one.tenants.test.pem": both})
    for _ in range(2):
        status, _ = ask(edge, "one.tenants.test")
        assert status == 200
    assert "CERTIFICATE_VERIFY_FAILED" in refused(edge, "two.tenants.test")
    assert ask(edge)[0] == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions(policed, version):
    edge = policed(EXAMPLES["sessions"])
    context = edge.tls_context()
    context.minimum_version = context.maximum_version = version

    def connect(session=None):
        with socket.create_connection(("127.0.0.1", edge.port), timeout=20) as raw:
            sock = context.wrap_socket(raw, server_hostname="edge.test", session=session)
            sock.sendall(b"GET /ok HTTP/1.1\r\nHost: edge.test\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
            return sock.session_reused, sock.session

    reused, session = connect()
    assert not reused
    reused, _ = connect(session)
    assert reused
    renew(edge, EXAMPLES["sessions"])           # another worker, with another memory
    wait_until(lambda: not connect(session)[0], 20, "the old worker is gone")


WAITING = """
import asyncio

from edge.policy import Refuse


class Policy:
    async def client_hello(self, hello):
        await asyncio.sleep(0.01)

    async def get_config(self, hello):
        await asyncio.sleep(0.01)

    async def get_certificate(self, hello):
        await asyncio.sleep(0.01)
        if hello.server_name == "p384.edge.test":
            raise Refuse("access_denied")
        if hello.server_name == "rsa.edge.test":
            raise LookupError("the database is away")
        if hello.server_name == "ed25519.edge.test":
            await asyncio.Event().wait()
"""


def test_hooks_that_wait(policed, pki):
    edge = policed(WAITING, certificates=pki.all(), server={"hook_timeout": "300ms"})
    assert ask(edge)[0] == 200
    assert "ACCESS_DENIED" in refused(edge, "p384.edge.test").upper().replace(" ", "_")
    assert "INTERNAL_ERROR" in refused(edge, "rsa.edge.test").upper().replace(" ", "_")
    edge.wait_error(r"hook get_certificate: LookupError: the database is away; at .*rules\.py:\d+ in get_certificate")
    assert "INTERNAL_ERROR" in refused(edge, "ed25519.edge.test").upper().replace(" ", "_")
    edge.wait_error(r"hook get_certificate: HookTimeout")
    edge.wait_error(r"handshake failed: internal_error: get_certificate failed")
    assert ask(edge)[0] == 200


def test_a_policy_whose_wrapper_is_none(policed, pki, tmp_path):
    edge = policed(EXAMPLES["sessions"])
    mark = edge.mark()
    (edge.directory / "rules.py").write_text("class Policy:\n    def session_ticket_wrapper(self): ...\n")
    edge.reload()
    edge.wait_error("session_ticket_wrapper gave NoneType, which has no wrap", mark, seconds=30)
    assert ask(edge)[0] == 200
