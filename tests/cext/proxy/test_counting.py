"""What is counted where: handshakes, alerts, routes, upstreams, servers, turns of the loop."""

import contextlib
import ssl
import time

import pytest
from cext.base.stats import StatsTable
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import Route
from cext.tls.names import GROUP_NAMES, SUITE_NAMES
from cext.tls.session import TicketKeys

from tests.cext.proxy.harness import Backend, Client, H2Client, client_context, get, post, reply, serving, until
from tests.cext.tls.peer import server_config
from tests.early_client import EarlyClient, session_of

UNROUTED, ROUTE, GROUP, SERVER, OTHER_SERVER = 3, 10, 11, 12, 13


@pytest.fixture
def table():
    return StatsTable(rows=1, series=16)


def counting(table, *scripts, pool=None, **settings):
    """An edge that counts in the table: for /x/* in ROUTE, GROUP and SERVER."""
    servers = [SERVER, OTHER_SERVER][: len(scripts)]
    return serving(
        *scripts,
        routes=lambda group: [Route(group, path="/x/*", series=ROUTE, timeouts={"connect": 2000, "first_byte": 300})],
        pool={"series": GROUP, "server_series": servers, **(pool or {})},
        plane={"stats": table},
        **settings,
    )


def of(edge, table, index):
    """What a series has counted, read in the loop's thread: its turn is over."""
    sums = edge.call(table.read)
    return sums.of(index) if index in sums.indices() else None


def observed(table, name, index=None):
    counts, total = table.read().histogram(name, index)
    return sum(counts), total / 1e6


def both(conn):
    while True:
        request = conn.request()
        path = request.start.split()[1]
        time.sleep(0.02 if path == "/x/slow" else 0)
        conn.send(reply(b"z" * 100, status="404 Not Found" if path == "/x/none" else "200 OK"))


@pytest.mark.parametrize("kind", [Client, H2Client])
def test_a_request_counts_at_its_route_its_upstream_and_its_server(table, kind):
    with counting(table, both) as edge:
        with kind(edge) as client:
            paths = ("/x/a", "/x/slow", "/x/none", "/nowhere")
            if kind is Client:
                statuses = [client.ask(get(path)).status for path in paths]
            else:
                statuses = [client.response(client.get(path)).status for path in paths]
            assert statuses == [200, 200, 404, 404]
        edge.until_idle()
        for index in (ROUTE, GROUP, SERVER):
            found = of(edge, table, index)
            assert found["requests"] == 3
            assert found["status"] == [0, 0, 2, 0, 1, 0]
            assert found["bytes_in"] > 60
            assert found["bytes_out"] > 300
            assert found["running"] == found["failures"] == found["retries"] == 0
            for name in ("first_byte", "total"):
                n, seconds = observed(table, name, index)
                assert n == 3
                assert 0.02 <= seconds < 5
        assert of(edge, table, UNROUTED)["status"] == [0, 0, 0, 0, 1, 0]
        assert observed(table, "first_byte", UNROUTED)[0] == 0
        server = of(edge, table, SERVER)
        assert (server["connects"], server["reuses"], server["open"], server["idle"]) == (1, 2, 1, 1)
    assert (of_closed := table.read().of(SERVER))["open"] == 0
    assert of_closed["idle"] == 0


def test_what_is_no_request_counts_where_no_route_is(table):
    with counting(table, both) as edge:
        with Client(edge) as client:
            assert client.ask(b"GARBAGE\r\n\r\n").status == 400
        edge.until_idle()
        assert of(edge, table, UNROUTED)["status"] == [0, 0, 0, 0, 1, 0]
        assert of(edge, table, ROUTE) is None


def test_running_requests_and_connections_are_gauges(table):
    def held(conn):
        conn.request()
        conn.request()

    with counting(table, held) as edge:
        with Client(edge) as client:
            client.send(get("/x/a"))
            until(lambda: (s := of(edge, table, ROUTE)) and s["running"] == 1)
            assert of(edge, table, GROUP)["running"] == 1
            assert of(edge, table, SERVER)["open"] == 1
            assert of(edge, table, SERVER)["idle"] == 0
            assert client.response().status == 504
        edge.until_idle()
        for index in (ROUTE, GROUP):
            assert of(edge, table, index)["running"] == 0
            assert of(edge, table, index)["failures"] == 1
            assert of(edge, table, index)["status"] == [0, 0, 0, 0, 0, 1]
        assert of(edge, table, SERVER)["open"] == 0
        assert of(edge, table, SERVER)["failures"] == 1


def test_a_client_that_goes_got_no_status(table):
    with counting(table, lambda conn: conn.rest()) as edge:
        with Client(edge) as client:
            client.send(get("/x/a"))
            until(lambda: (s := of(edge, table, ROUTE)) and s["running"] == 1)
        edge.until_idle()
        assert of(edge, table, ROUTE)["status"] == [1, 0, 0, 0, 0, 0]
        assert of(edge, table, ROUTE)["running"] == 0
        assert of(edge, table, SERVER)["open"] == 0


