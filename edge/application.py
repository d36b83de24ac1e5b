"""What `edge run` runs: a configuration file, and the master that serves what it says."""

import os
from pathlib import Path

from gunicorn.app.base import BaseApplication
from gunicorn.config import Config

from edge.addresses import Addresses
from edge.change.generation import Generations
from edge.change.inheritance import Inheritance
from edge.change.material import Material
from edge.errors import EdgeError
from edge.master import Master
from edge.processes import systemd
from edge.processes.privileges import keep_memory


class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn calls the application: here, the configuration file."""

    def __init__(self, file: Path, welcome: str = "") -> None:
        self.generations = Generations(file)
        self.welcome = welcome
        self.addresses = Addresses()
        self.cfg: Config = None
        super().__init__("edge", prog="edge")

    def do_load_config(self) -> None:
        """Loads nothing: `generations` does, and the master decides when one holds."""

    def run(self) -> None:
        """Serves until stopped. Raises EdgeError when that cannot begin; ends in SystemExit otherwise."""
        given = systemd.given_sockets(os.environ)
        service = systemd.Service(systemd.Notifier.from_environment(os.environ))
        keep_memory(private=True)  # before any key is in it
        inheritance = Inheritance.from_environment(os.environ)
        if inheritance:
            self.generations.inherit(inheritance.estate, inheritance.take)
        first = self.generations.next(material=Material(service.at_work))
        self.cfg = first.cfg
        if inheritance:
            inheritance.speak_up()
        self.generations.logs.use(first.prepared.settings, first.owner)
        try:
            Master(self, first, service, given, inheritance).run()
        except RuntimeError as e:
            # the PID file: another master runs, or its directory is gone
            raise EdgeError(str(e)) from None
