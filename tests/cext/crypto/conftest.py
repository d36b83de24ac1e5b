"""The Wycheproof vectors, and what a forked process would do."""

import json
import os
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def wycheproof():
    """load(file) -> [(group, test), ...]. Skips where the vectors are not installed, unless EDGE_VECTORS names them."""
    named = os.environ.get("EDGE_VECTORS")
    folder = Path(named or ROOT.parent / "shared" / "vectors") / "wycheproof"
    if not folder.is_dir() and not named:
        pytest.skip(f"no Wycheproof vectors in {folder}: set EDGE_VECTORS")

    def load(name):
        groups = json.loads((folder / name).read_text())["testGroups"]
        return [(group, test) for group in groups for test in group["tests"]]

    return load


@pytest.fixture
def forked():
    """forked(function) -> the bytes it returns in a child of this process, as a worker is a child of the master."""

    def run(function):
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the child takes no lock
            pid = os.fork()
        if pid == 0:
            os.write(write, function())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
        assert os.waitpid(pid, 0)[1] == 0
        return data

    return run
