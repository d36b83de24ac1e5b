"""The Wycheproof vectors: every test of a file with its group."""

import json
import os
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
