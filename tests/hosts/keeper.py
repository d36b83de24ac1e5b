"""The process that stands behind a run: it serves the machines' way out, and removes all that the run has made when the
run ends, however that does.

`python -m tests.hosts.keeper RUN`, with the run's lock as one of its descriptors: prints a line when it is ready. It
ends with its standard input, if that is a pipe, which the run holds open as long as it lives; or by SIGTERM.
"""

import asyncio
import os
import signal
import stat
import sys

from tests.hosts import network, runs, trees
from tests.hosts.way_out import HEAD_MAX, WayOut


async def _serve(run: str) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)

    if stat.S_ISFIFO(os.fstat(0).st_mode):
        loop.add_reader(0, lambda: os.read(0, 64) or ended.set())
    way_out = WayOut(trees.CACHE / "packages")
    sock = network.listen(network.hub(run), network.HUB, network.PROXY_PORT)
    await asyncio.start_server(way_out.serve, sock=sock, limit=HEAD_MAX)
    print("ready", flush=True)
    await ended.wait()


def main() -> None:
    run = sys.argv[1]
    (runs.directory(run) / "keeper").write_text(str(os.getpid()))
    try:
        network.make_hub(run)
        asyncio.run(_serve(run))
    finally:
        runs.remove(run)


if __name__ == "__main__":
    main()
