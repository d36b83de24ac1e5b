"""What setup.py promises of the machine code: hardening, libraries per layer, and a build that fails on a hint."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "cext").rglob("*.so"))


def readelf(option, path):
    return subprocess.run(["readelf", "-W", option, path], check=True, capture_output=True, text=True).stdout


def needed(path):
    return re.findall(r"\(NEEDED\).*\[([^]]+)\]", readelf("-d", path))


def compiler_line(path):
    """The compiler and its options, as it left them in the debug information."""
    return re.search(rb"GNU C\d+ [^\0]+", path.read_bytes()).group().decode()


@pytest.fixture(params=MODULES, ids=lambda path: str(path.relative_to(ROOT)).split(".")[0])
def module(request):
    return request.param


def test_every_source_is_built():
    built = {path.with_name(path.name.split(".")[0]) for path in MODULES}
    assert built >= {path.with_suffix("") for path in (ROOT / "cext").rglob("*.pyx")}
    assert built


def test_relocations_are_read_only_once_loaded(module):
    assert "GNU_RELRO" in readelf("-l", module)
    assert re.search(r"\(FLAGS(_1)?\).*(BIND_NOW|NOW)", readelf("-d", module))


def test_stack_is_guarded_and_not_executable(module):
    assert "-fstack-protector-strong" in compiler_line(module)
    assert re.search(r"GNU_STACK.*\bRW\b", readelf("-l", module))


def test_release_build_is_fortified():
    optimised = [path for path in MODULES if " -O3" in compiler_line(path)]
    if not optimised:
        pytest.skip("not a release build")
    assert optimised == MODULES
    assert any(re.search(r"__\w+_chk\b", readelf("--dyn-syms", path)) for path in MODULES)


def test_libraries_per_layer(module):
    """libcrypto is the crypto layer's alone, and libssl is nobody's."""
    libraries = needed(module)
    assert not [name for name in libraries if name.startswith("libssl")]
    if not str(module.relative_to(ROOT)).startswith("cext/crypto/"):
        assert not [name for name in libraries if name.startswith("libcrypto")]
    if not str(module.relative_to(ROOT)).startswith("cext/http/h2_"):
        assert not [name for name in libraries if name.startswith("libnghttp2")]


def test_the_crypto_layer_uses_libcrypto():
    assert any(name.startswith("libcrypto") for path in (ROOT / "cext/crypto").rglob("*.so") for name in needed(path))


def translate(tmp_path, source):
    """setup.py's build in a tree of its own with two modules of `source`: two, so that it runs in parallel."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "cext"
    package.mkdir()
    for name, text in {"__init__.py": "", "__init__.pxd": "", "a.pyx": source, "b.pyx": source}.items():
        (package / name).write_text(text)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_BUILD")}
    return subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("cdef void f() nogil:\n    pass\n", "performance hint"),
        ("def f():\n    cdef int x\n    return x\n", "referenced before assignment"),
    ],
    ids=["performance hint", "warning"],
)
def test_a_complaint_of_cython_ends_the_build(tmp_path, source, complaint):
    result = translate(tmp_path, source)
    assert result.returncode != 0
    assert complaint in result.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_a_clean_source_builds(tmp_path):
    result = translate(tmp_path, "cdef int f() noexcept nogil:\n    return 1\n\ndef g():\n    return f()\n")
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "cext").glob("*.so"))) == 2
