"""What stands beside a server's certificate: OCSP responses and timestamps (RFC 6066 section 8, RFC 6962 section 3.3,
RFC 8446 section 4.4.2.1), to those alone who ask, in both versions of the protocol."""

import time

import pytest
from cext.crypto.sign import PrivateKey
from cext.tls.alert import TlsAlert
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.credential import Credential
from cext.tls.engine import ESTABLISHED, Engine
from cext.tls.inspect import parse
from cext.tls.messages12 import parse as parse12
from cext.tls.session import TicketKeys, shift_clock
from cryptography.hazmat.primitives import serialization

from tests.cext.tls.peer import RawClient, certified, extension, pump, u16s, vector
from tests.cext.tls.peer12 import RawClient12

TLS12, TLS13 = 0x0303, 0x0304
STATUS_REQUEST, TIMESTAMP = 5, 18
CERTIFICATE, CERTIFICATE_STATUS, SERVER_KEY_EXCHANGE = 11, 22, 12
RESPONSE = b"an OCSPResponse"
TIMESTAMPS = vector(2, vector(2, b"first") + vector(2, b"second"))
ASKS_STATUS = extension(STATUS_REQUEST, b"\1" + bytes(4))
ASKS_TIMESTAMPS = extension(TIMESTAMP)
TICKETS = TicketKeys([(bytes(16), bytes(32))])


def stapled(response=RESPONSE, timestamps=TIMESTAMPS, kind="ecdsa-p256", chain=1, expires=0):
    certificate, key = certified(kind)
    der = certificate.public_bytes(serialization.Encoding.DER)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credential([der] * chain, PrivateKey.from_pem(pem), ["example.com"], ocsp_response=response,
                      ocsp_expires=expires, signed_certificate_timestamps=timestamps)


def connect(server, client, session=None):
    a, b = Engine(ClientConfig(server_name="example.com", session=session, **client)), Engine(server)
    pump(a, b)
    return a, b


@pytest.mark.parametrize("version", [TLS13, TLS12])
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("status", [False, True])
def test_a_client_gets_what_it_asks_for(version, status, timestamps):
    client = {"status_request": status, "signed_certificate_timestamp": timestamps, "max_version": version}
    a, b = connect(ServerConfig([stapled()]), client)
    assert a.established and b.established, a.failure or b.failure
    assert a.ocsp_response == (RESPONSE if status else b"")
    assert a.signed_certificate_timestamps == (TIMESTAMPS if timestamps else b"")


@pytest.mark.parametrize("version", [TLS13, TLS12])
def test_a_server_without_them(version):
    client = {"status_request": True, "signed_certificate_timestamp": True, "max_version": version}
    a, _ = connect(ServerConfig([stapled(b"", b"")]), client)
    assert (a.established, a.ocsp_response, a.signed_certificate_timestamps) == (True, b"", b"")


@pytest.mark.parametrize("version", [TLS13, TLS12])
def test_a_response_is_shown_until_it_expires(version):
    config = ServerConfig([stapled(expires=time.time() + 60)])
    client = {"status_request": True, "max_version": version}
    assert connect(config, client)[0].ocsp_response == RESPONSE
    shift_clock(61_000)
    assert connect(config, client)[0].ocsp_response == b""


@pytest.mark.parametrize("version", [TLS13, TLS12])
def test_a_session_keeps_them(version):
    """And the server sends them once only: with the certificate."""
    server = ServerConfig([stapled()], tickets=TICKETS)
    client = {"status_request": True, "signed_certificate_timestamp": True, "max_version": version}
    first, _ = connect(server, client)
    session = type(first.session).from_bytes(first.session.to_bytes())
    second, _ = connect(server, client, session)
    assert second.resumed
    assert (second.ocsp_response, second.signed_certificate_timestamps) == (RESPONSE, TIMESTAMPS)


