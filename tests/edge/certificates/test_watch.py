"""Certificates whose files change: what is offered for use, what is told, and when."""

import dataclasses
import os
from pathlib import Path

import pytest

from edge import config, plane
from edge.certificates import certs
from edge.certificates.watch import Watch
from tests.edge.issuing import DAY, NOW, certificate, chain_pem, key_pem, p256, staple, timestamp

SECRET = bytes(32)
MANY = 1000 if os.environ.get("EDGE_SLOW") else 100
ENTRY = '[[certificate]]\nchain = "{0}.pem"\nkey = "{0}.key"\n'
REST = '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:1"]\n[[route]]\nupstream = "u"\n'


def without_key(identity):
    """As it is served: the key is with the engine then."""
    return dataclasses.replace(identity, key_pem=b"")


class Files:
    """A configuration's certificates in files, and a watch of them with a clock of its own."""

    def __init__(self, directory, names, extra=""):
        self.directory = directory
        self.now = 0.0
        self.said = []
        for name in names:
            self.issue(name)
        text = '[[listener]]\nbind = ["127.0.0.1:1"]\n' + "".join(map(ENTRY.format, names)) + extra + REST
        self.settings = config.parse(text, str(directory / "edge.toml"))
        self.watch = Watch(self.settings, lambda: self.now)
        self.served = list(map(without_key, certs.load(self.settings)))

    def issue(self, name, names=None, key=None, parts=("pem", "key")):
        key = key or p256()
        leaf = certificate(key, name, names or [f"{name}.test"])
        if "key" in parts:
            self.write(f"{name}.key", key_pem(key))
        if "pem" in parts:
            self.write(f"{name}.pem", chain_pem(leaf))
        return leaf, key

    def write(self, name, content):
        """In place, as a careless tool does."""
        (self.directory / name).write_bytes(content)

    def look(self):
        return self.watch.look(self.served, self.said.append)

    def after(self, seconds):
        self.now += seconds
        return self.look()

    def use(self, found):
        for i, identity in found.items():
            self.served[i] = without_key(identity)
        self.watch.accept(found)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path, ["a", "b"])


def test_nothing_changes(files):
    for _ in range(5):
        assert files.after(5) == {}
    assert files.said == []


def test_a_new_certificate_is_offered_once_it_has_settled(files):
    leaf, _ = files.issue("a")
    assert files.after(4) == {}  # not looked at yet
    assert files.after(1) == {}  # seen
    assert files.after(0.5) == {}
    found = files.after(0.5)
    assert list(found) == [0]
    assert found[0].chain == (leaf.public_bytes(certs.Encoding.DER),)
    assert found[0].key_pem == (files.directory / "a.key").read_bytes()
    files.use(found)
    assert files.after(5) == files.after(5) == {}
    assert files.said == []


def test_a_renewal_with_the_same_key_sends_none(files):
    _, key = files.issue("a")
    files.after(5)
    files.use(files.after(1))
    leaf, _ = files.issue("a", key=key)
    files.after(5)
    found = files.after(1)
    assert (found[0].chain, found[0].key_pem) == ((leaf.public_bytes(certs.Encoding.DER),), b"")


def test_a_key_without_its_chain_waits(files):
    leaf, _key = files.issue("a", parts=["key"])
    assert files.after(5) == files.after(1) == {}
    files.write("a.pem", chain_pem(leaf))
    assert files.after(5) == {}
    assert list(files.after(1)) == [0]
    assert files.said == []


def test_what_does_not_fit_twice_is_told_once_and_left_alone(files):
    leaf, _key = files.issue("a", parts=["key"])
    for _ in range(10):
        assert files.after(5) == {}
    (told,) = files.said
    assert "certificate[0].key" in told and "is not the key of the certificate" in told
    assert told.endswith("the certificate before goes on")
    # The other one is watched all the same,
    files.issue("b")
    files.after(5)
    found = files.after(1)
    assert list(found) == [1]
    files.use(found)
    # and this one once it changes again.
    files.write("a.pem", chain_pem(leaf))
    files.after(5)
    assert list(files.after(1)) == [0]
    assert len(files.said) == 1


def test_a_file_that_is_written_slowly(files):
    leaf, _ = files.issue("a", parts=["key"])
    pem = chain_pem(leaf)
    for end in range(100, len(pem), 100):
        files.write("a.pem", pem[:end])
        assert files.after(1.5) == {}
    files.write("a.pem", pem)
    files.after(5)
    assert list(files.after(1)) == [0]
    assert files.said == []


def test_files_that_go_and_come_back(files):
    content = (files.directory / "a.pem").read_bytes()
    (files.directory / "a.pem").rename(files.directory / "away")
    for _ in range(4):
        assert files.after(5) == {}
    (told,) = files.said
    assert "no such file" in told
    (files.directory / "away").rename(files.directory / "a.pem")
    assert content == (files.directory / "a.pem").read_bytes()
    for _ in range(4):
        assert files.after(5) == {}  # what is served already
    assert len(files.said) == 1


def test_a_touch_changes_nothing(files):
    os.utime(files.directory / "a.pem", (1, 1))
    assert files.after(5) == files.after(1) == files.after(5) == {}
    assert files.said == []


