"""Sets of networks: who is meant by them."""

import pytest
from cext.net.networks import Networks


def test_networks():
    networks = Networks([("10.0.0.0", 8), ("192.0.2.7", 32), ("2001:db8::", 33)])
    assert all(ip in networks for ip in ("10.255.0.1", "192.0.2.7", "2001:db8:7fff::1"))
    assert not any(ip in networks for ip in ("11.0.0.1", "192.0.2.6", "2001:db8:8000::1", "::ffff:10.0.0.1"))
    assert "10.0.0.1" in Networks([("0.0.0.0", 0)]) and "::1" not in Networks([("0.0.0.0", 0)])
    assert "nonsense" not in networks and "10.0.0.1" not in Networks([])


@pytest.mark.parametrize("network", [("127.0.0.1", 33), ("::", 129), ("::", -1), ("example.com", 8), ("", 0)])
def test_what_is_no_network(network):
    with pytest.raises(ValueError, match="network"):
        Networks([network])
