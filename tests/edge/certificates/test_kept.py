"""Certificates that a reload keeps: what is not read again, what is, and what workers are handed."""

import os
import shutil

import pytest

from edge import config, plane
from edge.certificates import certs, kept
from edge.certificates.kept import Kept
from edge.certificates.serving import CERTIFICATES
from edge.certificates.watch import Watch
from edge.change.material import Handed, Material, from_pieces
from edge.errors import ConfigError
from tests.edge.issuing import DAY, NOW, certificate, chain_pem, key_pem, p256

SECRET = bytes(32)
ENTRY = '[[certificate]]\nchain = "{0}.pem"\nkey = "{0}.key"\n'
REST = '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:1"]\n[[route]]\nupstream = "u"\n'


class Reloads:
    """A configuration in files that is prepared again and again, as a master does, and then a worker."""

    def __init__(self, directory, monkeypatch):
        self.directory = directory
        self.prepared = self.watch = None
        self.read = []
        load_entry = certs.load_entry
        monkeypatch.setattr(certs, "load_entry", lambda settings, i: self.read.append(i) or load_entry(settings, i))

    def issue(self, name, names=None, days=90, key=None):
        key = key or p256()
        (self.directory / f"{name}.key").write_bytes(key_pem(key))
        leaf = certificate(key, name, names or [f"{name}.test"], end=NOW + days * DAY)
        (self.directory / f"{name}.pem").write_bytes(chain_pem(leaf))

    def load(self, *names, before=None):
        """-> the indices of what was read."""
        text = '[[listener]]\nbind = ["127.0.0.1:1"]\n' + "".join(map(ENTRY.format, names)) + REST
        settings = config.parse(text, str(self.directory / "edge.toml"))
        watch, self.material, self.read[:] = Watch(settings), Material(), []
        if self.prepared:
            served = self.prepared.serving.identities
            self.material.kept = kept.find(watch, self.watch, served, settings.file)
        self.before = self.prepared
        self.prepared, self.watch = self.prepare(settings, self.material), watch
        return list(self.read)

    def prepare(self, settings, material):
        return plane.prepare(settings, SECRET, material=material, before=self.before)

    def worker(self):
        """What a worker makes of what it is handed."""
        handed = Handed(from_pieces(self.material.pieces()), {})
        return self.prepare(self.prepared.settings, handed)

    def shown(self, prepared=None):
        return [identity.names for identity in (prepared or self.prepared).serving.identities]


@pytest.fixture
def reloads(tmp_path, monkeypatch):
    reloads = Reloads(tmp_path, monkeypatch)
    for name in ("a", "b", "c"):
        reloads.issue(name)
    assert reloads.load("a", "b", "c") == [0, 1, 2]
    return reloads


def test_nothing_has_changed(reloads):
    assert reloads.load("a", "b", "c") == []
    assert reloads.prepared.serving.identities is reloads.before.serving.identities
    assert reloads.prepared.serving.configs is not reloads.before.serving.configs, "these have options of their own"
    assert len(reloads.material.pieces()) == 1, "certificates are not sent"
    assert reloads.worker().serving.identities is reloads.before.serving.identities
    assert reloads.prepared.serving.new == 0


def test_a_file_that_was_written_again_is_read_again(reloads):
    reloads.issue("b", ["b.test", "more.test"])
    os.utime(reloads.directory / "a.pem")
    assert reloads.load("a", "b", "c") == [0, 1]
    assert reloads.shown() == [("a.test",), ("b.test", "more.test"), ("c.test",)]
    assert reloads.shown(reloads.worker()) == reloads.shown()
    assert reloads.prepared.serving.new == 1


def test_a_file_that_another_took_the_place_of(reloads):
    reloads.issue("new")
    for kind in ("pem", "key"):
        shutil.copystat(reloads.directory / f"b.{kind}", reloads.directory / f"new.{kind}")
        os.replace(reloads.directory / f"new.{kind}", reloads.directory / f"b.{kind}")
    assert reloads.load("a", "b", "c") == [1]
    assert reloads.shown()[1] == ("new.test",)


def test_others_are_added_removed_and_moved(reloads):
    reloads.issue("d")
    assert reloads.load("d", "c", "a") == [0]
    kept_keys = [reloads.prepared.serving._credentials[i][-1].key for i in (1, 2)]
    assert kept_keys == [reloads.before.serving._credentials[i][-1].key for i in (2, 0)]
    assert isinstance(reloads.material.get((CERTIFICATES, 1), None), Kept)
    assert [identity.at.path for identity in reloads.prepared.serving.identities] == [
        f"certificate[{i}]" for i in range(3)
    ]
    assert reloads.shown(reloads.worker()) == reloads.shown() == [("d.test",), ("c.test",), ("a.test",)]


def test_names_pass_from_one_to_another(reloads):
    reloads.issue("second", ["a.test", "b.test"])
    assert reloads.load("a", "second", "c") == [1]
    assert reloads.shown() == [("a.test",), ("b.test",), ("c.test",)]
    assert reloads.load("second", "a", "c") == []
    assert reloads.shown() == [("a.test", "b.test"), (), ("c.test",)]
    assert reloads.shown(reloads.worker()) == reloads.shown()


def test_what_ends_soon_is_read_again_and_warned_of(reloads):
    reloads.issue("b", days=10)
    for _ in range(2):
        assert reloads.load("a", "b", "c") == [1]
        assert any("expires on" in warning for warning in plane.warnings(reloads.prepared))


def test_a_file_that_has_gone_is_an_error(reloads):
    (reloads.directory / "b.key").unlink()
    with pytest.raises(ConfigError, match=r"b\.key"):
        reloads.load("a", "b", "c")


def test_what_was_replaced_since_is_as_it_is_served(reloads):
    """The watch has brought another certificate meanwhile: a reload takes that one, and reads nothing."""
    reloads.issue("b", ["renewed.test"])
    now = 0.0
    reloads.watch._clock = lambda: now
    for now in (1e9, 1e9 + 10):  # noqa: B007  # the clock is at it
        changed = reloads.watch.look(reloads.prepared.serving.identities, print)
    assert list(changed) == [1]
    reloads.prepared.serving.prepare(changed).commit()
    reloads.watch.accept(changed)
    assert reloads.load("a", "b", "c") == []
    assert reloads.shown()[1] == ("renewed.test",)


def test_who_reads_many_says_that_it_goes_on(reloads):
    calls = []
    text = '[[listener]]\nbind = ["127.0.0.1:1"]\n' + "".join(map(ENTRY.format, "abc")) + REST
    settings = config.parse(text, str(reloads.directory / "edge.toml"))
    plane.prepare(settings, SECRET, material=Material(lambda *call: calls.append(call)))
    read, made = "reads certificates", "makes certificates ready"
    assert calls == [(what, i, 3) for what in (read, made) for i in range(3)]
