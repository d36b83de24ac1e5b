"""Names that are looked up in a thread of their own, whether one can be had or not."""

import asyncio
import threading

import pytest

from edge.fleet.nodes import Lookup

SECONDS = 30


def test_a_lookup_without_a_thread_is_not_waited_for(monkeypatch):
    """Nor is the next one, which gets one."""

    def start(_):
        raise RuntimeError("can't start new thread")

    async def go():
        lookup = Lookup("127.0.0.1")
        with monkeypatch.context() as none:
            none.setattr(threading.Thread, "start", start)
            for _ in range(2):
                with pytest.raises(RuntimeError):
                    await asyncio.wait_for(lookup.error(), SECONDS)
        assert await asyncio.wait_for(lookup.error(), SECONDS) is None

    asyncio.run(go())
