"""What `status` answers, made up: a busy edge, for pictures of it."""

import copy
import math

from edge.commands import picture
from edge.observe import figures
from edge.observe.counting import Counting

NOW = 1_800_000_000.0
DAY = 86400.0


def histogram(count, p50):
    return {"count": count, "sum": count * p50, "p50": p50, "p90": p50 * 2.2, "p99": p50 * 7.5}


def series(requests, p50, failed=0):
    return {
        "requests": requests,
        "status": {"none": 0, "1xx": 0, "2xx": requests - failed, "3xx": 0, "4xx": 0, "5xx": failed},
        "bytes_in": requests * 200,
        "bytes_out": requests * 9000,
        "retries": 0,
        "failures": failed,
        "connects": 12,
        "reuses": requests,
        "running": 3,
        "open": 17,
        "idle": 14,
        "first_byte": histogram(requests, p50),
        "total": histogram(requests, p50 * 1.5),
    }


def some_figures(seconds=None, scale=1.0):
    counting = Counting(rows=2, room=16)
    read = figures.read(counting.table, counting.labels)
    found = read.as_dict() | {"at": NOW, "seconds": seconds}
    found["counters"] |= {
        "requests": int(1_234_567 * scale),
        "handshakes": int(40_321 * scale),
        "handshake_failures": int(12 * scale),
        "responses_5xx": int(321 * scale),
    }
    found["gauges"] |= {"connections_open": 5432}
    found["states"] = {"new": 3, "active": 41, "idle": 5371, "hijacked": 17}
    found["handshake"] = {
        "full": histogram(int(13_000 * scale), 0.0021),
        "resumed": histogram(int(27_321 * scale), 0.0009),
    }
    found["loop"]["turn"] = histogram(int(9_000_000 * scale), 0.00012)
    found["requests"] |= {
        "bytes_in": int(4e8 * scale),
        "bytes_out": int(2e10 * scale),
        "first_byte": histogram(int(1_234_000 * scale), 0.011),
        "total": histogram(int(1_234_000 * scale), 0.018),
    }
    found["upstreams"] = {
        "app": series(int(900_000 * scale), 0.012, int(300 * scale)),
        "static": series(int(330_000 * scale), 0.0011),
        "an-upstream-with-quite-a-long-name": series(int(4_567 * scale), 0.25, int(900 * scale)),
    }
    found["routes"] = {f"www{i}.example.com/path/*": series(int(99_000 * scale) // (i + 1), 0.01) for i in range(40)}
    return found


def state(workers=2):
    return {
        "version": "0.1.0",
        "pid": 4711,
        "started": NOW - 2 * DAY - 4 * 3600,
        "now": NOW,
        "file": "/etc/edge/edge.toml",
        "generation": 3,
        "reloads": {
            "accepted": 2,
            "rejected": 1,
            "last": {"at": NOW - 200, "accepted": True, "reason": "", "seconds": 0.021, "changed": ""},
        },
        "workers": [
            {
                "slot": i,
                "pid": 4712 + i,
                "generation": 3,
                "state": "draining" if i == workers else "serving",
                "started": NOW - 3 * 3600 - i,
                "row": i + 1,
                "restarts": 1 if i == 1 else 0,
                "connections": 2716,
                "requests": 612_345,
            }
            for i in range(workers + 1)
        ],
        "drains": {"workers": 1, "until": NOW + 20},
        "listeners": [],
        "certificates": [
            {
                "path": f"certificate[{i}]",
                "names": [name],
                "kind": kind,
                "serial": "1",
                "expires": NOW + days * DAY,
                "must_staple": i == 1,
                "ocsp": ocsp,
                "ocsp_expires": None,
                "timestamps": 2,
                "delegated": None,
                "chain": "a.pem",
                "key": "file a.key",
            }
            for i, (name, kind, days, ocsp) in enumerate(
                [
                    ("www.example.com", "ECDSA P-256", 74, "fetched"),
                    ("shop.example.com", "RSA 2048", 3.2, "missing"),
                    ("old.example.com", "RSA 2048", 20, "none"),
                    ("gone.example.com", "RSA 2048", -1, "none"),
                ]
            )
        ],
        "tickets": {
            "rotate": 43200.0,
            "keep": 3,
            "shared": False,
            "keys": [
                {"id": "9a3dd3b0", "state": "seals", "since": NOW - 20000, "until": NOW + 150_000},
                {"id": "d43704b4", "state": "next", "since": NOW + 23200, "until": NOW + 200_000},
                {"id": "00ff1122", "state": "opens", "since": NOW - 63200, "until": NOW + 110_000},
            ],
        },
        "companions": [],
    }


def look(workers=2, looks=120, **changed):
    found = picture.Look(state(workers) | changed, some_figures(), some_figures(1.0, 0.001))
    for i in range(looks):
        wave = 1.2 + math.sin(i / 7) + 0.15 * math.sin(i * 1.7)
        found.history.append(
            {
                "requests": 1200 * wave,
                "failed": i % 13 == 0,
                "handshakes": 40 * wave**2,
                "connections": 5000 + 9 * i,
                "out": 2e7 * wave,
            }
        )
    return copy.deepcopy(found)