def leaf_extensions(body):
    """Of a Certificate's first two entries, encoded."""
    found, rest = [], body[4:]
    while rest and len(found) < 2:
        n = int.from_bytes(rest[:3], "big")
        size = int.from_bytes(rest[3 + n : 5 + n], "big")
        found.append(rest[5 + n : 5 + n + size])
        rest = rest[5 + n + size :]
    return found


@pytest.mark.parametrize(("asked", "shown"), [
    ((), b""),
    ((ASKS_STATUS,), extension(STATUS_REQUEST, b"\1" + vector(3, RESPONSE))),
    ((ASKS_TIMESTAMPS,), extension(TIMESTAMP, TIMESTAMPS)),
    ((ASKS_TIMESTAMPS, ASKS_STATUS),
     extension(STATUS_REQUEST, b"\1" + vector(3, RESPONSE)) + extension(TIMESTAMP, TIMESTAMPS)),
    ((extension(STATUS_REQUEST, b"\2what"),), b""),         # a type of status that nobody knows
])
def test_they_stand_beside_the_leaf(asked, shown):
    client = RawClient(ServerConfig([stapled(chain=2)]), extra=asked).hello()
    whole = next(m for kind, m in client.flight if kind == CERTIFICATE)
    assert leaf_extensions(whole[4:]) == [shown, b""]
    client.finish()
    assert client.server.established


@pytest.mark.parametrize("asked", [(), (ASKS_STATUS,), (ASKS_TIMESTAMPS,), (ASKS_STATUS, ASKS_TIMESTAMPS)])
def test_messages_of_tls12(asked):
    client = RawClient12(ServerConfig([stapled()])).hello(extra=asked)
    kinds = [kind for kind, _ in client.flight]
    sent = parse12("server_hello", client.flight[0][1][4:], offered=(0, 11, 16, 23, 35, 5, 18, 0xFF01))
    assert sent["status_request"] == (ASKS_STATUS in asked)
    assert sent["timestamps"] == (TIMESTAMPS if ASKS_TIMESTAMPS in asked else None)
    assert kinds[1:3] == [CERTIFICATE, CERTIFICATE_STATUS if ASKS_STATUS in asked else SERVER_KEY_EXCHANGE]
    if ASKS_STATUS in asked:
        assert client.flight[2][1][4:] == b"\1" + vector(3, RESPONSE)


def test_a_timestamp_request_is_empty():
    client = RawClient(ServerConfig([stapled()]), extra=(extension(TIMESTAMP, b"\0"),)).hello()
    assert client.server.failure.name == "decode_error"


# What a credential takes.

def test_timestamps_are_given_encoded_or_one_by_one():
    assert stapled(timestamps=[b"first", b"second"]).signed_certificate_timestamps == TIMESTAMPS
    assert stapled(timestamps=TIMESTAMPS).signed_certificate_timestamps == TIMESTAMPS
    assert stapled(timestamps=()).signed_certificate_timestamps == b""


@pytest.mark.parametrize("timestamps", [
    b"\0\0", b"\0", vector(2, vector(2, b"")), vector(2, vector(2, b"x") + b"\0"), TIMESTAMPS + b"\0", [b""],
    [b"a", b""], [bytes(1 << 14)], [bytes(5000)] * 4, [bytes(1 << 16)], vector(2, vector(2, bytes(1 << 15))),
])
def test_what_is_no_timestamp_list(timestamps):
    with pytest.raises(ValueError, match="signed_certificate_timestamps"):
        stapled(timestamps=timestamps)


def test_too_long_a_response():
    with pytest.raises(ValueError, match="ocsp_response"):
        stapled(response=bytes(65536 - 4 - 4))
    with pytest.raises(ValueError, match="ocsp_response"):
        stapled(response=bytes(1 << 24))
    credential = stapled(response=bytes(60000), timestamps=b"")
    a, _ = connect(ServerConfig([credential]), {"status_request": True})
    assert len(a.ocsp_response) == 60000


