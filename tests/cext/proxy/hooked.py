"""Hooks for tests: policies in a few words, and places where async ones wait."""

import asyncio
import queue

from cext.proxy.hooks import Hooks

from tests.cext.proxy.harness import SECONDS, echo, reply, serving

NAMES = {name: name for name in ("connect", "first_byte", "total", "write_idle", "body_idle", "response_idle")}
NAMES["min_rate"] = "body_rate"


def hooks(director=None, response=None, connection_state=None, *, failures=None):
    """Hooks with limits in ms."""
    failures = [] if failures is None else failures
    return Hooks(
        director,
        connection_state,
        response,
        names=NAMES,
        read_limit=lambda name, value: int(value or 0),
        show_limit=lambda name, value: value or None,
        failed=lambda hook, error: failures.append((hook, repr(error))),
    )


def directed(director=None, *scripts, response=None, failures=None, **settings):
    return serving(*(scripts or [echo]), hooks=hooks(director, response, failures=failures), **settings)


def recording(heads, body=b"ok"):
    """A backend that keeps what it is asked."""

    def script(conn):
        while True:
            heads.append(conn.request())
            conn.send(reply(body))

    return script


class Gate:
    """Async hooks wait here until the test lets them go, one after the other."""

    def __init__(self):
        self.waiting = queue.SimpleQueue()
        self.cancelled = queue.SimpleQueue()

    async def __call__(self):
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting.put((loop, future))
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled.put(True)
            raise

    def reached(self):
        """Waits until a hook does -> what lets it go on."""
        loop, future = self.waiting.get(timeout=SECONDS)
        return lambda result=None: loop.call_soon_threadsafe(lambda: future.done() or future.set_result(result))

    def open(self, result=None):
        self.reached()(result)

    def left(self):
        """Waits until one that waits is cancelled."""
        return self.cancelled.get(timeout=SECONDS)
