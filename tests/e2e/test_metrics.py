"""The observer: what a scraper is answered, agrees with what clients did, and goes on whatever happens to processes."""

import http.client

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.client import Client
from tests.e2e.processes import free_port, wait_until
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge


class Scraper:
    """Of the metrics at a port of this host."""

    def __init__(self, port):
        self.port = port

    def get(self, path="/metrics", method="GET", **headers):
        """(status, header fields, content)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def samples(self):
        """{(name, (label, value), ...): value} of all that there is."""
        status, _, content = self.get()
        assert status == 200, content
        families = text_string_to_metric_families(content.decode())
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def backend():
    with Backend() as made:
        yield made


@pytest.fixture(scope="module")
def edge(tmp_path_factory, pki, backend):
    server = Edge(
        tmp_path_factory.mktemp("metrics"),
        pki,
        {"app": [backend.server]},
        server={"metrics": f"127.0.0.1:{free_port()}", "workers": 2},
    )
    with server:
        yield server


@pytest.fixture(scope="module")
def scraper(edge):
    found = Scraper(int(edge.tables["server"]["metrics"].rpartition(":")[2]))
    wait_until(lambda: found.get()[0] == 200, 20, "an answer")
    return found


def test_requests_are_counted(edge, scraper):
    before = scraper.samples()
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    counted = ("edge_requests_total", ("status", "2xx"))
    wait_until(lambda: scraper.samples()[counted] == before[counted] + 1, 20, "a request counted")
