"""ClientHelloInfo and JA4: against the fingerprint that its authors print, and ClientHellos of real clients."""

import hashlib
import socket
import ssl
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.tls import ClientHelloInfo
from tests.e2e.processes import peer
from tests.edge.tls_peers import PATIENCE, Thread, openssl_context
from tests.vectors.client_hellos import HELLOS

GREASE = [0x0A0A + 0x1010 * i for i in range(16)]


def vector(width, body):
    return len(body).to_bytes(width, "big") + body


def u16s(values):
    return struct.pack(f">{len(values)}H", *values)


def hello(suites=(0x1301,), extensions=(), version=0x0303, with_extensions=True):
    """A ClientHello message; extensions: pairs of number and body."""
    body = version.to_bytes(2, "big") + bytes(32) + vector(1, b"") + vector(2, u16s(suites)) + vector(1, b"\0")
    if with_extensions:
        body += vector(2, b"".join(kind.to_bytes(2, "big") + vector(2, content) for kind, content in extensions))
    return b"\x01" + vector(3, body)


def alpn(*names):
    return 16, vector(2, b"".join(vector(1, name) for name in names))


def message_of(stream):
    """The handshake message in the records of a captured stream."""
    gathered = b""
    while stream:
        n = int.from_bytes(stream[3:5], "big")
        assert stream[0] == 22
        gathered += stream[5 : 5 + n]
        stream = stream[5 + n :]
    return gathered[: 4 + int.from_bytes(gathered[1:4], "big")]


# --- the published example (FoxIO, technical_details/JA4.md): Chrome, in the order it sends things, GREASE added

SUITES = [
    0x1301,
    0x1302,
    0x1303,
    0xC02B,
    0xC02F,
    0xC02C,
    0xC030,
    0xCCA9,
    0xCCA8,
    0xC013,
    0xC014,
    0x9C,
    0x9D,
    0x2F,
    0x35,
]
KINDS = [0x1B, 0, 0x33, 0x10, 0x4469, 0x17, 0x2D, 0xD, 5, 0x23, 0x12, 0x2B, 0xFF01, 0xB, 0xA, 0x15]
SCHEMES = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601]


def example(grease):
    bodies = {
        0: vector(2, b"\0" + vector(2, b"example.com")),
        0xA: vector(2, u16s([*grease, 0x1D, 0x17])),
        0xB: vector(1, b"\0"),
        0xD: vector(2, u16s(grease + SCHEMES)),
        0x10: vector(2, vector(1, b"h2") + vector(1, b"http/1.1")),
        0x2B: vector(1, u16s([*grease, 0x0304, 0x0303])),
    }
    extensions = [(kind, bodies.get(kind, b"")) for kind in grease[:1] + KINDS + grease[1:]]
    return hello(grease + SUITES, extensions)


@pytest.mark.parametrize("grease", [[], GREASE[:1], GREASE])
def test_the_published_example(grease):
    info = ClientHelloInfo.parse(example(grease))
    assert info.ja4 == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert info.ja4_raw == (
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_"
        "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_"
        "0403,0804,0401,0503,0805,0501,0806,0601"
    )
    assert info.cipher_suites == (*grease, *SUITES)
    assert info.extensions == (*grease[:1], *KINDS, *grease[1:])


# As Salesforce's description of JA3 prints them, each with its MD5.
@pytest.mark.parametrize(
    ("ja3_raw", "ja3"),
    [
        (
            "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0",
            "ada70206e40642a3e4461f35503241d5",
        ),
        ("769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6"),
    ],
)
@pytest.mark.parametrize("grease", [[], GREASE[:1], GREASE])
def test_the_published_examples_of_ja3(ja3_raw, ja3, grease):
    version, suites, kinds, groups, formats = ([int(n) for n in part.split("-") if n] for part in ja3_raw.split(","))
    bodies = {0: vector(2, b"\0" + vector(2, b"a.example")), 0xA: vector(2, u16s(grease + groups)),
              0xB: vector(1, bytes(formats))}
    extensions = [(kind, bodies.get(kind, b"")) for kind in (grease if kinds else []) + kinds]
    info = ClientHelloInfo.parse(hello(suites + grease, extensions, version[0], with_extensions=bool(extensions)))
    assert (info.ja3_raw, info.ja3) == (ja3_raw, ja3)


