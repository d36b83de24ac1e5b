"""The filter that writes edge.toml: what it is given is what a reader of TOML gets."""

import datetime
import importlib.util
import math
import tomllib

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from edge.config import parse
from tests.ansible.readmes import COLLECTION, ROOT

_spec = importlib.util.spec_from_file_location("toml_filter", COLLECTION / "plugins/filter/toml.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
to_toml = _module.FilterModule().filters()["to_toml"]

_scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.dates()
    | st.datetimes()
    | st.times()
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@given(st.dictionaries(st.text(max_size=8), _values, max_size=6))
def test_what_goes_in_comes_out(document):
    read = tomllib.loads(to_toml(document))
    assert read == document
    assert list(read) == list(document) or any(isinstance(value, dict | list) for value in document.values())


@given(_values)
def test_kinds_stay_what_they_are(value):
    def kinds(of):
        if isinstance(of, dict):
            return {name: kinds(item) for name, item in of.items()}
        return [kinds(item) for item in of] if isinstance(of, list) else type(of)

    assert kinds(tomllib.loads(to_toml({"a": {"b": value}}))) == {"a": {"b": kinds(value)}}


def test_it_is_written_as_one_would():
    document = {
        "title": "x",
        "server": {"workers": 2, "access_log": {"path": "/a b", "fields": ["c"]}, "pool": {}},
        "listener": [{"bind": ["[::]:443"], "timeouts": {"header": "10s"}}, {"bind": []}],
        "empty": [],
    }
    assert to_toml(document) == (
        'title = "x"\n'
        "empty = []\n"
        "\n"
        "[server]\n"
        "workers = 2\n"
        'access_log = { path = "/a b", fields = ["c"] }\n'
        "pool = {}\n"
        "\n"
        "[[listener]]\n"
        'bind = ["[::]:443"]\n'
        'timeouts = { header = "10s" }\n'
        "\n"
        "[[listener]]\n"
        "bind = []\n"
    )


def test_nan():
    assert math.isnan(tomllib.loads(to_toml({"a": math.nan}))["a"])


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"server": {"user": None}}, "server.user: TOML has no null; leave the key out"),
        ({"route": [{"a": 1}, {"match": {"host": [None]}}]}, "route[1].match.host[0]: TOML has no null"),
        ({"server": {443: "a"}}, "server: the key 443 is no string"),
        ({"a": {1, 2}}, "a: TOML has nothing for a set"),
        ({"a": 2**63}, "a: 9223372036854775808 has more than 64 bits"),
        ({"a": "\ud800"}, "a: is no Unicode text"),
        ([1], "a list is no document"),
        (None, "a NoneType is no document"),
    ],
)
def test_what_toml_cannot_say_is_refused(document, said):
    with pytest.raises(AnsibleFilterError) as e:
        to_toml(document)
    assert said in str(e.value)


def test_dates_of_yaml():
    when = datetime.datetime(2026, 11, 22, 8, 15, tzinfo=datetime.UTC)
    assert tomllib.loads(to_toml({"a": when})) == {"a": when}


def test_a_configuration_survives():
    text = next(iter((ROOT / "docs/configuration.md").read_text().split("```toml\n")[1:])).split("```")[0]
    once = tomllib.loads(text)
    assert tomllib.loads(to_toml(once)) == once
    for directory in ("/run/edge", "/var/log/edge"):
        text = text.replace(directory, "/tmp")
    text = text.replace('user = "edge"\n', "")
    assert parse(to_toml(tomllib.loads(text)), "edge.toml") == parse(text, "edge.toml")
