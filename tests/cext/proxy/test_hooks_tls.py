"""What a request's hooks know of its connection: whether it is confirmed (and how to wait for it), whose certificate
was shown, and how the client speaks TLS."""

import pytest

from tests.cext.proxy.harness import Client, get, until
from tests.cext.proxy.hooked import Gate, directed, hooks
from tests.cext.proxy.test_early_data import H1, H2, Seen, early_edge


@pytest.fixture(params=[H1, H2], ids=["1.1", "2"])
def kind(request):
    return request.param


@pytest.fixture
def seen():
    return Seen()


def test_a_director_waits_for_the_handshake(seen, kind):
    noted, gate = [], Gate()

    async def director(request):
        noted.append((request.path, request.early_data, request.tls.handshake_confirmed, request.tls.early_data_used))
        if request.path == "/f/wait":
            await gate()
            await request.tls.confirm()
            noted.append(("confirmed", request.tls.handshake_confirmed))

    with early_edge(seen, hooks=hooks(director)) as edge, kind(edge) as client:
        client.ask(("GET", "/f/go"), ("GET", "/f/wait"))
        assert client.status(0) == 200
        opening = gate.reached()
        assert seen.paths() == ["/f/go"]
        opening()
        client.client.confirm()
        assert client.status(1) == 200
        client.ask(("GET", "/f/later"))
        assert client.status(2) == 200
    early, later = (True, False, True), (False, True, True)
    assert noted == [("/f/go", *early), ("/f/wait", *early), ("confirmed", True), ("/f/later", *later)]
    told = ["early-data" in seen.of(path)[0].fields for path in ("/f/go", "/f/wait", "/f/later")]
    assert told == [True, False, False]


def test_a_director_that_does_not_wait_has_its_request_wait(seen, kind):
    def director(request):
        if request.path == "/f/wait":
            request.confirm_first()
            request.headers["x"] = "y"

    with early_edge(seen, hooks=hooks(director)) as edge, kind(edge) as client:
        client.ask(("GET", "/f/go"), ("GET", "/f/wait"))
        assert client.status(0) == 200
        assert seen.paths() == ["/f/go"]
        client.client.confirm()
        assert client.status(1) == 200
    (request,) = seen.of("/f/wait")
    assert ("early-data" in request.fields, request.fields["x"]) == (False, "y")


def test_what_is_changed_in_early_data_says_that_it_is_early(seen, kind):
    def director(request):
        if request.path == "/f/asked":
            request.path = "/f/sent"
        if request.path == "/f/answered":
            request.respond(204)

    with early_edge(seen, hooks=hooks(director)) as edge, kind(edge) as client:
        client.ask(("GET", "/f/asked"), ("GET", "/f/answered"))
        assert [client.status(0), client.status(1)] == [200, 204]
        assert seen.of("/f/sent")[0].fields["early-data"] == "1"
        client.client.confirm()


def test_one_that_is_sent_to_another_route_waits(seen, kind):
    def director(request):
        request.path = "/elsewhere"             # whose route has no rules

    with early_edge(seen, hooks=hooks(director)) as edge, kind(edge) as client:
        client.ask(("GET", "/f/asked"))
        until(lambda: edge.counters()["early_forwarded"] == 0)
        assert seen.paths() == []
        client.client.confirm()
        assert client.status(0) == 200
    assert seen.paths() == ["/elsewhere"]


def test_a_client_that_never_confirms_takes_its_hook_along(seen, kind):
    gate = Gate()

    async def director(request):
        await gate()
        await request.tls.confirm()

    with early_edge(seen, hooks=hooks(director)) as edge:
        with kind(edge) as client:
            client.ask(("GET", "/f/x"))
            gate.open()
        edge.until_idle()
    assert seen.paths() == []


def test_a_confirmed_handshake_is_not_waited_for():
    failures = []

    async def director(request):
        await request.tls.confirm()
        assert request.tls.handshake_confirmed
        assert not request.early_data
        request.confirm_first()

    with directed(director, failures=failures) as edge, Client(edge) as client:
        for _ in range(3):
            assert client.ask(get()).status == 200
    assert failures == []


def test_what_is_not_there_is_empty():
    kept, failures = [], []

    def director(request):
        tls = request.tls
        assert (tls.ja3, tls.ja4, tls.peer_certificates) == ("", "", ())
        assert (tls.peer_certificate, tls.peer_subject, tls.peer_fingerprint) == (None, "", "")
        assert not tls.early_data_used
        kept.append(tls)

    with directed(director, failures=failures) as edge:
        with Client(edge) as client:
            assert client.ask(get()).status == 200
        edge.until_idle()
        assert edge.call(lambda: (kept[0].handshake_confirmed, kept[0].version)) == (False, "TLSv1.3")
    assert failures == []
