"""What stands beside a server's certificate, and its compression, as programs see them."""

import pytest

from edge import tls
from tests.edge.tls_peers import Thread, client_config, localhost, pair, server_config

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


def test_what_cannot_be():
    with pytest.raises(ValueError, match="verify_staple"):
        client_config(verify_staple=lambda chain, staple: None)
    with pytest.raises(ValueError, match="signed_certificate_timestamps"):
        stapled(signed_certificate_timestamps=[b""])
    with pytest.raises(ValueError, match="ocsp_response"):
        stapled(ocsp_staple=bytes(1 << 16))
