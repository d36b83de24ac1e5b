"""One load on one host, and what came of it as JSON: run_load.py KIND URL HOST CONNECTIONS SECONDS

HOST is an address, or a name that is resolved here. `done`, `per_second`, `p50_us`, `p99_us` (of a request; of a
connection, where each is new) and `errors`.
"""

import json
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

STREAMS = 16
UNITS = {"us": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000}


def own(kind, url, address, connections, seconds):
    mode = {"handshake": ["handshake"], "resume": ["handshake", "--resume"], "h1": ["requests"]}[kind]
    options = ["--json", "-t", str(seconds), "-c", str(connections), "--address", address]
    told = json.loads(_told(["edge-load", url, *options, "--mode", *mode], seconds, good=(0, 1)))  # 1: with errors
    return {
        "done": told["done"],
        "per_second": told["per_second"],
        "p50_us": told["latency_us"]["p50"],
        "p99_us": told["latency_us"]["p99"],
        "errors": sum(told["errors"].values()),
    }


def h2load(url, address, connections, seconds):
    port = urlsplit(url).port or 443
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        options = ["-c", str(max(connections // 8, 1)), "-m", str(STREAMS), "-D", str(seconds), f"--log-file={log}"]
        told = _told(["h2load", *options, f"--connect-to={where}", url], seconds)
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    times = sorted(int(microseconds) for _, status, microseconds in lines if status.startswith("2")) or [0]
    failed = int(re.search(r"(\d+) failed", told)[1])
    return {
        "done": len(times),
        "per_second": len(times) / seconds,
        "p50_us": times[len(times) // 2],
        "p99_us": times[len(times) * 99 // 100],
        "errors": failed + sum(not status.startswith("2") for _, status, _ in lines),
    }


def wrk(url, address, connections, seconds):
    """It asks by address, without SNI: for what it says of the connections that are kept."""
    parts = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    asked = parts._replace(netloc=f"{host}:{parts.port or 443}").geturl()
    options = ["-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency", "-H", f"Host: {parts.netloc}"]
    told = _told(["wrk", *options, asked], seconds)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    return {
        "done": int(re.search(r"(\d+) requests in", told)[1]),
        "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1]),
        "p50_us": _microseconds(told, "50%"),
        "p99_us": _microseconds(told, "99%"),
        "errors": sum(map(int, errors.groups() if errors else ())) + int(wrong[1] if wrong else 0),
    }


def _told(command, seconds, good=(0,)):
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=seconds + 120)
    if done.returncode not in good or not done.stdout:
        sys.exit(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def _microseconds(text, percentile):
    number, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * UNITS[unit]


def resolved(name, port):
    try:
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][4][0]
    except (OSError, UnicodeError) as e:
        sys.exit(f"{name}: {e}. With edge_address the inventory says where a host is reached from here.")


def main(kind, url, name, connections, seconds):
    address = resolved(name, urlsplit(url).port or 443)
    connections, seconds = int(connections), int(seconds)
    if kind == "h2":
        found = h2load(url, address, connections, seconds)
    elif kind == "wrk":
        found = wrk(url, address, connections, seconds)
    else:
        found = own(kind, url, address, connections, seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
