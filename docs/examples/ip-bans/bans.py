"""Cuts the requests of clients whose address is in a file, without a word of an answer."""

import ipaddress
import time
from pathlib import Path

FILE = Path(__file__).with_name("banned.txt")
LOOK_EVERY = 1.0  # seconds


class Policy:
    def __init__(self):
        self._changed = None
        self._looked = -LOOK_EVERY
        self._by_size = {}  # (version, prefix length) -> networks as numbers: one look-up each, however many there are

    def director(self, request):
        self._look_at_file()
        if self._is_banned(ipaddress.ip_address(request.client)):
            request.abort()

    def _is_banned(self, address):
        number, bits = int(address), address.max_prefixlen
        return any(
            number >> (bits - size) in networks
            for (version, size), networks in self._by_size.items()
            if version == address.version
        )

    def _look_at_file(self):
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        try:
            changed = FILE.stat().st_mtime_ns
            if changed != self._changed:
                self._by_size = _read(FILE.read_text())
                self._changed = changed
        except (OSError, ValueError) as e:
            print(f"{FILE}: {e}; the bans stay as they were", flush=True)


def _read(text):
    by_size = {}
    for line in text.splitlines():
        if written := line.partition("#")[0].strip():
            network = ipaddress.ip_network(written, strict=False)
            shifted = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            by_size.setdefault((network.version, network.prefixlen), set()).add(shifted)
    return by_size
