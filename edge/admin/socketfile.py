"""The admin socket in the file system. Its permissions are its only guard, so there is no moment without them."""

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Final

from edge.admin.settings import Admin
from edge.errors import ListenError
from edge.handoff import check_free
from edge.handovers import ownership
from edge.processes.sockets import inode_of

BACKLOG: Final = 128


class AdminSocket(socket.socket):
    """A listening, non-blocking Unix socket, with the name that it has. Raises ListenError."""

    def __init__(self, settings: Admin) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.path = settings.path
        self._owner = os.getpid()
        self._inode: tuple[int, int] | None = None
        try:
            self.setblocking(False)
            check_free(str(self.path), socket.SOCK_STREAM)
            before = os.umask(0o177)
            try:
                self.bind(str(self.path))
            finally:
                os.umask(before)
            self._inode = inode_of(self.path)
            self.permit(settings)
            self.listen(BACKLOG)  # until now nobody could connect
            if inode_of(self.path) != self._inode:
                raise OSError(errno.EADDRINUSE, "is another's by now")
        except OSError as e:
            self.close()
            raise ListenError(
                f"{self}: the path cannot be bound: {(e.strerror or 'cannot be used').lower()}; choose one in a "
                "directory that exists and is yours to write, and where nobody else listens"
            ) from None

    @classmethod
    def of(cls, fd: int, path: Path, inode: tuple[int, int]) -> "AdminSocket":
        """That of a master whose place this one takes; its name is the other's until `own_name`."""
        made = cls.__new__(cls)
        socket.socket.__init__(made, fileno=fd)
        made.setblocking(False)
        made.path, made._owner, made._inode = path, 0, inode
        return made

    @property
    def inode(self) -> tuple[int, int] | None:
        return self._inode

    def own_name(self, mine: bool) -> None:
        """Whether its name in the file system goes with this process."""
        self._owner = os.getpid() if mine else 0

    def permit(self, settings: Admin) -> None:
        """Gives it the permissions of these settings. OSError when that cannot be."""
        # By descriptor: whoever may write to the directory could turn the name into a link at any moment.
        fd = os.open(self.path, os.O_PATH | os.O_NOFOLLOW)
        try:
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != self._inode:
                raise OSError(errno.EADDRINUSE, "is another's by now")
            os.chown(f"/proc/self/fd/{fd}", *ownership(settings))
            os.chmod(f"/proc/self/fd/{fd}", settings.mode)
        finally:
            os.close(fd)

    def close(self) -> None:
        """In the process that made it, the name goes too, unless it is somebody else's by now."""
        inode, self._inode = self._inode, None
        if inode and os.getpid() == self._owner:
            with contextlib.suppress(OSError):
                if inode_of(self.path) == inode:
                    os.unlink(self.path)
        super().close()

    def leave(self) -> None:
        """In a process that was forked off."""
        super().close()

    def __str__(self) -> str:
        return f"unix:{self.path}"