# What a client takes.

def entry(*extensions, der=b"DER"):
    return vector(3, der) + vector(2, b"".join(extensions))


def certificate(*entries):
    return b"\0" + vector(3, b"".join(entries))


STAPLE = extension(STATUS_REQUEST, b"\1" + vector(3, RESPONSE))
LIST = extension(TIMESTAMP, TIMESTAMPS)


def test_a_certificate_with_both():
    body = certificate(entry(STAPLE, LIST), entry(extension(STATUS_REQUEST, b"\1" + vector(3, b"other"))))
    found = parse("certificate", body, offered=(STATUS_REQUEST, TIMESTAMP))
    assert (found["ocsp_response"], found["timestamps"]) == (RESPONSE, TIMESTAMPS)
    for n in range(len(body)):
        with pytest.raises(TlsAlert):
            parse("certificate", body[:n], offered=(STATUS_REQUEST, TIMESTAMP))


@pytest.mark.parametrize(("extensions", "name"), [
    (extension(STATUS_REQUEST), "decode_error"),
    (extension(STATUS_REQUEST, b"\1\0\0\0"), "decode_error"),
    (extension(STATUS_REQUEST, b"\1" + vector(3, b"x") + b"\0"), "decode_error"),
    (extension(STATUS_REQUEST, b"\1\0\0\2x"), "decode_error"),
    (extension(STATUS_REQUEST, b"\2" + vector(3, b"x")), "decode_error"),
    (extension(TIMESTAMP), "decode_error"),
    (extension(TIMESTAMP, b"\0\0"), "decode_error"),
    (extension(TIMESTAMP, vector(2, vector(2, b"") + vector(2, b"x"))), "decode_error"),
    (extension(TIMESTAMP, TIMESTAMPS + b"\0"), "decode_error"),
    (LIST + LIST, "illegal_parameter"),
])
@pytest.mark.parametrize("where", [0, 1])
def test_what_is_malformed_beside_any_certificate(extensions, name, where):
    entries = [entry(), entry()]
    entries[where] = entry(extensions)
    with pytest.raises(TlsAlert) as caught:
        parse("certificate", certificate(*entries), offered=(STATUS_REQUEST, TIMESTAMP))
    assert caught.value.name == name


@pytest.mark.parametrize(("offered", "extensions"), [((TIMESTAMP,), STAPLE), ((STATUS_REQUEST,), LIST), ((), STAPLE)])
def test_what_was_not_asked_for(offered, extensions):
    with pytest.raises(TlsAlert) as caught:
        parse("certificate", certificate(entry(extensions)), offered=offered)
    assert caught.value.name == "unsupported_extension"


def test_a_certificate_request_that_asks_for_both():
    body = b"\0" + vector(2, extension(13, vector(2, u16s(0x0403))) + extension(5) + extension(18))
    found = parse("certificate_request", body)
    assert (found["status_request"], found["signed_certificate_timestamp"]) == (True, True)


# Trust by the response.

@pytest.mark.parametrize("version", [TLS13, TLS12])
@pytest.mark.parametrize("response", [RESPONSE, b""])
def test_a_client_judges_the_response(version, response):
    seen = []
    client = {"status_request": True, "max_version": version,
              "verify_status": lambda chain, staple: seen.append((len(chain), staple))}
    a, _ = connect(ServerConfig([stapled(response)], tickets=TICKETS), client)
    assert a.established and seen == [(1, response)]
    a, _ = connect(ServerConfig([stapled(response)], tickets=TICKETS), client, a.session)
    assert a.resumed and len(seen) == 1


@pytest.mark.parametrize("version", [TLS13, TLS12])
@pytest.mark.parametrize("response", [RESPONSE, b""])
def test_a_client_refuses_by_the_response(version, response):
    def refuse(_chain, _response):
        raise ValueError("revoked")

    client = {"status_request": True, "max_version": version, "verify_status": refuse}
    a, b = connect(ServerConfig([stapled(response)]), client)
    assert (a.failure.name, a.failure.sent) == ("bad_certificate_status_response", True)
    assert b.failure.name == "bad_certificate_status_response"
    assert (a.ocsp_response, a.signed_certificate_timestamps) == (b"", b"")


