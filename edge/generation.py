"""A configuration that the master has accepted, and the file that the next one comes from."""

import dataclasses
import math
import os
import secrets
from pathlib import Path

from gunicorn.config import Config

from edge import config, logs, plane, stapling, ticket_keys
from edge.counting import Counting
from edge.errorlog import ErrorLog
from edge.logs import Logs, Sender
from edge.privileges import drop_privileges
from edge.schema import Place
from edge.settings import Settings
from edge.worker import EdgeWorker

# After a worker's own deadline, before the master kills it.
DRAIN_MARGIN_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """An accepted configuration and all that its workers inherit."""

    number: int
    prepared: plane.Prepared
    cfg: Config
    owner: tuple[int, int]
    staples: Path
    """Where fetched OCSP responses are."""


class Generations:
    """The configuration file, and what lasts from one generation to the next."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.staples = stapling.Directory()
        self.counting = Counting()
        self.logs = Logs(drop_privileges)
        self._cookie_secret = secrets.token_bytes(32)
        self._shared = ticket_keys.Shared()
        self._numbers = 0

    def next(self) -> Generation:
        """Reads and prepares the file. Raises EdgeError; nothing has changed then."""
        settings = config.load(self.file)
        prepared = plane.prepare(
            settings, self._cookie_secret, self._shared, self.counting.labels, key_log=self.logs.sender.keys
        )
        logs.check(settings)
        owner = config.owner(settings.server, Place(settings.file).key("server"))
        if any(identity.responders for identity in prepared.serving.identities):
            self.staples.make(settings, owner)
        self._numbers += 1
        staples = self.staples.path(settings)
        return Generation(self._numbers, prepared, _gunicorn_config(settings, owner, self.logs.sender), owner, staples)


def _gunicorn_config(settings: Settings, owner: tuple[int, int], sender: Sender) -> Config:
    server = settings.server
    cfg = Config(prog="edge")
    cfg.sender = sender  # for ErrorLog
    for name, value in {
        "bind": [str(bind) for listener in settings.listener for bind in listener.bind],
        "workers": server.workers,
        "worker_class": EdgeWorker,
        "logger_class": ErrorLog,
        "loglevel": server.error_log.level,
        "timeout": math.ceil(server.worker_timeout / 1000),
        "graceful_timeout": math.ceil(server.drain_timeout / 1000 + DRAIN_MARGIN_SECONDS),
        "user": owner[0],
        "group": owner[1],
        "proc_name": "edge",
        "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: S108
        "control_socket_disable": True,
        "pre_fork": lambda master, worker: master.furnish(worker),
        "post_fork": lambda master, worker: master.leave(worker),
        "child_exit": lambda master, worker: master.bury(worker),
    }.items():
        cfg.set(name, value)
    return cfg