def test_servers_that_fail_are_told_apart_and_retries_are_counted(table):
    def once(conn):
        """Serves one request, and closes when the next one comes."""
        conn.request()
        conn.send(reply())
        conn.request()
        conn.sock.close()

    gone = Backend(once)
    gone.close()
    with counting(table, once, gone) as edge:
        with Client(edge) as client:
            statuses = {client.ask(get("/x/a")).status for _ in range(4)}
            assert statuses == {200}
        edge.until_idle()
        assert of(edge, table, OTHER_SERVER)["failures"] >= 1
        assert of(edge, table, OTHER_SERVER)["status"] == [0] * 6
        assert of(edge, table, SERVER)["failures"] == 0
        assert of(edge, table, OTHER_SERVER)["open"] == 0
        retries = edge.counters()["upstream_retries"]
        assert retries >= 1
        assert of(edge, table, SERVER)["retries"] == of(edge, table, GROUP)["retries"] == retries
        assert of(edge, table, ROUTE)["failures"] == 0


@pytest.mark.parametrize("protocol", ["h2c"])
def test_connections_of_http2_upstreams(table, protocol):
    """A server that hangs up at once: what was opened is closed, however it ended."""
    with counting(table, lambda conn: conn.sock.close(), pool={"protocol": protocol}) as edge:
        with Client(edge) as client:
            assert client.ask(get("/x/a")).status in (502, 503)
        edge.until_idle()
        assert of(edge, table, SERVER)["connects"] >= 1
        assert of(edge, table, SERVER)["open"] == of(edge, table, SERVER)["idle"] == 0


def test_two_groups_with_one_label_share_a_series(table):
    backend = Backend(both)
    other = UpstreamGroup("app", [backend.address], series=GROUP, server_series=[SERVER])
    with serving(
        backend,
        routes=lambda group: [Route(group, path="/x/*", series=ROUTE), Route(other, path="/y/*", series=ROUTE)],
        pool={"series": GROUP, "server_series": [SERVER]},
        plane={"stats": table},
    ) as edge:
        with Client(edge) as client:
            for path in ("/x/a", "/y/a"):
                assert client.ask(get(path)).status == 200
        edge.until_idle()
        assert of(edge, table, ROUTE)["requests"] == 2
        assert of(edge, table, SERVER)["idle"] == 2
        edge.call(other.close_idle)
        assert of(edge, table, SERVER)["idle"] == of(edge, table, SERVER)["open"] == 1


def test_content_counts_as_it_stands_on_the_wire(table):
    with counting(table, both) as edge:
        with Client(edge) as client:
            client.send(post(b"c" * 5000, "/x/a"))
            assert client.response().status == 200
        edge.until_idle()
        edge.stop()
        (entry,) = edge.log()
        assert table.read().of(ROUTE)["bytes_in"] == entry["bytes_in"] >= 5000
        assert table.read().of(ROUTE)["bytes_out"] == entry["bytes_out"]


def tls12(ciphers):
    context = client_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    return context


def handshakes(table):
    found = table.read().handshakes()
    return {(SUITE_NAMES[suite], GROUP_NAMES[group], resumed): n for suite, group, resumed, n in found}


def test_handshakes_by_suite_and_group_and_whether_they_were_resumed(table):
    tls = server_config(alpn=(b"http/1.1",), tickets=TicketKeys([(b"n" * 16, b"k" * 32)]))
    old = tls12("ECDHE-ECDSA-AES128-GCM-SHA256")
    old.set_ecdh_curve("prime256v1")
    with counting(table, both, tls=tls) as edge:
        with Client(edge) as client:
            assert client.ask(get("/x/a")).status == 200
            cipher = client.sock.cipher()[0]
        with Client(edge, context=old) as client:
            assert client.ask(get("/x/a")).status == 200
        edge.until_idle()
        found = handshakes(table)
        assert sum(found.values()) == edge.counters()["handshakes"] == 2
        assert found["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "secp256r1", False] == 1
        assert [n for (suite, _, resumed), n in found.items() if suite == cipher and not resumed] == [1]
        assert observed(table, "full_handshake")[0] == 2
        assert 0 < observed(table, "full_handshake")[1] < 30
        assert observed(table, "resumed_handshake")[0] == 0
        with EarlyClient(edge.port, session_of(edge.port), early=False) as client:
            client.flight()
            client.confirm()
        until(lambda: observed(table, "resumed_handshake")[0] == 1)
        assert sum(n for (_, _, resumed), n in handshakes(table).items() if resumed) == 1


def test_alerts_by_who_sent_them(table):
    with counting(table, both) as edge:
        refused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)       # does not know who issued the certificate
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(edge, context=refused)
        until(lambda: table.read().array("alerts_received")[48] == 1)
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            Client(edge, context=tls12("ECDHE-RSA-AES128-GCM-SHA256"))
        until(lambda: table.read().array("alerts_sent")[40] == 1)
        assert sum(table.read().array("alerts_sent")) == sum(table.read().array("alerts_received")) == 1
        assert edge.counters()["handshake_failures"] == 2
        assert handshakes(table) == {}


def test_turns_of_the_loop_that_keep_others_waiting(table):
    with counting(table, both) as edge:
        edge.call(lambda: time.sleep(0.15))
        until(lambda: table.read().longest(60) >= 150_000)
        until(lambda: observed(table, "turn")[0] > 5)
        assert observed(table, "turn")[1] >= 0.15
        assert table.read().quantiles("turn", (1.0,))[0] >= 150_000
        until(lambda: observed(table, "late")[0] > 5)          # the harness's own timer, every 2 ms


def test_descriptors_are_looked_at_once_a_second(table):
    with counting(table, both) as edge, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(Client(edge))
        until(lambda: table.read().counters()["descriptors"] >= 6)
        assert table.read().counters()["descriptors_limit"] > 100
