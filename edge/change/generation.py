"""A configuration that the master has accepted, and the file that the next one comes from."""

import dataclasses
import math
import os
import secrets
from collections.abc import Hashable
from pathlib import Path

from gunicorn.config import Config

from edge import config, plane
from edge.certificates import kept, stapling
from edge.certificates.watch import Watch
from edge.change.inheritance import Lend, Part, Take
from edge.change.material import Material
from edge.early_data.registers import Registers
from edge.garbage import young_alone
from edge.logs import logs
from edge.logs.errorlog import ErrorLog
from edge.logs.logs import Logs, Sender
from edge.observe.counting import Counting
from edge.observe.labels import Labels
from edge.processes.privileges import drop_privileges
from edge.schema import Place
from edge.settings import Settings
from edge.tickets.rotations import Rotations
from edge.worker import EdgeWorker

# After a worker's own deadline, before the master kills it.
DRAIN_MARGIN_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """An accepted configuration and all that its workers inherit."""

    number: int
    prepared: plane.Prepared
    watch: Watch
    """The files of its certificates."""
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
        self.rotations = Rotations()
        self.registers = Registers()
        self._numbers = 0

    def bequeath(self, lend: Lend) -> Part:
        return {
            "generation": self._numbers,
            "cookie_secret": self._cookie_secret.hex(),
            "tickets": {**self.rotations.bequeath(), **self.registers.bequeath(lend)},  # as FORMAT has it
            "staples": self.staples.bequeath(),
        }

    def inherit(self, part: Part, take: Take) -> None:
        self._numbers = part["generation"]
        self._cookie_secret = bytes.fromhex(part["cookie_secret"])
        self.rotations.inherit(part["tickets"])
        self.registers.inherit(part["tickets"], take)
        self.staples.inherit(part["staples"])

    def next(self, before: Generation | None = None, material: Material | None = None) -> Generation:
        """Reads and prepares the file, with what has not changed since `before`. What is read beside it is remembered
        in `material`. Raises EdgeError; nothing has changed then."""
        with young_alone():
            return self._next(before, material)

    def _next(self, before: Generation | None, material: Material | None) -> Generation:
        settings = config.load(self.file)
        watch = Watch(settings)
        if before and material:
            served = before.prepared.serving.identities
            material.kept = kept.find(watch, before.watch, served, settings.file)
        prepared = self.prepare(settings, self.counting.labels, before.prepared if before else None, material)
        logs.check(settings)
        owner = config.owner(settings.server, Place(settings.file).key("server"))
        if any(identity.responders for identity in prepared.serving.identities):
            self.staples.make(settings, owner)
        self._numbers += 1
        staples = self.staples.path(settings)
        cfg = _gunicorn_config(settings, owner, self.logs.sender)
        return Generation(self._numbers, prepared, watch, cfg, owner, staples)

    def deliver(self, name: Hashable, state: object) -> None:
        """Ticket keys that have come, for the source of that name."""
        self.rotations.deliver(name, state)

    def prepare(
        self,
        settings: Settings,
        labels: Labels,
        before: plane.Prepared | None = None,
        material: Material | None = None,
    ) -> plane.Prepared:
        """In the master, and in workers with what the master has read. Raises ConfigError."""
        return plane.prepare(
            settings,
            self._cookie_secret,
            self.rotations,
            self.registers,
            labels,
            key_log=self.logs.sender.keys,
            material=material,
            before=before,
        )


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
