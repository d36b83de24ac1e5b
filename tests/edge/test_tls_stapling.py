"""What stands beside a server's certificate, and its compression, as programs see them."""

import pytest

from edge import tls
from tests.edge.tls_peers import Thread, client_config, connected, localhost, pair, server_config, sockets

TIMESTAMPS = (b"\0" * 48, b"\0first")


def stapled(**options):
    plain = localhost()
    return tls.Certificate(chain=plain.chain, private_key=plain.private_key, **options)


def talk(client, server):
    """The client's state after a handshake; what it raises is raised here."""
    with pair(server_config(**server), client_config(**client)) as (a, b):
        thread = Thread(b.handshake)
        try:
            a.handshake()
            return a.connection_state()
        finally:
            a.close()
            thread.join(5)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("asks", [False, True])
def test_a_client_has_what_it_asks_for(version, asks):
    server = {"certificates": [stapled(ocsp_staple=b"OCSP", signed_certificate_timestamps=TIMESTAMPS)]}
    state = talk({"request_ocsp_staple": asks, "request_timestamps": asks, "max_version": version}, server)
    assert state.ocsp_response == (b"OCSP" if asks else b"")
    assert state.signed_certificate_timestamps == (TIMESTAMPS if asks else ())


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("response", [b"OCSP", b""])
def test_a_client_judges_the_staple(version, response):
    def judge(chain, staple):
        assert chain == localhost().chain
        if not staple:
            raise tls.Refuse("certificate_unknown", "no staple")

    client = {"request_ocsp_staple": True, "verify_staple": judge, "max_version": version}
    server = {"certificates": [stapled(ocsp_staple=response)]}
    if response:
        assert talk(client, server).ocsp_response == response
        return
    with pytest.raises(tls.AlertSent, match="no staple") as caught:
        talk(client, server)
    assert caught.value.alert == "certificate_unknown"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_whose_staple_was_never_judged(version):
    """Nothing of it is resumed that would be refused now."""
    server = server_config(certificates=[stapled(ocsp_staple=b"OCSP")])
    asks = {"request_ocsp_staple": True, "max_version": version}
    with connected(server=server, client=client_config(**asks)) as (client, other):
        other.write(b"x")
        client.read()
        session = client.session
    for good in (True, False):
        judged = []

        def judge(chain, staple, good=good, judged=judged):
            judged.append(staple)
            if not good:
                raise ValueError("revoked")

        with sockets() as (a, b):
            thread = Thread(tls.server(b, server).handshake)
            client = tls.client(
                a, client_config(**asks, verify_staple=judge), server_name="localhost", session=session)
            if good:
                client.handshake()
                assert client.connection_state().resumed
            else:
                with pytest.raises(tls.AlertSent, match="revoked"):
                    client.handshake()
            assert judged[0] == b"OCSP"
            client.close()
            thread.join(5)


@pytest.mark.parametrize("what", ["verify", "verify_staple"])
def test_a_judge_that_says_no_without_raising(what):
    """An easy mistake, which must not be a yes."""
    client = {"request_ocsp_staple": True, what: lambda *_: False}
    with pytest.raises(tls.CertificateError, match="returned False"):
        talk(client, {})


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_an_interrupt_while_a_staple_is_judged(version):
    """It ends the connection, and gets to whoever has asked for the handshake."""

    def judge(chain, staple):
        raise KeyboardInterrupt

    with pair(client=client_config(request_ocsp_staple=True, verify_staple=judge, max_version=version)) as (a, b):
        thread = Thread(b.handshake)
        with pytest.raises(KeyboardInterrupt):
            a.handshake()
        with pytest.raises(tls.AlertReceived, match="internal_error"):
            thread.finish()
        with pytest.raises(tls.AlertSent, match="internal_error"):
            a.read()


def test_what_cannot_be():
    with pytest.raises(ValueError, match="verify_staple"):
        client_config(verify_staple=lambda chain, staple: None)
    with pytest.raises(ValueError, match="signed_certificate_timestamps"):
        stapled(signed_certificate_timestamps=[b""])
    with pytest.raises(ValueError, match="ocsp_response"):
        stapled(ocsp_staple=bytes(1 << 16))
