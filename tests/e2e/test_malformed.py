"""Malformed input in numbers: no worker dies, nothing is leaked, no client sees an internal detail.

A few hundred in the suite; EDGE_SLOW=1 sends 10,000 malformed ClientHellos and as many malformed requests.
"""

import contextlib
import os
import random
import socket
import ssl
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import tls_corrupt
from tests.e2e.client import Client
from tests.e2e.processes import SANITIZED, open_files, rss, wait_until
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge
from tests.vectors import http1_chunks, http1_requests

MIB = 1 << 20
COUNTS = [pytest.param(400, id="400"), pytest.param(10_000, id="10000", marks=pytest.mark.slow)]
ALERT, HANDSHAKE, APPLICATION_DATA, CHANGE_CIPHER_SPEC = 21, 22, 23, 20
# RFC 9846, section 6.
ALERTS = {
    "unexpected_message": 10,
    "bad_record_mac": 20,
    "record_overflow": 22,
    "handshake_failure": 40,
    "illegal_parameter": 47,
    "decode_error": 50,
    "protocol_version": 70,
    "missing_extension": 109,
    "unrecognized_name": 112,
}


@pytest.fixture(scope="module")
def exposed(tmp_path_factory, pki):
    """Two workers whose backend answers all there is."""

    def handler(connection, request):
        connection.body(request)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    with Backend() as backend:
        backend.on("*", handler)
        with Edge(
            tmp_path_factory.mktemp("exposed"),
            pki,
            {"b": [backend.server]},
            server={"workers": 2},
            listener={"timeouts": {"handshake": "3s", "header": "3s"}},
            route_timeouts={"body_idle": "3s"},
        ) as edge:
            yield edge


class Unharmed:
    """The same workers before and after, their memory and descriptors as before, and nothing of a crash in the log."""

    def __init__(self, edge: Edge, growth: int = MIB) -> None:
        self.edge = edge
        self.growth = growth

    def __enter__(self) -> None:
        self.workers = self.edge.workers()
        self.memory = {pid: rss(pid) for pid in self.workers}
        self.files = {pid: open_files(pid) for pid in self.workers}

    def __exit__(self, kind, *_: object) -> None:
        if kind is not None:
            return
        assert self.edge.workers() == self.workers
        self.edge.check_health()
        for pid in self.workers:
            # Connections to the backend may stay pooled.
            wait_until(lambda pid=pid: open_files(pid) <= self.files[pid] + 24, 20, "closing of what was malformed")
            growth = rss(pid) - self.memory[pid]
            assert SANITIZED or growth < self.growth, f"worker grew by {growth / 1024:.0f} KiB"
        with Client(self.edge) as client:
            assert client.get("/ok").status == 200


def alert(data: bytes) -> int | None:
    """The description of the fatal alert that ends the records; None without one."""
    last = None
    while data:
        kind, version, length = struct.unpack("!BHH", data[:5])
        assert kind in (ALERT, HANDSHAKE, APPLICATION_DATA, CHANGE_CIPHER_SPEC), data[:20]
        assert version == 0x0303
        body, data = data[5 : 5 + length], data[5 + length :]
        assert len(body) == length, "a record cut short"
        if kind == ALERT:
            assert body[0] == 2
            last = body[1]
    return last


def raw(edge: Edge, data: bytes) -> bytes:
    """What a server says to these bytes, after which no more come."""
    with socket.create_connection(("127.0.0.1", edge.port), 10) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before the end
        said = b""
        try:
            while got := s.recv(65536):
                said += got
        except ConnectionResetError:
            pass
    return said


def test_each_fault_of_a_client_hello_has_its_alert(exposed):
    wrong = []
    with Unharmed(exposed):
        for what, body, name in tls_corrupt.faults():
            found = alert(raw(exposed, tls_corrupt.record(tls_corrupt.handshake(1, body))))
            if found != ALERTS[name]:
                wrong.append(f"{what}: alert {found}, not {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("what", "data", "name"),
    [
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "unexpected_message"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", "unexpected_message"),
        ("application data first", tls_corrupt.record(bytes(50), type=23), "unexpected_message"),
        ("unknown record type", tls_corrupt.record(b"x", type=99), "unexpected_message"),
        ("empty handshake record", tls_corrupt.record(b""), "unexpected_message"),
        ("another message first", tls_corrupt.record(tls_corrupt.handshake(20, bytes(32))), "unexpected_message"),
        ("oversized record", b"\x16\x03\x01\xff\xff" + bytes(100), "record_overflow"),
        ("change_cipher_spec first", tls_corrupt.record(b"\1", type=20), "unexpected_message"),
    ],
)
def test_what_is_no_client_hello(exposed, what, data, name):
    since = exposed.mark()
    assert alert(raw(exposed, data)) == ALERTS[name]
    exposed.wait_error(r"handshake failed: ", since)


def test_sslv2_and_noise(exposed):
    rng = random.Random(7)
    with Unharmed(exposed):
        for data in [
            b"\x80\x2e\x01\x00\x02" + bytes(40),
            b"\0" * 3,
            *(rng.randbytes(rng.randint(1, 300)) for _ in range(100)),
        ]:
            alert(raw(exposed, data))


