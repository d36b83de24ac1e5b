"""Ticket keys that are files: roles by the order of names, any order of delivery, and what is refused."""

import os

import pytest

from edge.tickets import directory
from edge.tickets.directory import DirectoryError, Files
from edge.tickets.rotations import Rotation, Rotations

STATE = {"version": 0x0304, "cipher_suite": 0x1301, "secret": bytes(32)}
NOW = 1_800_000_000.0


def put(path, *numbers):
    path.mkdir(exist_ok=True)
    for number in numbers:
        (path / f"{number:04}").write_bytes(bytes([number]) * 48)


def files(path, number=1):
    return Files(path, 3_600_000, 3, (number, directory.read(path)))


def roles(source):
    return [(key["state"], key["file"]) for key in source.describe(NOW)]


def test_roles_follow_the_order_of_names(tmp_path):
    put(tmp_path, 2)
    assert roles(files(tmp_path)) == [("seals", "0002")]
    put(tmp_path, 1)
    assert roles(files(tmp_path)) == [("seals", "0001"), ("next", "0002")]
    put(tmp_path, 3, 4)
    source = files(tmp_path)
    assert roles(source) == [("seals", "0003"), ("next", "0004"), ("opens", "0002"), ("opens", "0001")]
    assert source.keys(NOW)[0] == files(tmp_path).keys(NOW)[0], "the same on every host"
    names, keys = zip(*source.keys(NOW), strict=True)
    assert len(set(names)) == len(set(keys)) == 4
    assert {len(name) for name in names} == {16} and {len(key) for key in keys} == {32}


def test_one_more_file_is_one_safe_rotation_in_whatever_order_hosts_get_it(tmp_path):
    hosts = [tmp_path / str(i) for i in range(3)]
    for host in hosts:
        put(host, 1, 2)
    for number in (3, 4, 5):
        for i in range(len(hosts)):
            rotations = [Rotation(files(host)) for host in hosts]
            tickets = [rotation.keys.seal(STATE) for rotation in rotations]
            assert all(rotation.keys.open(ticket) for rotation in rotations for ticket in tickets)
            put(hosts[(number + i) % 3], number)


def test_the_newest_are_used(tmp_path):
    put(tmp_path, *range(1, 31))
    found = roles(files(tmp_path))
    assert len(found) == 16
    assert found[:3] == [("seals", "0029"), ("next", "0030"), ("opens", "0028")]


def test_files_on_their_way_are_passed_over(tmp_path):
    put(tmp_path, 1)
    (tmp_path / ".0002.part").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    assert roles(files(tmp_path)) == [("seals", "0001")]


def test_what_is_refused(tmp_path):
    with pytest.raises(DirectoryError, match="no such file") as error:
        directory.read(tmp_path / "none")
    with pytest.raises(DirectoryError, match="no such file"):
        directory.look(tmp_path / "none")
    with pytest.raises(DirectoryError, match="has no keys") as error:
        directory.read(tmp_path)
    assert "openssl rand" in error.value.remedy
    put(tmp_path, 1)
    (tmp_path / "0002").write_bytes(bytes(47))
    with pytest.raises(DirectoryError, match=r"0002 is shorter than 48 bytes"):
        directory.read(tmp_path)
    (tmp_path / "0002").write_bytes((tmp_path / "0001").read_bytes())
    with pytest.raises(DirectoryError, match="same content"):
        directory.read(tmp_path)
    (tmp_path / "0002").unlink()
    (tmp_path / "file").write_bytes(bytes(48))
    with pytest.raises(DirectoryError, match="not a directory"):
        directory.read(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    put(tmp_path, 1)
    (tmp_path / "0001").chmod(0)
    with pytest.raises(DirectoryError, match="permission denied"):
        directory.read(tmp_path)


def test_a_look_sees_every_change(tmp_path):
    put(tmp_path, 1)
    seen = [directory.look(tmp_path)]
    put(tmp_path, 2)
    seen.append(directory.look(tmp_path))
    (tmp_path / "0002").rename(tmp_path / "0003")
    seen.append(directory.look(tmp_path))
    new = tmp_path / ".new"
    new.write_bytes(b"n" * 48)
    new.rename(tmp_path / "0003")
    seen.append(directory.look(tmp_path))
    assert len(set(seen)) == 4
    assert directory.look(tmp_path) == seen[-1]


def test_copies_take_what_is_newer(tmp_path):
    put(tmp_path, 1)
    one = files(tmp_path, 5)
    put(tmp_path, 2)
    one.take(files(tmp_path, 4).state(), NOW)
    assert len(one.keys(NOW)) == 1
    one.take(files(tmp_path, 6).state(), NOW)
    assert len(one.keys(NOW)) == 2


def test_what_is_told(tmp_path):
    put(tmp_path, 1, 2)
    os.utime(tmp_path / "0001", (1000, 1000))
    source = files(tmp_path)
    assert source.settings() == {"source": "directory", "rotate": 3600.0, "keep": 3, "shared": True}
    assert source.describe(NOW)[0]["since"] == 1000 and source.describe(NOW)[0]["until"] is None
    assert not any(key.hex() in str(source.describe(NOW)) + repr(source.state()) for _, key in source.keys(NOW))


def test_it_is_read_again(tmp_path):
    put(tmp_path, 1, 2)
    rotations = Rotations()
    source = files(tmp_path, 0)
    rotation = rotations._rotate(source, source.state())
    ticket = rotation.keys.seal(STATE)
    put(tmp_path, 3)
    rotations.read_directory(source)
    assert rotation.keys.open(ticket) and rotation.sealing == source.keys(NOW)[0][0]
    assert [key["file"] for key in rotation.describe(NOW)["keys"]] == ["0002", "0003", "0001"]
