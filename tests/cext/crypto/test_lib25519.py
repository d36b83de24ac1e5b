"""The library for X25519 that a machine may have: found, or not, and never half. Its results: test_kx, by every way."""

import subprocess
import sys

import pytest

from cext.crypto import kx, lib25519

WAY = "from cext.crypto import kx; print(kx.x25519_way())"


@pytest.fixture
def loaded_again():
    yield
    lib25519.load()


@pytest.mark.parametrize("name", ["lib25519-of-nowhere.so", "libcrypto.so.3"], ids=["no library", "another library"])
def test_what_is_not_the_library_is_not_used(loaded_again, name):
    assert not lib25519.load(name)
    with pytest.raises(ValueError, match="no such way to X25519: lib25519"):
        kx.x25519_way("lib25519")


def test_a_library_with_wrong_results_is_not_used(loaded_again, tmp_path):
    source = tmp_path / "wrong.c"
    source.write_text(
        "void lib25519_nG_montgomery25519(unsigned char *p, const unsigned char *e) { *p = *e; }\n"
        "void lib25519_dh_x25519(unsigned char *k, const unsigned char *p, const unsigned char *e) { *k = *p + *e; }\n"
    )
    wrong = tmp_path / "wrong.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", wrong, source], check=True)
    assert not lib25519.load(str(wrong))


def test_an_operator_may_want_libcrypto_alone():
    environment = {"EDGE_X25519": "libcrypto"}
    done = subprocess.run([sys.executable, "-c", WAY], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("table", "ladder")
