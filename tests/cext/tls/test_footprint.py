"""What a connection holds in memory, by malloc's own account: with its AEAD contexts, and parked without them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cext.tls.footprint import CASES

CONNECTIONS = 300


def test_a_connection_is_small():
    if "libasan" in Path("/proc/self/maps").read_text():
        pytest.skip("AddressSanitizer has a malloc of its own")
    command = [sys.executable, "-m", "tests.cext.tls.footprint", str(CONNECTIONS)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    assert len(found) == len(CASES) == 10
    for case, (active, parked) in found.items():
        assert 1024 < active <= 4096, case
        assert 512 < parked <= 1024, case
