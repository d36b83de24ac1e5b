"""Policies: found and checked when the configuration is read, and the words in which a director speaks of time."""

import os
import signal
import sys

import pytest

from edge import policy, seldom
from edge.errors import ConfigError
from edge.schema import Place


@pytest.fixture
def write(tmp_path):
    """write(text, name) -> the place of a configuration beside that module."""
    before, path = set(sys.modules), list(sys.path)

    def write(text, name="rules.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return Place(str(tmp_path / "edge.toml")).key("server").key("hooks")

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]
    sys.path[:] = path


DIRECTOR = "class Policy:\n    def director(self, request): pass\n"


def test_beside_the_configuration(write):
    at = write("import helper\n" + DIRECTOR)
    write("FACT = 1", "helper.py")
    loaded = policy.load("rules:Policy", at)
    assert loaded.cls.__name__ == "Policy"
    assert not list(at_directory(at).rglob("*.pyc"))
    hooks = loaded.start(print)
    assert hooks.director is not None
    assert hooks.connection_state is None


def at_directory(at):
    return policy.Path(at.file).parent


def test_in_a_package_or_installed(write):
    at = write("", "ours/__init__.py")
    write(DIRECTOR, "ours/rules.py")
    assert policy.load("ours.rules:Policy", at).cls.__module__ == "ours.rules"
    with pytest.raises(ConfigError, match="is no hook"):
        policy.load("logging:Handler", at)


def test_each_configuration_imports_afresh(write):
    at = write("from helper import FACT\nclass Policy:\n    fact = FACT\n    def director(self, request): pass\n")
    write("FACT = 1", "helper.py")
    first = policy.load("rules:Policy", at)
    write("FACT = 2", "helper.py")      # of the same size, within the same second
    assert policy.load("rules:Policy", at).cls.fact == 2
    assert first.cls.fact == 1
    write("FACT = ", "helper.py")
    with pytest.raises(ConfigError, match="SyntaxError"):
        policy.load("rules:Policy", at)
    assert sys.modules["helper"].FACT == 2      # what runs may still import what it knows
    write("FACT = 3", "helper.py")
    assert policy.load("rules:Policy", at).cls.fact == 3
    os.unlink(at_directory(at) / "helper.py")
    with pytest.raises(ConfigError, match=r"cannot be imported: .*'helper'; install what it needs"):
        policy.load("rules:Policy", at)


def test_what_is_not_the_policys_is_not_imported_again(write):
    at = write("import json, edge.policy\n" + DIRECTOR)
    json, own = sys.modules["json"], sys.modules["edge.policy"]
    for _ in range(2):
        policy.load("rules:Policy", at)
    assert (sys.modules["json"], sys.modules["edge.policy"]) == (json, own)


def test_all_policies_of_a_configuration_share_what_they_import(write):
    at = write("import helper\nclass A:\n    def director(self, request): helper.SEEN.append('a')\n", "a.py")
    write("import helper\nclass B:\n    def response(self, request, response): helper.SEEN.append('b')\n", "b.py")
    write("SEEN = []", "helper.py")
    for _ in range(2):
        first, second = policy.load_all([("a:A", at, False), ("b:B", at, True)])
        first.start(print).director(None)
        second.start(print).response(None, None)
        assert sys.modules["helper"].SEEN == ["a", "b"]
    write("SEEN = 1 / 0", "helper.py")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        policy.load_all([("a:A", at, False), ("b:B", at, True)])
    assert sys.modules["helper"].SEEN == ["a", "b"]
    assert policy.load_all([]) == []


def test_a_route_has_hooks_of_its_own_kind(write):
    at = write(DIRECTOR + "    def connection_state(self, a, b, c): pass")
    with pytest.raises(ConfigError, match=r"is no hook of a route; leave it to server\.hooks; here are: director"):
        policy.load_all([("rules:Policy", at, True)])


FAULTS = [
    ("", "other:Policy", 'there is no module "other"', "put other.py into"),
    ("", "rules.more:Policy", "cannot be imported|no module", ""),
    ("import nosuchmodule", "rules:Policy", "ModuleNotFoundError: .*nosuchmodule", "install what it needs"),
    ("1 / 0", "rules:Policy", "ZeroDivisionError: division by zero", "correct the module"),
    ("raise SystemExit(2)", "rules:Policy", "SystemExit: 2", "correct"),
    ("def f(:", "rules:Policy", "SyntaxError", "correct"),
    ("class Polcy:\n    pass", "rules:Policy", 'no class "Policy"', 'did you mean "Polcy"'),
    ("Policy = 1", "rules:Policy", 'no class "Policy"', "name one of: none"),
    ("class Policy:\n    pass", "rules:Policy", "has no hooks", "director, response, connection_state"),
    ("class Policy:\n    def directr(self, r): pass", "rules:Policy", "Policy.directr is no hook", '"director"'),
    (DIRECTOR + "    def helper(self): pass", "rules:Policy", "Policy.helper is no hook", 'begin with "_"'),
    ("class Policy:\n    def director(self): pass", "rules:Policy", "other arguments", r"\(self, request\)"),
    ("class Policy:\n    def director(self, a, b): pass", "rules:Policy", "other arguments", "def director"),
    ("class Policy:\n    def director(self, a, *, b): pass", "rules:Policy", "other arguments", "def director"),
    ("class Policy:\n    @staticmethod\n    def director(): pass", "rules:Policy", "other arguments", "def director"),
    ("class Policy:\n    def connection_state(self, c): pass", "rules:Policy", "other", r"\(self, connection, "),
    ("class Policy:\n    async def connection_state(self, a, b, c): pass", "rules:Policy", "is async", "nobody"),
    ("class Policy:\n    async def director(self, request): yield", "rules:Policy", "is a generator", "without yield"),
    ("class Policy:\n    def director(self, request): yield", "rules:Policy", "a generator", "without yield"),
    (DIRECTOR + "    def __init__(self, x): pass", "rules:Policy", "without arguments", "defaults"),
]


