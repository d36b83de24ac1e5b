"""What hooks of the handshake cost.

    python -m pytest bench/micro/test_handshake_hooks.py --benchmark-columns=min,median

One round is 1000 full handshakes of TLS 1.3 (P-256, X25519) with a client in another thread; what is counted is the CPU
time of the worker's thread alone, so a figure in ms is us per handshake.
"""

import socket
import threading
import time

import pytest
from cext.proxy.hooks import Hooks
from cext.proxy.listener_settings import ListenerSettings
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route, Router
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.credential import Credential
from cext.tls.engine import Engine
from cext.worker import DataPlane

from edge.handshake import Certificate, Handshakes
from tests.cext.tls.peer import credential

HANDSHAKES = 1000
ROUNDS = 5
CREDENTIAL = credential()
CONFIG = ClientConfig(server_name="localhost", alpn=(b"http/1.1",))


class Here:
    """A signer whose key is in this process."""

    async def sign(self, message, scheme):
        return CREDENTIAL.key.sign_bytes(scheme, message)


CHOSEN = Certificate(chain=CREDENTIAL.chain, private_key=CREDENTIAL.key, names=())
SIGNED = Credential(CREDENTIAL.chain, Here(), ["localhost"])


class Sync:
    def get_certificate(self, hello):
        return CHOSEN


class Async:
    async def get_certificate(self, hello):
        return CHOSEN


class All:
    def client_hello(self, hello):
        return None

    def get_config(self, hello):
        return None

    def get_certificate(self, hello):
        return CHOSEN


class Fingerprints:
    fingerprints = True


WAYS = {
    "no hooks": (None, CREDENTIAL),
    "get_certificate": (Sync, CREDENTIAL),
    "async get_certificate": (Async, CREDENTIAL),
    "all three": (All, CREDENTIAL),
    "fingerprints": (Fingerprints, CREDENTIAL),
    "async signer": (None, SIGNED),
}


class Serving:
    """A data plane that ends after HANDSHAKES of a client's; run() is what is measured."""

    def __init__(self, policy, credential):
        options = {"alpn": (b"http/1.1",), "policy": policy is not None}
        self.plane = DataPlane(error_log=lambda level, text: None)
        if policy is not None:
            handshake = Handshakes([options], directory=".").hooks(policy(), print)
            self.plane.hooks = Hooks(names={}, read_limit=None, show_limit=None, failed=print, handshake=handshake)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        router = Router([Route(UpstreamGroup("app", [("tcp", "127.0.0.1", 9)]))])
        self.plane.listen(self.listener.fileno(), ListenerSettings(ServerConfig([credential], **options), router))
        self.done = False
        self.plane.every(5, lambda: self.done and self.plane.stop())
        self.client = threading.Thread(target=self.connect, args=(self.listener.getsockname(),))

    def connect(self, address):
        for _ in range(HANDSHAKES):
            engine = Engine(CONFIG)
            with socket.create_connection(address) as sock:
                sock.sendall(engine.take_output())
                while not engine.established:
                    engine.receive_bytes(sock.recv(65536))
                sock.sendall(engine.take_output())
        self.done = True

    def run(self):
        self.client.start()
        self.plane.run()
        self.client.join()
        self.listener.close()
        assert self.plane.counters()["handshakes"] >= HANDSHAKES - 1


@pytest.mark.benchmark(timer=time.thread_time)
@pytest.mark.parametrize("way", WAYS)
def test_handshakes(benchmark, way):
    benchmark.pedantic(lambda serving: serving.run(), setup=lambda: ((Serving(*WAYS[way]),), {}), rounds=ROUNDS)
