"""The admin socket as a setting."""

import pytest

from edge.admin.settings import Admin
from edge.errors import ConfigError
from tests.edge.test_config import LEAST, parse


def admin(value, tmp_path, more=""):
    return parse(f"[server]\nadmin = {value}\n{LEAST}{more}", tmp_path).server.admin


def test_there_is_none_unless_told(tmp_path):
    assert parse(LEAST, tmp_path).server.admin is None


@pytest.mark.parametrize(
    "value", ['"unix:{}/a.sock"', '"{}/a.sock"', '"unix:a.sock"', '"a.sock"', '{{ path = "a.sock" }}']
)
def test_a_path_stands_for_the_table(tmp_path, value):
    assert admin(value.format(tmp_path), tmp_path) == Admin(path=tmp_path / "a.sock")
    assert Admin(path=tmp_path).mode == 0o600


def test_permissions(tmp_path):
    found = admin('{ path = "a.sock", mode = "0660", owner = "root", group = "root" }', tmp_path)
    assert (found.mode, found.owner, found.group) == (0o660, "root", "root")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("7", "server.admin: 7 is not a path"),
        ('"' + "x" * 200 + '"', "is too long for a Unix socket; choose a path of at most 107 bytes"),
        ('"none/a.sock"', "/none is no directory; make it"),
        ('"."', "is a directory; name a socket in it"),
        ("{}", "server.admin.path: is missing"),
        ('{ path = "a", mode = "9" }', "server.admin.mode"),
        ('{ path = "a", group = "nobodys-group" }', 'server.admin.group: there is no group "nobodys-group"'),
        ('{ path = "a", maximum = 1 }', "server.admin.maximum: unknown key"),
    ],
)
def test_faults(tmp_path, value, fault):
    with pytest.raises(ConfigError) as e:
        admin(value, tmp_path)
    assert fault in str(e.value)


@pytest.mark.parametrize(
    "more",
    [
        '[[listener]]\nkind = "handoff"\nbind = ["unix:{}/a.sock"]',
        '[[handoff]]\nname = "old"\nsocket = "unix:{}/a.sock"',
    ],
)
def test_it_is_no_other_socket(tmp_path, more):
    with pytest.raises(ConfigError, match=r"server.admin: is the socket of (listener\[1\]|handoff\[0\])"):
        admin('"a.sock"', tmp_path, more.format(tmp_path))
