"""`python -m bench hooks`: what a policy costs each request, from end to end."""

import contextlib
from typing import Any, Final

import click

from bench import ways

MODULE: Final = "bench_policies"

POLICIES: Final = '''
import asyncio


class Sync:
    def director(self, request):
        pass


class Reads:
    def director(self, request):
        if request.path == "/upload" and "x-api-key" not in request.headers:
            request.abort()


class Changes:
    def director(self, request):
        request.headers["X-User"] = "alice"


class Async:
    async def director(self, request):
        pass


class Waits:
    async def director(self, request):
        await asyncio.sleep(0)


class Responses:
    def response(self, request, response):
        response.headers["X-Served-By"] = "edge"
'''

WAYS: Final = {
    "no hooks": None,
    "a director that does nothing": "Sync",
    "one that reads the path and looks for a header": "Reads",
    "one that sets a header": "Changes",
    "an async one that awaits nothing": "Async",
    "an async one that waits for a turn of the loop": "Waits",
    "a response hook that sets a header": "Responses",
}


@click.command()
@ways.options
def hooks(**chosen: Any) -> None:
    """Measure the CPU time of a worker per proxied request of 1 KiB, with policies of several kinds.

    All are up at once and measured in turn, round after round. Needs (Debian): nginx-light nghttp2-client.
    """
    lines = {way: setting(policy) for way, policy in WAYS.items()}
    ways.show("hooks", contextlib.nullcontext(lines), {f"{MODULE}.py": POLICIES}, **chosen)


def setting(policy: str | None) -> str:
    return f'hooks = "{MODULE}:{policy}"\n' if policy else ""
