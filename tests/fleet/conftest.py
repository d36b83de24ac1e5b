"""A fleet's network and authority. EDGE_SLOW=1 runs the tests marked `slow`, too."""

import os

import pytest

from tests.e2e.pki import Pki
from tests.fleet import network


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; run with EDGE_SLOW=1")


def pytest_collection_modifyitems(items):
    if os.environ.get("EDGE_SLOW"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: EDGE_SLOW=1 runs it"))


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def net():
    network.needed()
    made = network.Network()
    yield made
    made.close()