def test_without_signature_schemes():
    kinds = [(kind, b"") for kind in KINDS if kind not in (0, 0xA, 0xB, 0xD, 0x10, 0x2B)]
    info = ClientHelloInfo.parse(hello(SUITES, [*kinds, (0xD, vector(2, b"")), (0xA, vector(2, b""))]))
    listed = "0005,000a,000d,0012,0015,0017,001b,0023,002d,0033,4469,ff01"
    assert info.ja4 == f"t12i151200_8daaf6152771_{hashlib.sha256(listed.encode()).hexdigest()[:12]}"


# As the specification lists them: what stands for the first protocol.
@pytest.mark.parametrize(
    ("protocols", "shown"),
    [
        ([b"h2"], "h2"),
        ([b"http/1.1", b"h2"], "h1"),
        ([b"x"], "xx"),
        ([b"\xab"], "ab"),
        ([b"\xab\xcd"], "ad"),
        ([b"0\xab"], "3b"),
        ([b"01\xab\xcd"], "3d"),
        ([b"0\xab\xcd1"], "01"),
        ([b"-a"], "21"),
        ([b""], "00"),
        ([], "00"),
    ],
)
def test_the_protocol_in_a_fingerprint(protocols, shown):
    info = ClientHelloInfo.parse(hello(extensions=[alpn(*protocols)]))
    assert info.ja4.startswith(f"t12i0101{shown}_")
    assert [p.encode("ascii", "surrogateescape") for p in info.alpn_protocols] == protocols


@pytest.mark.parametrize(
    ("version", "offered", "shown"),
    [
        (0x0303, [0x0304, 0x0303], "13"),
        (0x0303, [0x0301, 0x0302], "11"),
        (0x0303, [], "12"),
        (0x0301, [], "10"),
        (0x0300, [], "s3"),
        (0x0002, [], "s2"),
        (0x0505, [], "00"),
        (0x0303, [0x7F1C], "00"),
    ],
)
def test_the_version_in_a_fingerprint(version, offered, shown):
    extensions = [(0x2B, vector(1, u16s(offered)))] if offered else []
    info = ClientHelloInfo.parse(hello(version=version, extensions=extensions))
    assert info.ja4[:4] == f"t{shown}i"
    assert info.supported_versions == tuple(offered or [version])


def test_counts_end_at_99_and_nothing_hashes_to_zeros():
    info = ClientHelloInfo.parse(hello(suites=range(1, 200), extensions=[(kind, b"") for kind in range(100, 220)]))
    assert info.ja4.startswith("t12i999900_")
    empty = ClientHelloInfo.parse(hello(suites=GREASE, with_extensions=False))
    assert empty.ja4 == "t12i000000_000000000000_000000000000"
    named = [(0, vector(2, b"\0" + vector(2, b"a.b"))), alpn(b"h2")]
    assert ClientHelloInfo.parse(hello(extensions=named)).ja4.endswith("_000000000000"), "both are told elsewhere"


# --- real clients


def ja4_by_hand(message):
    """JA4 once more, by splitting the message as its authors' prose goes: shares nothing with edge.tls."""
    at = 4 + 2 + 32
    at += 1 + message[at]
    n = int.from_bytes(message[at : at + 2], "big")
    suites = [message[i : i + 2].hex() for i in range(at + 2, at + 2 + n, 2)]
    at += 2 + n
    at += 1 + message[at] + 2
    extensions = []
    while at < len(message):
        n = int.from_bytes(message[at + 2 : at + 4], "big")
        extensions.append((message[at : at + 2].hex(), message[at + 4 : at + 4 + n]))
        at += 4 + n
    grease = {f"{x}a{x}a" for x in "0123456789abcdef"}
    suites = [s for s in suites if s not in grease]
    extensions = [e for e in extensions if e[0] not in grease]
    bodies = dict(extensions)
    schemes = [bodies["000d"][i : i + 2].hex() for i in range(2, len(bodies["000d"]), 2)] if "000d" in bodies else []
    versions = [bodies["002b"][i : i + 2].hex() for i in range(1, len(bodies["002b"]), 2)] if "002b" in bodies else []
    version = {"0304": "13", "0303": "12"}[max([v for v in versions if v not in grease] or [message[4:6].hex()])]
    protocol = bodies["0010"][3 : 3 + bodies["0010"][2]].decode() if "0010" in bodies else "00"
    head = (
        f"t{version}{'d' if '0000' in bodies else 'i'}{len(suites):02}{len(extensions):02}{protocol[0]}{protocol[-1]}"
    )
    listed = ",".join(sorted(kind for kind in bodies if kind not in ("0000", "0010")))
    tail = "_".join([listed, ",".join(s for s in schemes if s not in grease)]) if schemes else listed
    return "_".join([head, *(hashlib.sha256(t.encode()).hexdigest()[:12] for t in (",".join(sorted(suites)), tail))])


