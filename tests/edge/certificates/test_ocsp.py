"""OCSP responses: what is believed of them, how they are fetched, and what a hostile responder can do."""

import asyncio
import contextlib
import dataclasses
import datetime
import socket
import threading

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as x509_ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.certificates import ocsp, ocsp_fetch
from edge.certificates.ocsp import OcspError, OcspStaleError
from edge.certificates.ocsp_fetch import Cache, Fetcher, Target
from tests.edge.issuing import DAY, NOW, Authority, certificate, p256, staple

GOOD, REVOKED, UNKNOWN = (getattr(x509_ocsp.OCSPCertStatus, name) for name in ("GOOD", "REVOKED", "UNKNOWN"))
CA = Authority()
LEAF = CA.issue(p256(), "leaf")


def good(**named):
    return staple(LEAF, CA.certificate, CA.key, **named)


def by_responder(signer=CA.responder, *, key=CA.responder_key, beside=None, **named):
    return staple(LEAF, CA.certificate, key, signer=signer, beside=[signer] if beside is None else beside, **named)


@pytest.mark.parametrize(
    "der",
    [
        good(),
        good(algorithm=hashes.SHA1),
        good(by_name=True),
        good(begin=NOW + datetime.timedelta(minutes=2)),  # a clock a little ahead
        by_responder(),
        by_responder(beside=[CA.certificate, CA.responder], by_name=True),
    ],
)
def test_responses_that_are_believed(der):
    answer = ocsp.check(der, LEAF, CA.certificate)
    assert answer.good and answer.der == der
    assert answer.begins < answer.expires


@pytest.mark.parametrize("make", [ed25519.Ed25519PrivateKey.generate, lambda: rsa.generate_private_key(65537, 2048),
                                  lambda: ec.generate_private_key(ec.SECP384R1())])  # fmt: skip
def test_each_kind_of_key_may_sign(make):
    ca = Authority(make())
    leaf = ca.issue(p256(), "leaf")
    assert ocsp.check(staple(leaf, ca.certificate, ca.key), leaf, ca.certificate).good


def test_what_a_response_says():
    answer = ocsp.check(good(status=REVOKED), LEAF, CA.certificate)
    assert not answer.good and answer.status is REVOKED and answer.revoked is not None
    assert ocsp.check(good(status=UNKNOWN), LEAF, CA.certificate).status is UNKNOWN
    assert ocsp.check(good(end=None), LEAF, CA.certificate).expires is None


OTHER = Authority()
"""Of the same name."""
OCSP_SIGNING = ExtendedKeyUsageOID.OCSP_SIGNING
PLAIN = CA.issue(CA.responder_key, "responder")
"""The key of the responder, but not for that."""
FOREIGN = OTHER.issue(CA.responder_key, "responder", usage=OCSP_SIGNING)
IMPOSTOR = OTHER.issue(OTHER.key, "responder", usage=OCSP_SIGNING)
OVER = CA.issue(CA.responder_key, "responder", usage=OCSP_SIGNING, begin=NOW - 9 * DAY, end=NOW - 1.2 * DAY)
FORGED = staple(LEAF, CA.certificate, OTHER.key, signer=OTHER.certificate, by_name=True)
ANOTHER = CA.issue(p256(), "another")
TRY_LATER = x509_ocsp.OCSPResponseBuilder.build_unsuccessful(x509_ocsp.OCSPResponseStatus.TRY_LATER)


@pytest.mark.parametrize(
    ("der", "words"),
    [
        (b"", "holds no OCSP response"),
        (b"\x30\x80", "holds no OCSP response"),
        (good()[:-1], "holds no OCSP response"),
        (good() + b"\0", "holds no OCSP response"),
        (bytes(65537), "more than 65536 bytes"),
        (TRY_LATER.public_bytes(Encoding.DER), "answered TRY_LATER"),
        (staple(ANOTHER, CA.certificate, CA.key), "for another certificate"),
        (staple(LEAF, OTHER.certificate, CA.key, signer=CA.certificate), "for another certificate"),
        (FORGED, "signature that is wrong"),
        (staple(LEAF, CA.certificate, OTHER.key, signer=OTHER.certificate), "who may not sign"),
        (by_responder(beside=[]), "who may not sign"),
        (by_responder(PLAIN), "who may not sign"),
        (by_responder(FOREIGN), "who may not sign"),
        (by_responder(OVER), "who may not sign"),
        (by_responder(IMPOSTOR, key=OTHER.key, beside=[CA.responder], by_name=True), "signature that is wrong"),
        (good()[:-10] + bytes(10), "wrong|holds no"),
    ],
)
def test_responses_that_are_not(der, words):
    with pytest.raises(OcspError, match=words):
        ocsp.check(der, LEAF, CA.certificate)


