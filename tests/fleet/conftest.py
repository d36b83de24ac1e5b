"""A fleet's network. EDGE_SLOW=1 runs the tests marked `slow`, too."""

import pytest

from tests.e2e.conftest import pki, pytest_collection_modifyitems, pytest_configure  # noqa: F401  # fixture, and the mark
from tests.fleet import network
from tests.fleet.redis_servers import REDIS, Redis


@pytest.fixture(scope="module")
def net():
    network.needed()
    made = network.Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def redis(net, tmp_path_factory):
    server = Redis(net, net.host(REDIS), tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()
