"""Compressed certificates (RFC 8879), in both roles: who sends them to whom, and what is refused."""

import zlib

import pytest
from cext.crypto.sign import PrivateKey
from cext.tls.alert import TlsAlert
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.credential import Credential
from cext.tls.engine import Engine
from cext.tls.inspect import parse
from cryptography.hazmat.primitives import serialization

from tests.cext.tls.peer import RawClient, certified, credential, extension, message, pump, u16s, vector
from tests.cext.tls.test_client13 import RawServer

CERTIFICATE, COMPRESSED_CERTIFICATE = 11, 25
RESPONSE = b"an OCSPResponse" * 10


class Zlib:
    number = 1

    def __init__(self):
        self.calls = 0

    def compress(self, data):
        self.calls += 1
        return zlib.compress(data)

    def decompress(self, data, length):
        return zlib.decompressobj().decompress(data, length + 1)


class Reversed(Zlib):
    number = 0xFF77

    def compress(self, data):
        return data[::-1]

    def decompress(self, data, _length):
        return data[::-1]


class Hopeless(Reversed):
    number = 0xFF78

    def compress(self, data):
        return None


def compressing(*algorithms, response=b"", name="example.com"):
    certificate, key = certified("ecdsa-p256", name)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credential([certificate.public_bytes(serialization.Encoding.DER)] * 3, PrivateKey.from_pem(pem), [name],
                      ocsp_response=response, certificate_compression=algorithms)


def offer(*numbers):
    return extension(27, vector(1, u16s(*numbers)))


def shown(*algorithms, offered, extra=(), response=b""):
    """The message that a server with these algorithms shows its certificate by; the handshake goes on to its end."""
    client = RawClient(ServerConfig([compressing(*algorithms, response=response)]), extra=(*offered, *extra)).connect()
    return next(m for kind, m in client.flight if kind in (CERTIFICATE, COMPRESSED_CERTIFICATE))


def test_a_server_compresses_for_who_offers_it():
    whole = shown(Zlib(), offered=(offer(2, 1),))
    found = parse("compressed_certificate", whole[4:])
    body = compressing().certificate_body
    assert (whole[0], found["algorithm"], found["uncompressed_length"]) == (25, 1, len(body))
    assert zlib.decompress(found["compressed"]) == body


@pytest.mark.parametrize("offered", [(), (offer(2, 3),)])
def test_a_server_does_not_for_others(offered):
    assert shown(Zlib(), offered=offered) == message(CERTIFICATE, compressing().certificate_body)


def test_a_server_without_algorithms():
    assert shown(offered=(offer(1, 2, 3),))[0] == CERTIFICATE


def test_the_order_is_the_servers():
    for algorithms, number in (((Zlib(), Reversed()), 1), ((Reversed(), Zlib()), 0xFF77), ((Hopeless(), Zlib()), 1)):
        whole = shown(*algorithms, offered=(offer(1, 0xFF78, 0xFF77),))
        assert parse("compressed_certificate", whole[4:])["algorithm"] == number


def test_what_gains_nothing_is_not_compressed():
    assert shown(Hopeless(), offered=(offer(0xFF78),))[0] == CERTIFICATE


def test_each_form_is_compressed_once():
    algorithm = Zlib()
    made = compressing(algorithm, response=RESPONSE)
    assert algorithm.calls == 0, "nobody has asked"
    for _ in range(3):
        RawClient(ServerConfig([made]), extra=(offer(1),)).connect()
        RawClient(ServerConfig([made]), extra=(offer(1), extension(18, b""))).connect()
    assert algorithm.calls == 1, "there are no timestamps: with them is as without"
    for _ in range(3):
        RawClient(ServerConfig([made]), extra=(offer(1), extension(5, b"\1" + bytes(4)))).connect()
    assert algorithm.calls == 2, "with the OCSP response, and without"


def test_what_fails_to_compress_is_sent_as_it_is():
    class Failing(Zlib):
        def compress(self, data):
            super().compress(data)
            raise MemoryError

    algorithm = Failing()
    made = compressing(algorithm)
    for _ in range(2):
        client = RawClient(ServerConfig([made]), extra=(offer(1),)).connect()
        assert message(CERTIFICATE, made.certificate_body) in [m for _, m in client.flight]
    assert algorithm.calls == 1, "it is not tried again"


@pytest.mark.parametrize("asks", [False, True])
def test_what_is_compressed_has_what_was_asked_for(asks):
    extra = (extension(5, b"\1" + bytes(4)),) if asks else ()
    whole = shown(Zlib(), offered=(offer(1),), extra=extra, response=RESPONSE)
    found = parse("compressed_certificate", whole[4:])
    certificate = parse("certificate", zlib.decompress(found["compressed"]), offered=(5,))
    assert certificate["ocsp_response"] == (RESPONSE if asks else None)


def test_both_ends():
    a = Engine(ClientConfig(server_name="example.com", certificate_compression=[Reversed(), Zlib()],
                            status_request=True))
    b = Engine(ServerConfig([compressing(Zlib(), response=RESPONSE)]))
    pump(a, b)
    assert a.established and b.established, (a.failure, b.failure)
    assert a.peer_certificates == compressing().chain
    assert a.ocsp_response == RESPONSE