@pytest.mark.parametrize(
    ("begin", "end", "words"),
    [(NOW - 2 * DAY, NOW - DAY, "expired on"), (NOW + DAY, None, "not valid before")],
)
def test_responses_out_of_their_time(begin, end, words):
    with pytest.raises(OcspStaleError, match=words):
        ocsp.check(good(begin=begin, end=end), LEAF, CA.certificate)


def test_without_the_issuer_the_signer_is_the_clients_to_judge():
    assert ocsp.check(FORGED, LEAF, None).good
    with pytest.raises(OcspError, match="another certificate"):
        ocsp.check(staple(ANOTHER, CA.certificate, CA.key), LEAF, None)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(good()) - 1), st.integers(1, 255))
def test_no_changed_byte_makes_another_truth(at, change):
    der = bytearray(good(algorithm=hashes.SHA1))
    at %= len(der)
    der[at] ^= change
    with contextlib.suppress(OcspError):
        answer = ocsp.check(bytes(der), LEAF, CA.certificate)
        # What is not signed may differ (the version of an extension, say); what is said may not.
        assert answer.good and answer.expires == (NOW + DAY).replace(microsecond=0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_is_sent_is_an_answer_or_an_error(der):
    with contextlib.suppress(OcspError):
        ocsp.check(der, LEAF, CA.certificate)
    with contextlib.suppress(OcspError):
        ocsp_fetch._content(der)
    with contextlib.suppress(OcspError):
        ocsp_fetch._content(b"HTTP/1.1 200 OK\r\n" + der)


# --- what a certificate says


def test_responders():
    assert ocsp.responders(LEAF) == ()
    for url, taken in (
        ("http://ocsp.test", True), ("http://ocsp.test:8080/a/b", True), ("http://[::1]:80/", True),
        ("https://ocsp.test/", False), ("ldap://ocsp.test/", False), ("http://", False), ("http:///path", False),
        ("http://u@ocsp.test/", False), ("http://ocsp.test:x/", False), ("http://ocsp.test:99999/", False),
        ("http://ocsp.test/\r\nX: y", False), ("http://oc sp.test/", False),
    ):  # fmt: skip
        found = ocsp.responders(CA.issue(p256(), "x", url=url))
        assert found == ((url,) if taken else ()), url


def test_must_staple():
    assert not ocsp.must_staple(LEAF)
    assert ocsp.must_staple(CA.issue(p256(), "x", must_staple=True))


# --- fetching


class Responder:
    """A responder whose answers a test sets: `answer` is what goes back for a request, raw bytes or a function of the
    socket."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/ocsp"
        self.requests = []
        self.answer = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                one, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(one,), daemon=True).start()

    def _one(self, one):
        with one, contextlib.suppress(OSError):
            self.requests.append(one.recv(65536))
            if callable(self.answer):
                self.answer(one)
            else:
                one.sendall(self.answer)
                one.shutdown(socket.SHUT_WR)
                one.recv(1)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def http(der, status="200 OK", more=""):
    return f"HTTP/1.0 {status}\r\nContent-Type: application/ocsp-response\r\n{more}\r\n".encode() + der


@pytest.fixture
def responder():
    made = Responder()
    yield made
    made.close()


def fetch(url, request=b"request"):
    return asyncio.run(ocsp_fetch.fetch(url, request))


def test_a_short_request_is_a_get(responder):
    responder.answer = http(b"answer")
    assert fetch(responder.url, ocsp.request(LEAF, CA.certificate)) == b"answer"
    line, host, *_ = responder.requests[0].split(b"\r\n")
    assert line.startswith(b"GET /ocsp/M") and line.endswith(b" HTTP/1.0")
    assert host == f"Host: {responder.url.split('/')[2]}".encode()
    for wild in (b"+", b"=", b"//"):
        assert wild not in line


def test_a_long_request_is_a_post(responder):
    responder.answer = http(b"answer")
    assert fetch(responder.url, bytes(300)) == b"answer"
    assert responder.requests[0].startswith(b"POST /ocsp HTTP/1.0\r\n")
    assert responder.requests[0].endswith(b"Content-Length: 300\r\n\r\n" + bytes(300))
    assert fetch(f"{responder.url}?a=b", b"x") == b"answer"
    assert responder.requests[1].startswith(b"POST /ocsp?a=b HTTP/1.0\r\n")


def test_a_responder_that_keeps_the_connection_open(responder):
    held = threading.Event()

    def answer(one):
        one.sendall(http(b"answer", more="Content-Length: 6\r\n"))
        held.wait(20)

    responder.answer = answer
    assert fetch(responder.url) == b"answer"
    held.set()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "is no HTTP"),
        (b"garbage\r\n\r\n" * 100, "is no HTTP"),
        (b"\0" * 100, "is no HTTP"),
        (http(b"", "500 No"), "has status 500"),
        (http(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"), "has status 302"),
        (http(b"abc", more="Content-Length: 5\r\n"), "is no HTTP"),
        (http(bytes(200000)), "has more than 65536 bytes"),
        (b"HTTP/1.0 200 OK\r\n" + b"A: b\r\n" * 60000, "has more than 65536 bytes"),
    ],
)
def test_answers_that_are_none(responder, answer, words):
    responder.answer = answer
    with pytest.raises(OcspError, match=words):
        fetch(responder.url)


def test_a_responder_without_an_end(responder, monkeypatch):
    monkeypatch.setattr(ocsp_fetch, "FETCH_SECONDS", 0.3)
    stopped = threading.Event()

    def drip(one):
        one.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while not stopped.wait(0.02):
            one.sendall(b"x")

    responder.answer = drip
    with pytest.raises(TimeoutError):
        fetch(responder.url)
    stopped.set()


def test_a_responder_that_is_not_there(responder):
    responder.close()
    with pytest.raises(OSError):
        fetch(responder.url)


# --- keeping them fresh


@pytest.fixture
def fetching(responder, tmp_path):
    """fetching(until) runs a Fetcher until `until(log)`; -> the log."""
    cache = Cache(tmp_path)
    log = []
    leaf = LEAF.public_bytes(Encoding.DER)
    target = Target("certificate[0] (a.test)", leaf, CA.certificate.public_bytes(Encoding.DER), (responder.url,), False)

    def run(until, target=target, seconds=20):
        log.clear()

        async def main():
            task = asyncio.ensure_future(Fetcher([target], cache, lambda *a: log.append(a), retry=(0.02, 0.1)).run())
            end = asyncio.get_running_loop().time() + seconds
            while not until(log) and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0.005)
            task.cancel()

        asyncio.run(main())
        assert until(log), log
        return log

    run.cache, run.leaf, run.target = cache, leaf, target
    run.held = lambda: (answer := cache.load(leaf, CA.certificate)) and answer.der
    return run


def test_a_good_response_is_kept(fetching, responder):
    responder.answer = http(der := good())
    ((level, message),) = fetching(lambda log: log)
    assert (level, "OCSP response until" in message) == ("info", True)
    assert fetching.held() == der
    # It is young: another start does not ask again.
    fetching(lambda _: True)
    assert len(responder.requests) == 1


def test_an_old_one_is_asked_for_again_at_the_start(fetching, responder):
    responder.answer = http(good(begin=NOW - 3 * DAY))
    fetching(lambda log: log)
    responder.answer = http(fresh := good(begin=NOW - datetime.timedelta(minutes=1)))
    fetching(lambda log: log)
    assert fetching.held() == fresh


def test_of_several_responders_the_next_is_asked(fetching, responder):
    responder.answer = http(good())
    dead = Responder()
    dead.close()
    target = dataclasses.replace(fetching.target, urls=(dead.url, responder.url))
    fetching(lambda log: log, target)
    assert fetching.held() is not None


BAD = [
    (http(good(status=REVOKED)), "error", "says that the certificate is revoked, since 20"),
    (http(good(status=UNKNOWN)), "warning", "does not know the certificate"),
    (http(good(end=NOW - datetime.timedelta(hours=1))), "warning", "expired on"),
    (http(good(end=None)), "warning", "does not say until when"),
    (http(good(begin=NOW - 4 * DAY)), "warning", "is older than the one at hand"),
    (http(FORGED), "warning", "has a signature that is wrong"),
    (http(staple(ANOTHER, CA.certificate, CA.key)), "warning", "for another certificate"),
    (http(bytes(200000)), "warning", "more than"),
    (http(b"x" * 1000), "warning", "holds no OCSP response"),
    (http(good(), "503 Busy"), "warning", "has status 503"),
    (b"nonsense", "warning", "is no HTTP"),
]


@pytest.mark.parametrize(("answer", "level", "words"), BAD)
def test_nothing_worse_takes_the_place_of_a_good_one(fetching, responder, answer, level, words):
    held = good(begin=NOW - datetime.timedelta(hours=60))
    fetching.cache.save(fetching.leaf, ocsp.check(held, LEAF, CA.certificate))
    responder.answer = answer
    said = fetching(lambda log: len(log) >= 2)
    assert {one[0] for one in said} == {level}
    assert words in said[0][1] and "the one at hand holds until" in said[0][1] and responder.url in said[0][1]
    assert fetching.held() == held
    # and when the responder is well again, so are we
    responder.answer = http(fresh := good(begin=NOW - datetime.timedelta(minutes=1)))
    fetching(lambda log: any(one[0] == "info" for one in log))
    assert fetching.held() == fresh


def test_one_that_clients_demand_is_an_error_when_it_lacks(fetching, responder):
    responder.answer = http(b"", "500 No")
    said = fetching(lambda log: log, dataclasses.replace(fetching.target, demanded=True))
    assert said[0][0] == "error" and "clients get none" in said[0][1]


def test_a_cache_that_cannot_be_written_is_told(fetching, responder, tmp_path):
    responder.answer = http(good())
    fetching.cache._directory = tmp_path / "none"
    said = fetching(lambda log: log)
    assert "No such file" in said[0][1]


def test_what_stands_in_the_cache_is_not_believed(fetching):
    path = fetching.cache.path(fetching.leaf)
    over = good(end=NOW - datetime.timedelta(hours=1))
    foreign = staple(ANOTHER, CA.certificate, CA.key)
    for content in (b"", b"x", over, good(status=REVOKED), good(end=None), FORGED, foreign, bytes(100000)):
        path.write_bytes(content)
        assert fetching.held() is None
    path.unlink()
    path.mkdir()
    assert fetching.held() is None


@pytest.mark.parametrize(
    ("begin", "end", "low", "high"),
    [
        (NOW, NOW + 8 * DAY, 3.9 * 86400, 4.9 * 86400),  # half of its life, and a bit
        (NOW - 2 * DAY, NOW + 2 * DAY, -1000, 0.4 * 86400 + 1),
        (NOW - 7 * DAY, NOW + DAY, -4 * 86400, 0),  # at once
    ],
)
def test_when_it_is_fetched_again(begin, end, low, high):
    for _ in range(20):
        assert low < ocsp_fetch._due(ocsp.Answer(b"", GOOD, begin, end, None)) < high


def test_a_responder_that_hands_out_old_ones_is_not_asked_without_pause(fetching, responder):
    responder.answer = http(good(begin=NOW - 20 * DAY))
    fetching(lambda log: log)
    fetching(lambda log: log)
    assert len(responder.requests) == 2


def test_certificates_that_are_none_of_ours_are_refused():
    with pytest.raises(OcspError):
        ocsp.check(good(), certificate(p256(), "x", ["a.test"]), CA.certificate)
