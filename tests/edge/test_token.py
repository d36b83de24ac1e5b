"""Keys in PKCS #11 tokens, with SoftHSM as the token."""

import asyncio
import concurrent.futures
import dataclasses
import os
import pickle
import threading
import time
from unittest import mock

import pytest
from cext.crypto.sign import PublicKey

from edge import token
from edge.token import Name, Place, Token, TokenError, TokenSigner
from tests.edge.softhsm import KINDS, LABEL, PIN, SoftHsm, util

MESSAGE = b"what a handshake has signed"


@pytest.fixture(scope="module")
def hsm(tmp_path_factory):
    made = SoftHsm(tmp_path_factory.mktemp("softhsm"))
    util(made.directory, "--init-token", "--free", "--label", "second", "--so-pin", "5678", "--pin", PIN)
    with mock.patch.dict(os.environ, made.environment):
        yield made.add_each_kind()


@pytest.fixture(scope="module")
def place(hsm):
    return Place(hsm.module, LABEL, PIN)


def signer(hsm, place, kind="p256", *, name=None, timeout=30.0, pending=100):
    name = name or Name(kind, None)
    return TokenSigner(place, name, hsm.keys[kind], timeout=timeout, pending=pending)


def run(test):
    async def limited():
        async with asyncio.timeout(60):
            await test

    asyncio.run(limited())


def started(made):
    told = []
    made.start(asyncio.get_running_loop(), lambda level, message: told.append(f"{level}: {message}"))
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_every_scheme_of_a_key(hsm, place, kind):
    public = PublicKey.from_spki(hsm.keys[kind])

    async def test():
        one = signer(hsm, place, kind)
        told = started(one)
        for scheme in public.schemes12:
            signature = await one.sign(MESSAGE, scheme)
            assert public.verify12_bytes(scheme, MESSAGE, signature), hex(scheme)
        one.stop()
        assert told == []

    run(test())


@pytest.mark.parametrize("name", [Name("rsa", None), Name(None, b"\x03"), Name("rsa", b"\x03")])
def test_a_key_by_its_label_or_id(hsm, place, name):
    Token(place).check(name, hsm.keys["rsa"])


def test_from_many_threads(hsm, place):
    one, public = Token(place), PublicKey.from_spki(hsm.keys["p256"])
    value = token.digest(MESSAGE, 0x0403)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = [pool.submit(one.sign, Name("p256", None), "ecdsa-p256", 0x0403, value) for _ in range(200)]
        assert all(public.verify_bytes(0x0403, MESSAGE, signature.result(60)) for signature in made)


def test_it_is_opened_again_when_its_sessions_are_gone(hsm, place):
    one = Token(place)
    one.check(Name("p256", None), hsm.keys["p256"])
    one._session.close()  # and with it, who had logged in
    one.check(Name("p256", None), hsm.keys["p256"])


def test_a_token_that_the_module_had_not_seen_is_found(hsm, place):
    before = Token(place)
    before.check(Name("p256", None), hsm.keys["p256"])
    util(hsm.directory, "--init-token", "--free", "--label", "late", "--so-pin", "5678", "--pin", PIN)
    late = Token(dataclasses.replace(place, label="late"))
    with pytest.raises(TokenError, match="no such key"):  # not: no such token
        late.check(Name("p256", None), hsm.keys["p256"])
    before.check(Name("p256", None), hsm.keys["p256"])  # in a new session: the module has ended the others


@pytest.mark.parametrize(
    ("changed", "name", "why"),
    [
        ({"label": "another"}, Name("p256", None), 'token "another", key "p256": no such token'),
        ({}, Name("nothing", None), 'token "edge test", key "nothing": no such key'),
        ({}, Name(None, b"\xee"), 'token "edge test", key ee: no such key'),
        ({}, Name("rsa", None), 'token "edge test", key "rsa": is not the key of the certificate'),
        ({}, Name("p384", None), 'token "edge test", key "p384": is not the key of the certificate'),
        ({"pin": "0000"}, Name("p256", None), "pin incorrect: it is not tried again"),
        ({"pin": None}, Name("p256", None), "no such key"),
        ({"module": "/nowhere.so"}, Name("p256", None), '"p256": OS exception while loading /nowhere.so'),
        ({"module": "/usr/lib/x86_64-linux-gnu/libc.so.6"}, Name("p256", None), "libc.so.6"),
    ],
)
def test_what_is_wrong_is_found_in_another_process(hsm, place, changed, name, why):
    assert why in token.check(token.dataclasses.replace(place, **changed), name, hsm.keys["p256"])


