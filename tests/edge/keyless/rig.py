"""Key servers and clients in one event loop: our own server, and one that does whatever a test wants."""

import asyncio
import contextlib
import functools
import socket

import trustme
from cext.crypto.sign import PrivateKey, PublicKey
from cext.tls.config import ServerConfig
from cext.tls.credential import Credential
from cext.tls.engine import Engine
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.clients import ClientTrust
from edge.keyless import client, server, wire
from edge.keyless.stream import TlsStream

MESSAGE = b"what a handshake has signed"


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@functools.cache
def keys():
    """One of each kind."""
    made = {
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "rsa": rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }
    return {name: PrivateKey.from_pem(pem(key)) for name, key in made.items()}


def identifier(kind):
    return client.subject_key_identifier(keys()[kind].public_spki())


class Authority:
    def __init__(self):
        self.ca = trustme.CA()

    @property
    def root(self):
        return x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())

    @functools.cache  # noqa: B019 - lives as long as the tests
    def issue(self, *names):
        """(DER chain, key PEM)"""
        issued = self.ca.issue_cert(*names)
        chain = x509.load_pem_x509_certificates(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return tuple(c.public_bytes(Encoding.DER) for c in chain), issued.private_key_pem.bytes()


@functools.cache
def authority(which):
    return Authority()


def server_config(*, name="127.0.0.1", of="right", clients_of="right"):
    chain, key = authority(of).issue(name)
    return ServerConfig(
        [Credential(chain, PrivateKey.from_pem(key))],
        alpn=(),
        client_auth="require",
        verify_client=ClientTrust((authority(clients_of).root,)),
    )


def servers(*ports, of="right", certified="127.0.0.1", addresses=("127.0.0.1",), **changes):
    """What a client is configured with."""
    chain, key = authority(of).issue("us.example")
    options = {"timeout": 20.0, "connections": 2, "pending": 1000, **changes}
    return client.Servers(
        hosts=tuple(client.Host(addresses[0], port, tuple(addresses), certified) for port in ports),
        authorities=(authority("right").root.public_bytes(Encoding.DER),),
        chain=chain,
        key_pem=key,
        **options,
    )


def unused_port():
    with listening() as sock:
        return sock.getsockname()[1]


class Log:
    """What was reported."""

    def __init__(self):
        self.lines = []

    def __call__(self, level, message):
        self.lines.append(f"{level}: {message}")

    def __str__(self):
        return "\n".join(self.lines)


@contextlib.contextmanager
def signer(configured, kind="p256", log=None):
    """A signer that is started."""
    made = client.KeylessSigner(configured, identifier(kind), "a.example")
    made.start(asyncio.get_running_loop(), log or Log())
    try:
        yield made
    finally:
        made.stop()


def listening(port=0, host="127.0.0.1"):
    return socket.create_server((host, port))


@contextlib.asynccontextmanager
async def key_server(*, port=0, host="127.0.0.1", kinds=None, log=None, tls=None, connections=100, threads=2):
    """Our own, with keys of these kinds; all by default."""
    held = [key for kind, key in keys().items() if kinds is None or kind in kinds]
    made = server.Server(
        server.keys_by_identifier(held),
        tls or server_config(),
        threads=threads,
        connections=connections,
        report=log or Log(),
    )
    sock = listening(port, host)
    made.port = sock.getsockname()[1]
    await made.listen(sock)
    try:
        yield made
    finally:
        await made.drain(5)


class Scripted(TlsStream):
    """A connection of a server that is told what to do: do(connection, packet) for each request that is no ping."""

    def __init__(self, owner):
        super().__init__(Engine(owner.tls))
        self.owner = owner
        self.decoder = wire.Decoder()

    def established(self):
        self.owner.open.append(self)

    def data_came(self, data):
        for packet in self.decoder.feed(data):
            if packet.opcode == wire.Opcode.PING:
                self.owner.pings += 1
                if self.owner.pongs:
                    self.send(wire.build(packet.id, wire.Opcode.PONG, packet.value))
            else:
                self.owner.requests.append(packet)
                self.owner.do(self, packet)

    def answer(self, packet, kind="p256"):
        scheme = wire.SCHEMES[packet.opcode]
        self.send(wire.build(packet.id, wire.Opcode.RESPONSE, keys()[kind].sign_digest(scheme, packet.value)))

    def ended(self, cause):
        if self in self.owner.open:
            self.owner.open.remove(self)


class ScriptedServer:
    def __init__(self, do, tls):
        self.do = do
        self.tls = tls
        self.open = []
        self.requests = []
        self.pings = 0
        self.pongs = True


@contextlib.asynccontextmanager
async def scripted(do=Scripted.answer, *, port=0, tls=None):
    owner = ScriptedServer(do, tls or server_config())
    sock = listening(port)
    owner.port = sock.getsockname()[1]
    accepting = await asyncio.get_running_loop().create_server(lambda: Scripted(owner), sock=sock)
    try:
        yield owner
    finally:
        accepting.close()
        for connection in list(owner.open):
            connection.cut("over")


async def until(condition, seconds=30):
    """Waits until condition() holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def verifies(kind, signature, scheme=0x0403):
    public = PublicKey.from_spki(keys()[kind].public_spki())
    return public.verify12_bytes(scheme, MESSAGE, signature)