@pytest.mark.parametrize("count", COUNTS)
def test_malformed_client_hellos(exposed, count):
    seed = int.from_bytes(os.urandom(4), "big")

    def send(number: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            for said in pool.map(lambda data: raw(exposed, data), tls_corrupt.malformed_records(number, seed=seed)):
                alert(said)

    try:
        send(400)  # whatever memory these need, they have it the second time
        with Unharmed(exposed):
            send(count)
    except BaseException as e:
        e.add_note(f"seed {seed}")
        raise


def malformed_requests(count: int, seed: int):
    rng = random.Random(seed)
    tables = [head for _, head, _ in http1_requests.REFUSED]
    head = b"POST /x HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    tables += [head + chunks for _, chunks in http1_chunks.REFUSED]
    good = [head for _, head, *_ in http1_requests.VALID]
    good += [head + chunks for _, chunks, *_ in http1_chunks.VALID]
    for i in range(count):
        yield tables[i] if i < len(tables) else tls_corrupt.mutate(rng.choice(good), rng)


@pytest.mark.parametrize("count", COUNTS)
def test_malformed_requests(exposed, count):
    """Whatever comes back is HTTP and tells nothing; the connection ends in good order."""

    def leave(data: bytes) -> None:
        """Sends close_notify at once."""
        with Client(exposed, seconds=15) as client:
            client.send(data)
            with contextlib.suppress(OSError):  # answers may come before the end
                client.sock.unwrap()

    def answer(data: bytes) -> bytes:
        with Client(exposed, seconds=15) as client:
            client.send(data + b"\r\n\r\nGET / HTTP/1.0\r\nConnection: close\r\n\r\n")
            try:
                return client.rest()
            except OSError:
                return client.received

    list(map(answer, malformed_requests(60, 1)))
    seed = int.from_bytes(os.urandom(4), "big")
    with Unharmed(exposed), ThreadPoolExecutor(4) as pool:
        requests = list(malformed_requests(count, seed))
        for data, said in zip(requests, pool.map(answer, requests), strict=True):
            assert said == b"" or said.startswith(b"HTTP/1.1 "), (seed, data, said)
            for detail in (b"Traceback", b".pyx", b"Error:", b"127.0.0.1"):
                assert detail not in said, (seed, data, said)
        list(pool.map(leave, requests[:50]))


class Wire:
    """A TLS client over memory: its records can be damaged before they are sent."""

    def __init__(self, edge: Edge) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = edge.tls_context().wrap_bio(self.incoming, self.outgoing, server_hostname="edge.test")
        self.sock = socket.create_connection(("127.0.0.1", edge.port), 10)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                self.incoming.write(self.sock.recv(65536))
        self.finished = self.outgoing.read()

    def seal(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    def reason(self) -> str:
        """The alert that comes, by OpenSSL's name."""
        try:
            while True:
                try:
                    if not self.tls.read(65536):
                        return "end"
                except ssl.SSLWantReadError:
                    data = self.sock.recv(65536)
                    self.incoming.write(data) if data else self.incoming.write_eof()
        except ssl.SSLError as e:
            return str(e.reason)
        except ConnectionResetError:
            return "reset"
        finally:
            self.sock.close()


GET = b"GET /ok HTTP/1.1\r\nHost: edge.test\r\n\r\n"


def flipped(record: bytes, at: int) -> bytes:
    damaged = bytearray(record)
    damaged[at] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize(
    ("what", "damage", "reason"),
    [
        ("first byte of the ciphertext", lambda r: flipped(r, 5), "SSLV3_ALERT_BAD_RECORD_MAC"),
        ("last byte of the tag", lambda r: flipped(r, -1), "SSLV3_ALERT_BAD_RECORD_MAC"),
        ("length", lambda r: flipped(r, 4), "SSLV3_ALERT_BAD_RECORD_MAC"),
        ("type", lambda r: flipped(r, 0), "SSLV3_ALERT_UNEXPECTED_MESSAGE"),
        ("plaintext", lambda r: tls_corrupt.record(GET, type=23, version=0x0303), "SSLV3_ALERT_BAD_RECORD_MAC"),
        ("too short for a tag", lambda r: r[:3] + b"\0\x08" + r[5:13], "any"),
        ("twice", lambda r: r + r, "SSLV3_ALERT_BAD_RECORD_MAC"),
        ("too long", lambda r: b"\x17\x03\x03\x41\x01" + bytes(0x4101), "TLSV1_ALERT_RECORD_OVERFLOW"),
    ],
)
def test_damaged_records(exposed, what, damage, reason):
    since = exposed.mark()
    with Unharmed(exposed):
        wire = Wire(exposed)
        wire.sock.sendall(wire.finished)
        record = damage(wire.seal(GET))
        if "length" in what:
            record += b"\0"
        wire.sock.sendall(record)
        assert reason in ("any", found := wire.reason()), found
    exposed.wait_error("TLS failure: ", since)


def test_damaged_finished(exposed):
    since = exposed.mark()
    wire = Wire(exposed)
    wire.sock.sendall(flipped(wire.finished, -1))
    assert wire.reason() == "SSLV3_ALERT_BAD_RECORD_MAC"
    exposed.wait_error("handshake failed: .*bad_record_mac", since)


def test_records_split_and_joined(exposed):
    """Requests over records of every size, several records in one packet, bytes one by one: all the same."""
    wire = Wire(exposed)
    requests = b"".join(GET.replace(b"/ok", b"/%d" % i) for i in range(40))
    sealed = wire.finished
    at = 0
    rng = random.Random(3)
    while at < len(requests):
        size = rng.randint(1, 60)
        sealed += wire.seal(requests[at : at + size])
        at += size
    for i in range(400):
        wire.sock.sendall(sealed[i : i + 1])
    wire.sock.sendall(sealed[400:])
    answers = b""
    while answers.count(b"\r\n\r\nok") < 40:
        try:
            answers += wire.tls.read(65536)
        except ssl.SSLWantReadError:
            data = wire.sock.recv(65536)
            assert data, answers
            wire.incoming.write(data)
    wire.sock.close()
