"""Metrics for Prometheus, of what all workers have counted: docs/metrics.md names each."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from edge.monitoring import Metrics

if TYPE_CHECKING:
    from edge.observer import Answer, Request, View

FRESH_SECONDS: Final = 1.0
"""An answer serves whoever asks within this time."""


class Exposition(Collector):
    """What is answered at /metrics."""

    def __init__(self, view: "View", wanted: Metrics) -> None:
        self._view = view
        self._wanted = wanted
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._answers: dict[str, tuple[float, bytes]] = {}
        self._rendering = asyncio.Lock()

    async def answer(self, request: "Request") -> "Answer":
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        async with self._rendering:
            made_at, content = self._answers.get(content_type, (0.0, b""))
            if time.monotonic() > made_at + FRESH_SECONDS:
                content = await asyncio.to_thread(self._render, encode)
                self._answers = {content_type: (time.monotonic(), content)}
        return 200, [("Content-Type", content_type)], content

    def _render(self, encode: Callable[[CollectorRegistry], bytes]) -> bytes:
        return encode(self._registry)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        figures = self._view.figures()
        for name, value in figures.counters().items():
            yield CounterMetricFamily(f"edge_{name}", name, value=value)
        for name, value in figures.gauges().items():
            yield GaugeMetricFamily(f"edge_{name}", name, value=value)