# A server of TLS 1.2 that promises a CertificateStatus need not send it (RFC 6066, section 8).

class Interrupt(BaseException):
    """As KeyboardInterrupt: what it passes through has not been done."""


class NumberedError(ValueError):
    description = 1


@pytest.mark.parametrize("version", [TLS13, TLS12])
@pytest.mark.parametrize("raised", [Interrupt(), NumberedError()])
@pytest.mark.parametrize("what", ["verify", "verify_status"])
def test_whatever_a_judge_raises_refuses(version, raised, what):
    def judge(*_):
        raise raised

    client = {"status_request": True, "max_version": version, what: judge}
    a, b = connect(ServerConfig([stapled()]), client)
    assert not a.established and not b.established
    by_itself = {"verify": "bad_certificate", "verify_status": "bad_certificate_status_response"}[what]
    assert (a.failure.name, a.failure.sent) == (
        by_itself if isinstance(raised, Exception) else "internal_error", True)
    assert b.failure.name == a.failure.name


def altered12(alter, **client):
    """A client against a server of TLS 1.2 whose first flight is changed: the messages that the client sees."""
    a = Engine(ClientConfig(server_name="example.com", max_version=TLS12, **client))
    b = Engine(ServerConfig([stapled()]))
    b.receive_bytes(a.take_output())
    flight = b.take_output()
    content = b""
    while flight:
        n = int.from_bytes(flight[3:5], "big")
        content += flight[5 : 5 + n]
        flight = flight[5 + n :]
    sent = []
    while content:
        n = 4 + int.from_bytes(content[1:4], "big")
        sent.append(content[:n])
        content = content[n:]
    for message in alter(sent):
        events = a.receive_bytes(b"\x16\3\3" + vector(2, message))
        assert ESTABLISHED not in [event for event, _ in events]
    return a


def test_a_promised_status_that_does_not_come():
    a = altered12(lambda sent: [m for m in sent if m[0] != CERTIFICATE_STATUS], status_request=True)
    assert a.failure is None, "the ClientKeyExchange is on its way"
    assert a.take_output()


@pytest.mark.parametrize(("content", "name"), [
    (b"", "decode_error"), (b"\1\0\0\0", "decode_error"), (b"\2" + vector(3, b"x"), "decode_error"),
    (b"\1" + vector(3, b"x") + b"\0", "decode_error"), (bytes(1 << 17), "illegal_parameter"),
])
def test_a_status_that_is_none(content, name):
    def alter(sent):
        whole = bytes([CERTIFICATE_STATUS]) + vector(3, content)
        return [piece for m in sent
                for piece in ([whole[i : i + 16000] for i in range(0, len(whole), 16000)]
                              if m[0] == CERTIFICATE_STATUS else [m])]

    a = altered12(alter, status_request=True)
    assert a.failure.name == name


def test_a_status_that_was_not_promised():
    def alter(sent):
        return [*sent[:2], bytes([CERTIFICATE_STATUS]) + vector(3, b"\1" + vector(3, b"x")), *sent[2:]]

    assert altered12(alter).failure.name == "unexpected_message"


def test_two_statuses():
    def alter(sent):
        return [*sent[:3], sent[2], *sent[3:]]

    assert altered12(alter, status_request=True).failure.name == "unexpected_message"


# A client's own certificate.

def test_a_client_shows_its_certificate_alone():
    """Without either, for a server that does not ask for them: it would refuse the extensions."""
    server = ServerConfig([stapled()], client_auth="require")
    a, b = connect(server, {"credentials": [stapled()]})
    assert a.established and b.established, (a.failure, b.failure)