def test_a_link_is_turned(tmp_path):
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    files = Files(tmp_path, ["a"])
    for name in ("a.pem", "a.key"):
        (tmp_path / name).rename(tmp_path / "1" / name)
        (tmp_path / name).symlink_to(Path("live") / name)
    (tmp_path / "live").symlink_to("1")
    files.use(files.after(5) or files.after(1))
    leaf, _ = files.issue("2/a")
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "live")
    files.after(5)
    found = files.after(1)
    assert found[0].chain == (leaf.public_bytes(certs.Encoding.DER),)
    assert files.said == []


def test_names_move_from_one_certificate_to_another(tmp_path):
    """The first that has a name serves it; when it does not any more, the second does."""
    files = Files(tmp_path, ["a", "b"])
    files.issue("a", ["x.test", "a.test"])
    files.issue("b", ["x.test", "b.test"])
    files.after(5)
    found = files.after(1)
    assert [found[i].names for i in range(2)] == [("x.test", "a.test"), ("b.test",)]
    files.use(found)
    files.issue("a", ["a.test"])
    files.after(5)
    found = files.after(1)
    assert [found[i].names for i in range(2)] == [("a.test",), ("x.test", "b.test")]
    assert found[1].key_pem == b""  # it has the key it had


def test_what_stands_beside_a_certificate_is_watched(tmp_path):
    ca_key, key = p256(), p256()
    ca = certificate(ca_key, "CA")
    leaf = certificate(key, "a", ["a.test"], issuer=ca, issuer_key=ca_key)
    for name, content in (("a.pem", chain_pem(leaf, ca)), ("a.key", key_pem(key)), ("sct", timestamp())):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "staple").write_bytes(staple(leaf, ca, ca_key))
    files = Files(tmp_path, [], ENTRY.format("a") + 'ocsp = "staple"\nscts = ["sct"]\n')
    fresh = staple(leaf, ca, ca_key, end=NOW + 3 * DAY)
    files.write("staple", fresh)
    files.after(5)
    found = files.after(1)
    assert (found[0].ocsp_response, found[0].key_pem) == (fresh, b"")
    files.use(found)
    files.write("sct", timestamp(b"other"))
    files.after(5)
    assert files.after(1)[0].timestamps == (timestamp(b"other"),)


def test_a_refused_one_is_left_alone_until_it_changes(files):
    files.issue("a")
    files.after(5)
    found = files.after(1)
    files.watch.refuse(found)
    assert files.after(5) == files.after(5) == {}
    files.issue("a")
    files.after(5)
    assert list(files.after(1)) == [0]


def test_one_that_was_not_accepted_is_offered_again(files):
    files.issue("a")
    files.after(5)
    assert list(files.after(1)) == list(files.after(5)) == [0]


def test_none_is_never_looked_at(tmp_path):
    files = Files(tmp_path, ["a"], '[server]\ncertificate_check = "none"\n')
    files.issue("a")
    assert files.after(5) == files.after(86400) == {}


# --- put to use


def test_connections_from_now_on_get_the_new_one(files):
    prepared = plane.prepare(files.settings, SECRET)
    (listener,) = prepared.listeners.values()
    before = listener.tls
    leaf, _ = files.issue("a")
    files.after(5)
    replacement = prepared.serving.prepare(files.after(1))
    assert listener.tls is before
    replacement.commit()
    assert listener.tls is not before
    assert listener.tls.credentials[0].chain == (leaf.public_bytes(certs.Encoding.DER),)
    assert listener.tls.credentials[1] is before.credentials[1]
    assert listener.tls.tickets is before.tickets
    assert prepared.serving.identities[0].chain == listener.tls.credentials[0].chain
    assert prepared.serving.identities[0].key_pem == b""


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_over_many_replacements(files):
    prepared = plane.prepare(files.settings, SECRET)
    identities = []
    for _ in range(2):
        files.issue("a")
        files.after(5)
        identities.append(found := files.after(1))
        files.use(found)
    for i in range(50):
        prepared.serving.prepare(identities[i % 2]).commit()
    before = resident()
    for i in range(MANY):
        prepared.serving.prepare(identities[i % 2]).commit()
        if i % 4 == 0:
            prepared.serving.prepare(identities[i % 2])  # comes to nothing
    assert resident() - before < 1 << 20  # one that is kept has some 30 KiB


def test_many_are_looked_at_in_parts(files, monkeypatch):
    monkeypatch.setattr("edge.certificates.watch.PART", 1)
    leaf, _ = files.issue("b")
    assert files.after(5) == {}
    assert files.watch.due == files.now, "there are more to look at"
    assert files.look() == {}
    assert files.watch.due == files.now + 1, "one of them is to settle"
    assert files.after(1) == {}
    ((index, identity),) = files.look().items()
    assert (index, identity.expires) == (1, leaf.not_valid_after_utc)


def test_what_takes_long_is_done_seldom(tmp_path):
    files = Files(tmp_path, ["a"])
    ticks = iter((0.0, 5.0, 7.0))  # made, looked at, and done with that two seconds later
    watch = Watch(files.settings, lambda: next(ticks, 7.0))
    assert watch.look(files.served, files.said.append) == {}
    assert watch.due == 5.0 + 25 * 2.0
