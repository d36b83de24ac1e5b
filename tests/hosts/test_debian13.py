"""What Debian 13 has and 12 has not is used there: Python 3.13, and OpenSSL 3.5 with ML-KEM and AES-GCM in AVX-512."""

import json
import re

import pytest

from tests.hosts.fleet import NAME

pytestmark = pytest.mark.machines

LIBRARIES = {
    "a": {"python": "3.11.", "libcrypto": "3.0.", "ml_kem": "cryptography", "x25519": "libcrypto"},
    "c": {"python": "3.13.", "libcrypto": "3.5.", "ml_kem": "libcrypto", "x25519": "lib25519"},
}
# One connection, by the host's own openssl or curl; 12's know nothing of ML-KEM.
S_CLIENT = f"openssl s_client -connect {{}}:443 -servername {NAME} -groups {{}} -brief </dev/null 2>&1"
CURL = f"curl -sv --cacert /etc/edge/authorities/test.pem --connect-to ::{{}}: https://{NAME}/1k 2>&1 >/dev/null"
SPEED = "openssl speed -mr -seconds 1 -bytes 16384 -evp aes-128-gcm 2>/dev/null"


@pytest.mark.parametrize("host", LIBRARIES)
def test_what_is_used(fleet, deployed, host):
    told = json.loads(fleet.edge(host, "status --json"))["state"]["libraries"]
    for name, begin in LIBRARIES[host].items():
        assert told[name].startswith(begin), told
    # And so it is: what a worker runs, and what it has mapped.
    worker = fleet.hosts.ssh(host, "pgrep --full '^edge: worker' | head -n1").stdout.strip()
    assert LIBRARIES[host]["python"].rstrip(".") in fleet.hosts.ssh(host, f"readlink /proc/{worker}/exe").stdout
    libraries = "grep -o '/usr/lib/[^ ]*lib\\(crypto\\|25519\\)[^ ]*'"
    mapped = fleet.hosts.ssh(host, f"{libraries} /proc/{worker}/maps | sort -u").stdout
    assert re.search(r"(?m)^/usr/lib/x86_64-linux-gnu/libcrypto\.so\.3$", mapped), mapped
    assert ("lib25519" in mapped) == (told["x25519"] == "lib25519"), mapped
    fleet.progress.note(f"Debian's on {host}", ", ".join(f"{key} {value}" for key, value in sorted(told.items())), 0)


@pytest.mark.parametrize("server", ["a", "c"])
def test_ml_kem_with_debian_13s_own_clients(fleet, deployed, server):
    """Its openssl and curl agree on X25519MLKEM768 with edge on 13, where libcrypto computes it, and on 12."""
    address = fleet.hosts.hosts[server].address
    said = fleet.hosts.ssh("c", S_CLIENT.format(address, "X25519MLKEM768")).stdout
    assert re.search(r"Negotiated TLS1\.3 group: X25519MLKEM768", said), said
    assert "TLSv1.3" in said
    said = fleet.hosts.ssh("c", CURL.format(address)).stdout
    assert re.search(r"SSL connection using TLSv1\.3 / \S+ / X25519MLKEM768", said), said
    assert "HTTP/2 200" in said or "HTTP/1.1 200" in said


def test_a_client_without_ml_kem_is_served_on_13(fleet, deployed):
    said = fleet.hosts.ssh("a", S_CLIENT.format(fleet.hosts.hosts["c"].address, "X25519")).stdout
    assert "X25519, 253 bits" in said, said


def gcm_speed(fleet, host: str) -> float:
    """Of AES-128-GCM in records of 16 KiB, in GB/s: the best of three, as others are at work on this machine, too."""
    said = [fleet.hosts.ssh(host, SPEED).stdout for _ in range(3)]
    return max(float(re.search(r"\+F:\d+:[\w-]+:([\d.]+)", text, re.I)[1]) for text in said) / 1e9


def test_aes_gcm_in_avx_512(fleet, deployed):
    with open("/proc/cpuinfo") as f:
        flags = set(re.search(r"(?m)^flags\s*: (.*)", f.read())[1].split())
    if not {"vaes", "vpclmulqdq", "avx512f", "avx512bw", "avx512vl", "avx512dq"} <= flags:
        pytest.skip("this CPU has no VAES with AVX-512")
    old, new = gcm_speed(fleet, "a"), gcm_speed(fleet, "c")
    fleet.progress.note("AES-128-GCM by libcrypto", f"{old:.1f} GB/s on Debian 12, {new:.1f} on 13", 18)
    assert new > 1.5 * old