def test_a_clients_certificate():
    mine = compressing(Zlib(), name="client.example")
    a = Engine(ClientConfig(credentials=[mine]))
    b = Engine(ServerConfig([credential()], client_auth="require", certificate_compression=[Zlib()]))
    pump(a, b)
    assert a.established and b.established, (a.failure, b.failure)
    assert b.peer_certificates == mine.chain


def test_a_clients_certificate_for_a_server_that_does_not_offer_it():
    a = Engine(ClientConfig(credentials=[compressing(Zlib(), name="client.example")]))
    b = Engine(ServerConfig([credential()], client_auth="require", certificate_compression=[Reversed()]))
    pump(a, b)
    assert a.established and b.established, (a.failure, b.failure)


# What a client refuses.

BODY = credential().certificate_body


def compressed(algorithm=1, length=None, content=None, body=BODY):
    content = zlib.compress(body) if content is None else content
    length = len(body) if length is None else length
    return message(COMPRESSED_CERTIFICATE, u16s(algorithm) + length.to_bytes(3, "big") + vector(3, content))


def client_meets(whole, algorithms=None):
    config = ClientConfig(server_name="example.com", alpn=(b"http/1.1",),
                          certificate_compression=[Zlib()] if algorithms is None else algorithms)
    return RawServer(config, alter={"certificate": lambda _: whole}).serve()


def test_a_client_takes_it():
    server = client_meets(compressed())
    assert server.client.established, server.client.failure
    assert server.client.peer_certificates == credential().chain


@pytest.mark.parametrize(("whole", "name"), [
    (compressed(algorithm=2), "illegal_parameter"),                             # not offered
    (compressed(length=len(BODY) + 1), "bad_certificate"),
    (compressed(length=len(BODY) - 1), "bad_certificate"),
    (compressed(length=0), "bad_certificate"),
    (compressed(content=zlib.compress(BODY)[:-9]), "bad_certificate"),
    (compressed(content=b"what is this"), "bad_certificate"),
    (compressed(length=(1 << 18) + 1), "bad_certificate"),                      # before any decompression
    (compressed(length=(1 << 24) - 1), "bad_certificate"),
    (compressed(content=b""), "decode_error"),
    (message(COMPRESSED_CERTIFICATE), "decode_error"),
    (message(COMPRESSED_CERTIFICATE, compressed()[4:] + b"\0"), "decode_error"),
    (message(COMPRESSED_CERTIFICATE, compressed()[4:-1]), "decode_error"),
    (compressed(body=BODY + b"\0"), "decode_error"),                            # of the Certificate inside
    (compressed(body=b"\0\0\0\0"), "decode_error"),                             # no certificate there
    (compressed(body=b"\1" + BODY), "illegal_parameter"),                      # a context
], ids=[f"fault{i}" for i in range(15)])
def test_what_a_client_refuses(whole, name):
    failure = client_meets(whole).client.failure
    assert (failure.name, failure.sent) == (name, True), failure


def test_what_is_too_large_is_not_decompressed():
    class Watched(Zlib):
        def decompress(self, data, length):
            raise AssertionError("called")

    failure = client_meets(compressed(length=(1 << 18) + 1), [Watched()]).client.failure
    assert failure.reason == "a certificate is too large when decompressed"


@pytest.mark.parametrize("result", [ValueError("no"), MemoryError(), None, "text", BODY + b"\0"])
def test_an_algorithm_that_fails(result):
    class Failing(Zlib):
        def decompress(self, data, length):
            if isinstance(result, Exception):
                raise result
            return result

    assert client_meets(compressed(), [Failing()]).client.failure.name == "bad_certificate"


def test_a_client_that_did_not_offer_it():
    assert client_meets(compressed(), []).client.failure.name == "unexpected_message"


# Pieces.

def test_a_compressed_certificate_is_parsed_whole():
    body = compressed()[4:]
    assert parse("compressed_certificate", body)["uncompressed_length"] == len(BODY)
    for n in range(len(body)):
        with pytest.raises(TlsAlert) as caught:
            parse("compressed_certificate", body[:n])
        assert caught.value.name == "decode_error"


@pytest.mark.parametrize("algorithms", [
    [object()], [Zlib(), Zlib()], [type("Z", (Zlib,), {"number": 0})()], [type("Z", (Zlib,), {"number": 1 << 16})()],
    [type("Z", (Zlib,), {"number": n})() for n in range(1, 10)],
])
def test_what_are_no_algorithms(algorithms):
    for make in (lambda: ClientConfig(certificate_compression=algorithms), lambda: compressing(*algorithms),
                 lambda: ServerConfig([credential()], certificate_compression=algorithms)):
        with pytest.raises(ValueError, match="certificate_compression"):
            make()


def test_tls12_knows_nothing_of_it():
    a = Engine(ClientConfig(server_name="example.com", max_version=0x0303, certificate_compression=[Zlib()]))
    b = Engine(ServerConfig([compressing(Zlib())]))
    hello = a.take_output()
    assert parse("client_hello", hello[9:])["compress_certificate"] is None
    b.receive_bytes(hello)
    pump(a, b)
    assert a.established and a.version == 0x0303
