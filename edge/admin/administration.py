"""What the master is administered by: the admin socket and its commands, and the questions that workers are asked."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.admin import answers
from edge.admin.control import Command, Control
from edge.admin.questions import Questions
from edge.admin.settings import Admin
from edge.admin.socketfile import AdminSocket
from edge.admin.state import Listed
from edge.certificates.inventory import Inventory
from edge.change.inheritance import Lend, Part, Take
from edge.logs.logline import Log
from edge.settings import Settings

if TYPE_CHECKING:
    from edge.master import Master
    from edge.worker import EdgeWorker

COMMANDS: Final[dict[str, Command]] = {
    "reload": answers.reload,
    "status": answers.status,
    "show": answers.show,
    "upgrade": answers.upgrade,
    "rotate": answers.rotate,
}


class Administration:
    """One for the life of a master. A socket goes along with its configuration: `prepare` before that is accepted,
    `commit` when it holds, `reject` when it does not."""

    def __init__(self, master: "Master", log: Log) -> None:
        self.started = time.time()
        self.questions = Questions()
        self.inventory = Inventory()
        self.listed = Listed()
        self.control = Control(master, dict(COMMANDS), log)
        self._log = log
        self._master = master
        self._wanted: Admin | None = None
        self._prepared: AdminSocket | None = None
        """That of a configuration that does not hold yet, if it is another one."""

    def bequeath(self, lend: Lend) -> Part:
        there = self.control.listening
        return {"admin": [str(there.path), there.inode, lend(there.fileno())] if there else None}

    def inherit(self, part: Part, take: Take) -> None:
        if part["admin"]:
            path, inode, fd = part["admin"]
            self.control.listen(AdminSocket.of(take(fd), Path(path), tuple(inode)))

    def own_name(self, mine: bool) -> None:
        """Whether the socket's name in the file system goes with this process."""
        if self.control.listening is not None:
            self.control.listening.own_name(mine)

    def prepare(self, settings: Settings) -> None:
        """Binds what the configuration wants and is not there. Raises ListenError; nothing has changed then."""
        wanted, there = settings.server.admin, self.control.listening
        self._wanted = wanted
        if wanted is not None and (there is None or there.path != wanted.path):
            self._prepared = AdminSocket(wanted)

    def commit(self) -> None:
        """The configuration that was prepared holds."""
        wanted, there = self._wanted, self.control.listening
        if wanted is None:
            self.control.listen(None)
        elif self._prepared is not None:
            self.control.listen(self._prepared)
        elif there is not None:
            try:
                there.permit(wanted)
            except OSError as e:
                self._log("error", f"{there}: its permissions stay as they are: {e.strerror}")
        self._prepared = None
        self._master.watch(self.control.fileno(), self._turn)

    def reject(self) -> None:
        """It does not, and the one before goes on."""
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None

    def step(self, living: Collection["EdgeWorker"]) -> float:
        """One step onwards -> when the next is due (monotonic)."""
        return min(self.questions.step(living), self.control.step())

    def _turn(self) -> None:
        self._master.due(self.control.turn())

    def leave(self) -> None:
        """In a process that was forked off."""
        self.control.leave()
        if self._prepared is not None:
            self._prepared.leave()

    def close(self) -> None:
        """The end of the master; a quick one comes by here twice."""
        if self.control.epoll.closed:
            return
        self._master.unwatch(self.control.fileno())
        if self._prepared is not None:
            self._prepared.close()
        self.control.close()
