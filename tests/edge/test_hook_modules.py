"""Modules of policies: imported afresh for each configuration, from what another process has read, and set aside until
it is used."""

import gc
import importlib
import sys
import weakref

import pytest

from edge.hook_modules import Modules


@pytest.fixture
def directory(tmp_path):
    known, path, finders = set(sys.modules), sys.path[:], sys.meta_path[:]
    (tmp_path / "rules_a.py").write_text("import helper_a\nfrom pack_a import inner\nNUMBER = helper_a.NUMBER\n")
    (tmp_path / "helper_a.py").write_text("NUMBER = 1\n")
    (tmp_path / "pack_a").mkdir()
    (tmp_path / "pack_a" / "__init__.py").write_text("")
    (tmp_path / "pack_a" / "inner.py").write_text("from . import __name__ as above\n")
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]
    sys.path[:] = path
    assert sys.meta_path == finders


def load(modules, name="rules_a"):
    with modules.importing():
        return importlib.import_module(name)


def test_they_are_set_aside_until_they_are_used(directory):
    first = Modules(directory, {}, reads=True)
    one = load(first)
    assert "rules_a" not in sys.modules
    first.use()
    assert sys.modules["rules_a"] is one
    (directory / "helper_a.py").write_text("NUMBER = 2\n")
    second = Modules(directory, {}, reads=True)
    two = load(second)
    assert (one.NUMBER, two.NUMBER) == (1, 2)
    assert sys.modules["rules_a"] is one, "until the other is used"
    assert sys.modules["helper_a"].NUMBER == 1
    second.use()
    assert sys.modules["rules_a"] is two
    assert sys.modules["pack_a.inner"] is two.inner
    assert two.inner.above == "pack_a"


def test_after_an_error_all_is_as_it_was(directory):
    first = Modules(directory, {}, reads=True)
    one = load(first)
    first.use()
    (directory / "helper_a.py").write_text("NUMBER = 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load(Modules(directory, {}, reads=True))
    assert sys.modules["rules_a"] is one
    assert sys.modules["helper_a"].NUMBER == 1


def test_another_process_needs_no_file(directory, tmp_path_factory):
    compiled = {}
    load(Modules(directory, compiled, reads=True))
    assert set(compiled) == {"rules_a", "helper_a", "pack_a", "pack_a.inner"}
    for path in directory.rglob("*.py"):
        path.unlink()
    module = load(Modules(directory, compiled, reads=False))
    assert (module.NUMBER, module.inner.above) == (1, "pack_a")
    assert module.__file__ == str(directory / "rules_a.py")


def test_what_was_imported_can_go_on_importing(directory):
    modules = Modules(directory, {}, reads=True)
    one = load(modules)
    with modules.importing():
        assert importlib.import_module("rules_a") is one


def test_what_policies_import_later_is_theirs_too(directory):
    (directory / "late_a.py").write_text("WHEN = 1\n")
    first = Modules(directory, {}, reads=True)
    load(first)
    first.use()
    assert importlib.import_module("late_a").WHEN == 1
    (directory / "late_a.py").write_text("WHEN = 22\n")
    second = Modules(directory, {}, reads=True)
    load(second)
    second.use()
    assert importlib.import_module("late_a").WHEN == 22


def test_others_are_left_alone(directory):
    import json

    modules = Modules(directory, {}, reads=True)
    (directory / "rules_a.py").write_text("import json\nimport edge.seldom\n")
    one = load(modules)
    modules.use()
    assert one.json is json is sys.modules["json"]


def test_old_ones_are_freed(directory):
    first = Modules(directory, {}, reads=True)
    gone = weakref.ref(load(first))
    first.use()
    second = Modules(directory, {}, reads=True)
    load(second)
    second.use()
    del first
    gc.collect()
    assert gone() is None
