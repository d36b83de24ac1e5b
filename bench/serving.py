"""edge for a measurement: one worker on a CPU of its own before a site's backend, configured for what is measured."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from bench.peers import Site
from bench.processes import Process, free_port, tree, wait_listening

WORKER_CPU = 0
OTHER_CPU = 1  # of everybody else


@dataclass(frozen=True)
class Server:
    process: Process
    port: int


@contextlib.contextmanager
def serving(
    site: Site,
    name: str,
    *,
    key: str | None = None,
    server: str = "",
    listener: str = "",
    route: str = "",
    tables: str = "",
) -> Iterator[Server]:
    """edge as `{name}.toml` of the site's directory has it, until the end of the block.

    `key` is TOML, without it the site's own; `server`, `listener` and `route` are lines of these tables, `tables` is
    whatever comes besides.
    """
    port = free_port()
    file = site.directory / f"{name}.toml"
    file.write_text(f"""
[server]
workers = 1
{server}
[[listener]]
bind = ["127.0.0.1:{port}"]
{listener}
[[certificate]]
chain = "{site.chain}"
key = {key or f'"{site.key}"'}
[[upstream]]
name = "backend"
servers = ["127.0.0.1:{site.backend}"]
[[route]]
match = {{}}
upstream = "backend"
{route}
{tables}
""")
    command = [sys.executable, "-m", "edge", "run", "--config", str(file)]
    with Process(command, cpu=WORKER_CPU, log=site.directory / f"{name}.log") as process:
        wait_listening(process, port)
        put_first(process)
        yield Server(process, port)


def put_first(process: Process) -> None:
    """What is measured is the worker, not how long those wait that share their CPU with what makes the load."""
    if os.geteuid() == 0:
        for pid in tree(process.pid):
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(10))
