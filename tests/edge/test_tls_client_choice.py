"""The hook that chooses what a client shows."""

import pytest
import trustme
from cext.crypto.x509 import issuer_name

from edge import tls
from tests.edge.test_tls_client_auth import asking
from tests.edge.tls_peers import Thread, certificate, client_config, connected, pair

VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])
ECDSA_SHA256, RSA_PSS_SHA256 = 0x0403, 0x0804


def choosing(hook, version, **options):
    return client_config(get_client_certificate=hook, max_version=version, **options)


@VERSIONS
def test_it_is_told_what_the_server_wants(version):
    told, one, other = [], certificate("one.example"), certificate("other.example")

    async def choose(request):
        told.append(request)
        return other

    with connected(server=asking(verify=lambda chain, name: None, client_cas=None),
                   client=choosing(choose, version, certificates=[one])) as (_, server):
        assert server.connection_state().peer_certificates == other.chain
    (request,) = told
    assert request.version == version
    assert {ECDSA_SHA256, RSA_PSS_SHA256} <= set(request.signature_schemes)
    assert request.authorities == ()
    assert request.certificate_types == ((64, 1) if version == "1.2" else ())


@VERSIONS
def test_what_the_server_supports(version):
    requests = []
    mine = certificate("mine.example")
    client = choosing(lambda request: requests.append(request) or mine, version)
    with connected(server=asking(), client=client):
        pass
    (request,) = requests
    assert request.authorities == (issuer_name(mine.chain[0]),)
    assert request.supports(mine)
    stranger = certificate("mine.example", ca=trustme.CA(key_type=trustme.KeyType.ECDSA))
    assert not request.supports(stranger)



@VERSIONS
def test_none_leaves_it_to_the_certificates(version):
    one = certificate("one.example")
    client = choosing(lambda _: None, version, certificates=[one])
    with connected(server=asking("request"), client=client) as (_, server):
        assert server.connection_state().peer_certificates == one.chain
    with connected(server=asking("request"), client=choosing(lambda _: None, version)) as (_, server):
        assert server.connection_state().peer_certificates == ()


@VERSIONS
@pytest.mark.parametrize(("answer", "alert"), [
    (tls.Refuse("access_denied", "not to them"), "access_denied"), (RuntimeError("lost"), "internal_error")])
def test_a_hook_that_fails(version, answer, alert):
    def choose(_):
        raise answer

    with pair(server=asking(), client=choosing(choose, version)) as (client, server):
        thread = Thread(server.handshake)
        with pytest.raises(tls.AlertSent) as caught:
            client.handshake()
        assert caught.value.alert == alert
        assert caught.value.__cause__ is answer
        with pytest.raises(tls.AlertReceived):
            thread.finish()
