"""Delegated credentials: made by `edge delegate`, read by the configuration, shown to who takes them."""

import asyncio
import datetime
import os
import signal
import threading
import time

import pytest
from cext.tls.delegated import DelegatedCredential
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from edge import config, plane
from edge.__main__ import cli
from edge.certificates import certs, delegate
from edge.certificates.watch import Watch
from edge.errors import ConfigError, EdgeError
from tests.edge.issuing import DAY, NOW, certificate, chain_pem, key_pem, p256

USAGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.44363.44"), b"\x05\x00")
SIGNS = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
WEEK = datetime.timedelta(days=7)
HOUR = datetime.timedelta(hours=1)


def delegating(key, name="a.test", **named):
    return certificate(key, name, [name], extensions=[USAGE, SIGNS], **named)


class Files:
    """A certificate that may delegate, in files, and a configuration that names them."""

    def __init__(self, directory):
        self.directory = directory
        self.credential, self.delegated_key = directory / "dc.bin", directory / "dc.key"
        self.renew()
        self.text = (
            '[[listener]]\nbind = ["127.0.0.1:1"]\n[[certificate]]\nchain = "a.pem"\nkey = "a.key"\n'
            'delegated = { credential = "dc.bin", key = "dc.key" }\n'
            '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:1"]\n[[route]]\nupstream = "u"\n'
        )
        self.file = directory / "edge.toml"
        self.file.write_text(self.text)

    def renew(self, leaf=None, key=None):
        self.key = key or p256()
        self.leaf = leaf or delegating(self.key)
        (self.directory / "a.pem").write_bytes(chain_pem(self.leaf))
        (self.directory / "a.key").write_bytes(key_pem(self.key))

    @property
    def der(self):
        return self.leaf.public_bytes(Encoding.DER)

    @property
    def order(self):
        (order,) = delegate.orders(self.file)
        return order

    def make(self, lifetime=DAY):
        return delegate.make(self.order, lifetime)

    def made(self):
        return DelegatedCredential(self.credential.read_bytes(), self.der)

    def load(self):
        return certs.load(config.load(self.file))[0]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_what_is_made(files):
    ends = files.make()
    made = files.made()
    assert made.is_signed_by(files.der)
    assert abs(made.expires / 1000 - ends.timestamp()) < 2 and abs(ends - NOW - DAY) < HOUR
    key = load_pem_private_key(files.delegated_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert (files.delegated_key.stat().st_mode & 0o777, files.credential.stat().st_mode & 0o777) == (0o600, 0o644)
    assert sorted(p.name for p in files.directory.iterdir()) == ["a.key", "a.pem", "dc.bin", "dc.key", "edge.toml"]
    # each has a key of its own
    before = files.delegated_key.read_bytes()
    files.make()
    assert files.delegated_key.read_bytes() != before


def test_it_holds_no_longer_than_it_may(files):
    assert files.make(WEEK) - datetime.datetime.now(datetime.UTC) < WEEK - 0.9 * HOUR
    files.renew(delegating(key := p256(), end=NOW + 2 * DAY), key)
    ends = files.make(WEEK)
    assert ends <= files.leaf.not_valid_after_utc
    assert files.made().is_signed_by(files.der)


def test_a_key_that_is_somewhere_else(files, monkeypatch):
    class Remote:
        def __init__(self):
            self.calls = []

        def start(self, aio, report):
            assert aio is asyncio.get_running_loop()
            self.calls.append("start")
            report("warning", "trouble")

        async def sign(self, message, scheme):
            self.calls.append(("sign", scheme))
            if self.fails:
                raise TimeoutError("no answer")
            return files.key.sign(message, ec.ECDSA(hashes.SHA256()))

        def stop(self):
            self.calls.append("stop")

    remote = Remote()
    whole = certs.load_for_delegation

    def load(entry, at):
        import dataclasses

        return dataclasses.replace(whole(entry, at), key_pem=b"", signer=remote)

    monkeypatch.setattr(certs, "load_for_delegation", load)
    remote.fails = False
    files.make()
    assert remote.calls == ["start", ("sign", 0x0403), "stop"]
    assert files.made().is_signed_by(files.der)
    before = files.credential.read_bytes()
    remote.fails = True
    with pytest.raises(EdgeError, match="no answer; trouble"):
        files.make()
    assert remote.calls[-1] == "stop"
    assert files.credential.read_bytes() == before


def test_a_certificate_that_may_not(files):
    files.renew(certificate(key := p256(), "a", ["a.test"]), key)
    with pytest.raises(ConfigError, match=r"may not delegate.*DelegationUsage"):
        files.make()
    assert not files.credential.exists()


def test_files_that_cannot_be_written(files):
    files.delegated_key.mkdir()
    with pytest.raises(EdgeError, match="directory"):
        files.make()
    assert not files.credential.exists()
    assert [p for p in files.directory.iterdir() if p.name.startswith(".")] == []


def test_a_configuration_without_any(files):
    files.file.write_text(files.text.replace("delegated", "# delegated"))
    with pytest.raises(ConfigError, match="has no `delegated`"):
        delegate.orders(files.file)


# --- in a configuration


def test_it_is_loaded(files):
    files.make()
    identity = files.load()
    assert identity.warnings == ()
    assert identity.delegation.credential == files.credential.read_bytes()
    assert files.delegated_key.read_bytes().decode()[40:60] not in repr(identity)
    prepared = plane.prepare(config.load(files.file), bytes(32))
    (listener,) = prepared.listeners.values()
    first, second = listener.tls.credentials
    assert first.delegated is not None and second.delegated is None
    assert first.chain == second.chain
    assert prepared.serving.identities[0].delegation.key_pem == b""


def refused(files):
    with pytest.raises(ConfigError) as caught:
        files.load()
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_refused(files):
    e = refused(files)
    assert e.key == "certificate[0].delegated.credential" and "no such file" in e.problem
    files.make()
    good, key = files.credential.read_bytes(), files.delegated_key.read_bytes()
    for content in (b"", good[:-1], good + b"\0", b"-----BEGIN CERTIFICATE-----"):
        files.credential.write_bytes(content)
        e = refused(files)
        assert e.key == "certificate[0].delegated.credential" and "edge delegate" in e.remedy
    files.credential.write_bytes(good)
    for content in (b"", key_pem(p256()), key[:50]):
        files.delegated_key.write_bytes(content)
        e = refused(files)
        assert e.key == "certificate[0].delegated.key" and "edge delegate" in e.remedy
    files.delegated_key.write_bytes(key)
    files.renew(certificate(other := p256(), "a", ["a.test"]), other)
    e = refused(files)
    assert e.key == "certificate[0].delegated" and "may not delegate" in e.problem


def test_what_is_left_out(files):
    """It never stands in the way of its certificate."""
    files.make(datetime.timedelta(seconds=1))
    time.sleep(1.1)
    identity = files.load()
    assert identity.delegation is None
    (warning,) = identity.warnings
    assert "has expired, and is not shown" in warning and "certificate[0].delegated.credential" in warning
    files.make()
    files.renew()
    identity = files.load()
    assert identity.delegation is None
    assert "another certificate's" in identity.warnings[0]


def test_its_files_are_watched(files):
    files.make()
    now = [0.0]
    settings = config.load(files.file)
    watch = Watch(settings, lambda: now[0])
    prepared = plane.prepare(settings, bytes(32))
    (listener,) = prepared.listeners.values()
    said = []

    def look():
        now[0] += 5
        return watch.look(prepared.serving.identities, said.append)

    assert look() == look() == {}
    before = listener.tls.credentials
    files.make()
    look()
    found = look()
    assert found[0].key_pem == b"" and found[0].delegation.key_pem
    prepared.serving.prepare(found).commit()
    watch.accept(found)
    after = listener.tls.credentials
    assert after[0].delegated.encoded == files.credential.read_bytes() != before[0].delegated.encoded
    assert after[1].key is before[1].key  # the certificate's own key goes on
    # Another chain for the same key: the old delegation is of no use to it.
    files.renew(key=files.key)
    look()
    found = look()
    prepared.serving.prepare(found).commit()
    watch.accept(found)
    assert len(listener.tls.credentials) == 1 and listener.tls.credentials[0].key is before[1].key
    files.make()
    look()
    prepared.serving.prepare(look()).commit()
    assert len(listener.tls.credentials) == 2
    assert said == []


def test_one_that_expires_meanwhile_is_left_out_of_what_is_made_later(files):
    files.make(datetime.timedelta(seconds=2))
    prepared = plane.prepare(config.load(files.file), bytes(32))
    (listener,) = prepared.listeners.values()
    assert len(listener.tls.credentials) == 2
    while not prepared.serving.identities[0].delegation.has_expired():
        time.sleep(0.05)
    prepared.serving.prepare({0: prepared.serving.identities[0]}).commit()
    assert len(listener.tls.credentials) == 1


# --- the command


def command(*arguments):
    return CliRunner().invoke(cli, ["delegate", *map(str, arguments)], catch_exceptions=True)


def test_the_command_with_a_configuration(files):
    done = command("--config", files.file, "--lifetime", "2d")
    assert done.exit_code == 0, done.output
    assert f"{files.credential}: delegated until 20" in done.output
    assert files.made().is_signed_by(files.der)


def test_the_command_with_files(files, tmp_path):
    given = ["--chain", tmp_path / "a.pem", "--key", tmp_path / "a.key"]
    given += ["--credential", files.credential, "--delegated-key", files.delegated_key]
    assert command(*given).exit_code == 0
    assert files.made().is_signed_by(files.der)
    for wrong, words in (
        (given[:4], "--config is missing, or else --credential, --delegated-key"),
        ([*given, "--config", files.file], "either --config"),
        ([*given, "--lifetime", "8d"], "out of range"),
        ([*given, "--lifetime", "long"], "is not a duration"),
        ([*given, "--every", "7d"], "a longer --lifetime"),
        ([*given, "--every", "6d", "--once"], "not with --once"),
        ([], "--config is missing"),
    ):
        done = command(*wrong)
        assert done.exit_code == 2 and words in done.output, done.output


class Kept:
    """A Keeper in this thread's place, stepped by hand."""

    def __init__(self, files, every=6 * 86400, lifetime=WEEK):
        self.said = []
        self.keeper = delegate.Keeper([files.order], lifetime, every, self.said.append)
        self.plan = delegate.Plan(files.order)

    def step(self):
        self.keeper._step(self.plan)


def test_a_schedule(files):
    kept = Kept(files)
    kept.step()
    assert "delegated until" in kept.said[0]
    first = files.credential.read_bytes()
    kept.step()
    Kept(files).step()  # started again
    assert files.credential.read_bytes() == first
    assert len(kept.said) == 1
    # due after six days at most, and not before nine tenths of that
    ends = delegate.expires(files.order)
    due = [delegate.Plan(files.order).due(ends, WEEK, 6 * 86400) for _ in range(50)]
    assert NOW + 5.3 * DAY < min(due) < max(due) < NOW + 6.1 * DAY
    # Another certificate: at once.
    files.renew()
    kept.step()
    assert files.made().is_signed_by(files.der)
    assert len(kept.said) == 2
    # A key that has gone: at once.
    files.delegated_key.unlink()
    kept.step()
    assert files.delegated_key.exists() and len(kept.said) == 3


def test_failures_are_told_and_pause(files):
    kept = Kept(files)
    kept.step()
    (files.directory / "a.key").write_bytes(b"")
    files.credential.unlink()
    kept.step()
    kept.step()
    assert len(kept.said) == 2
    assert "holds no private key" in kept.said[1] and "there is none; next try in" in kept.said[1]
    waits = [kept.plan.failed(datetime.datetime.now(datetime.UTC)) for _ in range(30)]
    assert waits[0] > 30 and max(waits) < 3600 * 1.3


def test_it_ends_when_it_is_told_to(files):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    said = []
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        delegate.Keeper([files.order], WEEK, 86400, said.append).run()
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert len(said) == 1
