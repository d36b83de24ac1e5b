import pytest

from edge import demo
from tests.edge.server import Edge, Origin


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A directory with ca.pem, localhost.pem and localhost.key."""
    directory = tmp_path_factory.mktemp("certificates")
    demo.make_certificates(directory)
    return directory


@pytest.fixture
def origin():
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture
def edge(tmp_path, certificates, origin):
    """An Edge that is configured for the origin; tests start it."""
    for name in ("localhost.pem", "localhost.key"):
        (tmp_path / name).write_bytes((certificates / name).read_bytes())
    edge = Edge(tmp_path, certificates / "ca.pem")
    edge.configure(origin)
    yield edge
    edge.close()