def test_what_is_right_is_found_there_too(hsm, place):
    assert token.check(place, Name("ed25519", None), hsm.keys["ed25519"]) == ""


def test_without_the_package(hsm, place, monkeypatch, tmp_path):
    (tmp_path / "pkcs11.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "python-pkcs11 is not installed" in token.check(place, Name("p256", None), hsm.keys["p256"])


def test_a_module_that_kills_its_process(hsm, place, monkeypatch, tmp_path):
    (tmp_path / "pkcs11").mkdir()
    (tmp_path / "pkcs11/__init__.py").write_text("")
    (tmp_path / "pkcs11/exceptions.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "ends the process that loads it" in token.check(place, Name("p256", None), hsm.keys["p256"])


def test_a_wrong_pin_is_tried_once(hsm, place):
    one = Token(Place(place.module, "second", "0000"))
    with mock.patch.object(token, "_words", wraps=token._words) as asked:
        for _ in range(5):
            with pytest.raises(TokenError, match="pin incorrect: it is not tried again"):
                one.check(Name("p256", None), hsm.keys["p256"])
    assert asked.call_count == 1


def test_a_key_that_is_not_the_certificates_is_reported(hsm, place):
    async def test():
        one = signer(hsm, place, "p256", name=Name("rsa", None))
        told = started(one)
        while not told:
            await asyncio.sleep(0.01)
        assert told == ['error: token "edge test", key "rsa": is not the key of the certificate']
        one.stop()

    run(test())


def test_the_loop_goes_on_while_a_token_thinks(hsm, place):
    """And nobody waits for it longer than the timeout, nor more than `pending`."""
    thinking = threading.Event()

    async def test():
        one = signer(hsm, place, timeout=0.5, pending=3)
        started(one)
        assert await one.sign(MESSAGE, 0x0403)
        one._caller.token.sign = lambda *_: thinking.wait(30)
        waiting = [asyncio.ensure_future(one.sign(MESSAGE, 0x0403)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(TokenError, match="3 signatures are being waited for"):
            await one.sign(MESSAGE, 0x0403)
        begun = time.monotonic()
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, TokenError)
            assert "no signature within 0.5 s" in str(answer)
        assert time.monotonic() - begun < 20
        thinking.set()
        del one._caller.token.sign
        assert await one.sign(MESSAGE, 0x0403)
        one.stop()

    run(test())


def test_what_is_not_started_or_cannot_be(hsm, place):
    async def test():
        one = signer(hsm, place)
        with pytest.raises(TokenError, match="has not been opened"):
            await one.sign(MESSAGE, 0x0403)
        started(one)
        with pytest.raises(ValueError, match="cannot sign by scheme 0x0804"):
            await one.sign(MESSAGE, 0x0804)
        one.stop()

    run(test())


def test_certificates_of_a_token_share_its_session(hsm, place):
    async def test():
        one, other = signer(hsm, place, "p256"), signer(hsm, place, "rsa")
        started(one)
        started(other)
        assert one._caller is other._caller
        before = one._caller
        one.stop()
        assert await other.sign(MESSAGE, 0x0804)
        other.stop()
        started(one)
        assert one._caller is not before
        one.stop()

    run(test())


def test_signers_travel_and_compare(hsm, place):
    one = signer(hsm, place)
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(pickle.loads(pickle.dumps(one))) == hash(one)
    assert signer(hsm, place, "rsa") != one
    assert PIN not in repr(place)


def test_its_keys_for_a_key_server(hsm, place):
    held = Token(place).keys()
    found = {key.name.label: key for key in held}
    assert {label: key.public_spki() for label, key in found.items()} == hsm.keys
    value = token.digest(MESSAGE, 0x0804)
    signature = found["rsa"].sign_digest(0x0804, value)
    assert PublicKey.from_spki(hsm.keys["rsa"]).verify_bytes(0x0804, MESSAGE, signature)
