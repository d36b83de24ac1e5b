"""What a comparison found, and its three forms: a Markdown table, JSON, a chart. Pure functions of the data."""

import platform
import re
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.probes import Probe, Reading
from bench.svg import Bar, Panel, bar_chart, number

OURS = "edge"
BASELINE = "nginx"
NOISY = 0.10  # share of the proxy's CPU used by others, from which on it is mentioned


@dataclass
class Comparison:
    """Readings and failures by (probe, peer)."""

    probes: Sequence[Probe]
    peers: Sequence[str]
    readings: dict[tuple[str, str], list[Reading]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # peer: why it took no part at all

    def add(self, probe: str, peer: str, reading: Reading) -> None:
        self.readings.setdefault((probe, peer), []).append(reading)

    def fail(self, probe: str, peer: str, why: str) -> None:
        """A peer that fails a probe once has no figure for it."""
        self.failures[probe, peer] = why
        self.readings.pop((probe, peer), None)

    def values(self, probe: str, peer: str) -> list[float]:
        return [reading.value for reading in self.readings.get((probe, peer), ())]

    def median(self, probe: str, peer: str) -> float | None:
        values = self.values(probe, peer)
        return statistics.median(values) if values else None

    def ratio(self, probe: str, peer: str) -> float | None:
        """The peer's median to the baseline's."""
        value, base = self.median(probe, peer), self.median(probe, BASELINE)
        return value / base if value is not None and base else None

    def noise(self) -> tuple[float, str]:
        """The largest share of the proxy's CPU that others used in a reading, and in which."""
        shares = [
            (reading.foreign, f"{probe} of {peer}")
            for (probe, peer), readings in self.readings.items()
            for reading in readings
        ]
        return max(shares, default=(0.0, ""))

    def taking_part(self) -> list[str]:
        return [peer for peer in self.peers if peer not in self.left_out]


def markdown(c: Comparison) -> str:
    """A table with one row per probe: medians, and in brackets the ratio to the baseline."""
    peers = c.taking_part()
    lines = ["| | unit | " + " | ".join(peers) + " |", "|---|---|" + "--:|" * len(peers)]
    for probe in c.probes:
        better = "more is better" if probe.more_is_better else "less is better"
        cells = [cell(c, probe.name, peer) for peer in peers]
        lines.append(f"| {probe.title} | {probe.unit}, {better} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(c: Comparison, probe: str, peer: str) -> str:
    value, ratio = c.median(probe, peer), c.ratio(probe, peer)
    if value is None:
        return "failed" if (probe, peer) in c.failures else "–"
    shown = number(value) + (f" ({ratio:.2f})" if ratio is not None and peer != BASELINE else "")
    return f"**{shown}**" if peer == OURS else shown


def remarks(c: Comparison) -> list[str]:
    """What a reader must know beside the figures: who is missing and why, how quiet the machine was."""
    said = [f"{peer} left out: {why}" for peer, why in c.left_out.items()]
    said += [f"{peer} failed {probe}: {why}" for (probe, peer), why in c.failures.items()]
    share, where = c.noise()
    if share >= NOISY:
        said.append(f"the machine was not quiet: others used up to {share:.0%} of the proxy's CPU ({where})")
    return said


def as_json(c: Comparison, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": dict(facts),
        "settings": dict(settings),
        "left_out": c.left_out,
        "probes": {probe.name: probe_json(c, probe) for probe in c.probes},
    }


def probe_json(c: Comparison, probe: Probe) -> dict[str, Any]:
    peers = {
        peer: {
            "median": c.median(probe.name, peer),
            "ratio": c.ratio(probe.name, peer),
            "readings": [vars(reading) for reading in c.readings[probe.name, peer]],
        }
        for peer in c.taking_part()
        if (probe.name, peer) in c.readings
    }
    failed = {peer: why for (name, peer), why in c.failures.items() if name == probe.name}
    return {
        "title": probe.title,
        "unit": probe.unit,
        "more_is_better": probe.more_is_better,
        "peers": peers,
        "failed": failed,
    }


def chart(c: Comparison, facts: Mapping[str, Any]) -> str:
    """The SVG: one panel per probe, best peer first, whiskers from the lowest to the highest reading."""
    panels = []
    for probe in c.probes:
        better = "more is better" if probe.more_is_better else "less is better"
        bars = [bar(c, probe.name, peer) for peer in c.taking_part()]
        worst = float("inf")
        bars.sort(key=lambda b: worst if b.value is None else -b.value if probe.more_is_better else b.value)
        panels.append(Panel(probe.title, f"{probe.unit}, {better}", bars, c.median(probe.name, BASELINE)))
    subtitle = f"CPU time of the proxy alone, one worker, TLS 1.3. {facts.get('cpu', '')}, OpenSSL {facts['openssl']}"
    return bar_chart("The same job, in front of the same backend", subtitle, panels)


def bar(c: Comparison, probe: str, peer: str) -> Bar:
    value, ratio = c.median(probe, peer), c.ratio(probe, peer)
    if value is None:
        return Bar(peer, None, "failed" if (probe, peer) in c.failures else "not measured", ours=peer == OURS)
    values = c.values(probe, peer)
    note = f"{ratio:.2f} × {BASELINE}" if ratio is not None and peer != BASELINE else ""
    return Bar(peer, value, note, min(values), max(values), ours=peer == OURS)


def machine_facts(versions: Mapping[str, str]) -> dict[str, Any]:
    """{"cpu", "cpus", "memory_mib", "kernel", "system", "openssl", "versions"} of this machine."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", read("/proc/cpuinfo"), re.M)
    count = len(re.findall(r"^processor\s*:", read("/proc/cpuinfo"), re.M))
    memory = re.search(r"^MemTotal:\s+(\d+) kB", read("/proc/meminfo"), re.M)
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', read("/etc/os-release"), re.M)
    openssl = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout.split()
    return {
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "cpus": count,
        "memory_mib": int(memory[1]) // 1024 if memory else None,
        "kernel": platform.release(),
        "system": system[1] if system else platform.platform(),
        "openssl": openssl[1] if len(openssl) > 1 else "unknown",
        "versions": dict(versions),
    }


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