@pytest.mark.parametrize(("text", "name", "problem", "remedy"), FAULTS)
def test_faults(write, text, name, problem, remedy):
    at = write(text)
    with pytest.raises(ConfigError, match=f"{problem}.*; .*{remedy}") as caught:
        policy.load(name, at)
    assert caught.value.key == "server.hooks"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "class Policy:\n    def director(self, request, *more, **named): pass",
        "class Policy:\n    @staticmethod\n    def director(request): pass",
        "class Policy:\n    @classmethod\n    def director(cls, request): pass",
        "class Base:\n    def director(self, request): pass\nclass Policy(Base):\n    def _own(self): pass",
        "class Policy:\n    async def director(self, request): pass\n    async def response(self, r, s): pass",
        "class Policy:\n    limit = 3\n    kind = dict\n    def connection_state(self, connection, old, new): pass",
    ],
)
def test_what_is_a_policy(write, text):
    policy.load("rules:Policy", write(text)).start(print)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs what others may have written at its peril")
def test_root_runs_nothing_that_everybody_may_write(write):
    at = write(DIRECTOR)
    for path in (at_directory(at) / "rules.py", at_directory(at)):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        with pytest.raises(ConfigError, match=r"every user may write .*; chmod o-w "):
            policy.load("rules:Policy", at)
        path.chmod(mode)
    policy.load("rules:Policy", at)


def test_one_object_for_each_start(write):
    at = write("class Policy:\n    def __init__(self):\n        self.seen = []\n" + DIRECTOR.partition("\n")[2])
    loaded = policy.load("rules:Policy", at)
    first, second = (loaded.start(print).director.__self__ for _ in range(2))
    assert first is not second


# ---- time limits


@pytest.mark.parametrize(
    ("name", "value", "read", "shown"),
    [
        ("total", "5s", 5000, 5.0),
        ("total", "none", 0, None),
        ("total", None, 0, None),
        ("first_byte", 2, 2000, 2.0),
        ("first_byte", 0.25, 250, 0.25),
        ("connect", 0.0001, 1, 0.001),
        ("rate_grace", "250ms", 250, 0.25),
        ("websocket_idle", 7 * 86400, 604_800_000, 604_800.0),
        ("min_rate", "1KiB/s", 1024, 1024),
        ("min_rate", 10, 10, 10),
        ("write_min_rate", None, 0, None),
    ],
)
def test_limits(name, value, read, shown):
    assert policy.read_limit(name, value) == read
    assert policy.show_limit(name, read) == shown


@pytest.mark.parametrize(
    ("name", "value", "raised", "words"),
    [
        ("header", "5s", ValueError, "has been read"),
        ("total", "5", ValueError, "total: \"5\" is not a duration; write a number with its unit"),
        ("total", "8d", ValueError, "out of range"),
        ("total", 0, ValueError, "not above 0"),
        ("total", -1, ValueError, "not above 0"),
        ("total", float("nan"), ValueError, "not above 0"),
        ("total", float("inf"), ValueError, "not above 0"),
        ("total", 1e30, ValueError, "at most 604800"),
        ("total", True, TypeError, "not bool"),
        ("total", [1], TypeError, "not list"),
        ("min_rate", "5s", ValueError, "not a rate"),
        ("min_rate", 2**31, ValueError, "at most"),
        ("rate_grace", None, ValueError, "not possible"),
    ],
)
def test_what_is_no_limit(name, value, raised, words):
    with pytest.raises(raised, match=words):
        policy.read_limit(name, value)


def test_every_limit_of_a_route_can_be_set():
    for name in policy.timeouts.NAMES:
        if name != "header":
            assert policy.read_limit(name, 1) in (1, 1000)


# ---- reports


def test_a_fault_that_repeats_is_told_now_and_then(monkeypatch):
    now = 100.0
    monkeypatch.setattr(seldom.time, "monotonic", lambda: now)
    told = []
    reports = policy.Reports(lambda level, text: told.append((level, text)))

    def fail(error):
        try:
            raise error
        except Exception as e:
            reports.failed("director", e)

    for _ in range(5):
        fail(ValueError("first"))
    fail(KeyError("second"))
    assert [level for level, _ in told] == ["error", "error"]
    assert told[0][1].startswith("hook director: ValueError: first; at ")
    assert told[0][1].endswith(" in fail")
    assert "test_policy.py:" in told[0][1]
    now += 11
    fail(ValueError("third"))
    assert told[2][1].endswith(" (4 more times since it was told last)")
    for i in range(1000):
        reports.failed(f"hook {i}", ValueError())
    assert told[-1][1] == "hook hook 999: ValueError; at no line"


def test_a_module_whose_import_does_not_end(write, monkeypatch):
    monkeypatch.setattr(policy, "IMPORT_SECONDS", 0.2)
    hears_nothing = "import socket\na, b = socket.socketpair()\na.recv(1)"
    for text in ("while True: pass", "import time\ntime.sleep(60)", hears_nothing):
        with pytest.raises(ConfigError, match=r"cannot be imported: TimeoutError: it takes longer than 0\.2 s"):
            policy.load("rules:Policy", write(text))
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