@pytest.mark.parametrize("client", HELLOS)
def test_captured_clients(client):
    message = message_of(HELLOS[client])
    info = ClientHelloInfo.parse(message)
    assert info.raw == message
    assert info.server_name == "www.example.com"
    assert 0x0304 in info.supported_versions
    assert {0x001D, 0x0017} <= set(info.supported_groups)
    assert info.point_formats in ((0,), ())
    assert 0x0403 in info.signature_schemes
    assert info.ja4 == ja4_by_hand(message)


def test_the_captured_browser_is_a_chrome():
    info = ClientHelloInfo.parse(message_of(HELLOS["chromium"]))
    # Chrome's suites are those of the published example still, its extensions and protocols are shown in order.
    assert info.ja4.split("_")[1] == "8daaf6152771"
    assert info.alpn_protocols == ("h2", "http/1.1")
    assert any(value in GREASE for value in info.cipher_suites)


COMMANDS = {
    "curl": ["curl", "-s", "-k", "--max-time", "5", "https://localhost:{port}/"],
    "curl with 1.2": ["curl", "-s", "-k", "--max-time", "5", "--tls-max", "1.2", "https://127.0.0.1:{port}/"],
    "openssl": ["openssl", "s_client", "-connect", "127.0.0.1:{port}", "-noservername", "-alpn", "x/y-"],
    "gnutls": ["gnutls-cli", "--insecure", "--sni-hostname", "localhost", "-p", "{port}", "127.0.0.1"],
}


@pytest.mark.parametrize("client", COMMANDS)
def test_clients_on_this_machine(client):
    command = COMMANDS[client]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        running = subprocess.Popen(
            [peer(command[0]), *(part.format(port=port) for part in command[1:])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with listener.accept()[0] as sock:
                sock.settimeout(PATIENCE)
                stream = b""
                while len(stream) < 5 or len(stream) < 5 + int.from_bytes(stream[3:5], "big"):
                    stream += sock.recv(65536)
        finally:
            running.kill()
            running.wait()
    message = message_of(stream)
    info = ClientHelloInfo.parse(message)
    if client == "openssl":
        assert info.server_name == ""
        assert info.alpn_protocols == ("x/y-",)
        assert info.ja4[3:4] == "i" and info.ja4[8:10] == "7d"
    else:
        assert info.ja4 == ja4_by_hand(message)
        assert info.server_name == ("localhost" if "1.2" not in client else "")


def test_pythons_client():
    context = openssl_context("client")
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    message = message_of(outgoing.read())
    info = ClientHelloInfo.parse(message)
    assert info.server_name == "localhost"
    assert info.ja4 == ja4_by_hand(message)
    assert Thread(lambda: ClientHelloInfo.parse(message).ja4).finish() == info.ja4


# --- bad input


def test_cut_anywhere_it_is_refused():
    whole = example(GREASE[:2])
    for n in range(len(whole)):
        cut = whole[:n]
        with pytest.raises(ValueError):
            ClientHelloInfo.parse(cut)
        if n > 4:  # with a length that fits
            try:
                info = ClientHelloInfo.parse(b"\x01" + vector(3, cut[4:]))
            except ValueError:
                continue
            assert info.extensions == (), "before the extensions it may end"
    with pytest.raises(ValueError):
        ClientHelloInfo.parse(whole + b"\0")


@pytest.mark.parametrize(
    "extension",
    [
        (0, b""),
        (0, vector(2, b"\0" + vector(2, b"\xff"))),
        (0, vector(2, b"\0" + vector(2, b"a")) + b"\0"),
        (10, vector(2, b"\0")),
        (11, b"\x02\0"),
        (13, vector(2, b"\0\x01\0")),
        (16, vector(2, b"\x03h2")),
        (43, b"\x03\x03\x04"),
    ],
)
def test_an_extension_that_cannot_be_decoded(extension):
    with pytest.raises(ValueError):
        ClientHelloInfo.parse(hello(extensions=[extension]))


def test_an_extension_twice():
    with pytest.raises(ValueError, match="twice"):
        ClientHelloInfo.parse(hello(extensions=[(77, b""), (77, b"")]))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_anything_else_is_a_value_error(data):
    raw = bytearray(example(GREASE[:2]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        info = ClientHelloInfo.parse(bytes(raw))
    except ValueError:
        return
    assert len(info.ja4) == len("t13d1516h2_8daaf6152771_e5627efa2ab1")
