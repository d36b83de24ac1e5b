"""The admin socket, as settings; what is spoken there is in `edge.admin.control`."""

import os
from pathlib import Path
from typing import Final

from edge.handovers import PATH_MAX, PERMISSIONS
from edge.schema import File, Kind, Place, Text, knob, show, table

DEFAULT_PATH: Final = Path("/run/edge/admin.sock")
"""Where commands look for it when nothing else is said; the server has it nowhere, unless told."""


class SocketFile(Kind[Path]):
    """The path of a Unix socket; a relative one starts at the directory of the configuration file."""

    text = "Unix socket"

    def read(self, value: object, at: Place) -> Path:
        path = File().read(value.removeprefix("unix:") if isinstance(value, str) else value, at)
        if len(os.fsencode(path)) > PATH_MAX:
            raise at.error(
                f"{show(str(path))} is too long for a Unix socket",
                f"choose a path of at most {PATH_MAX} bytes, such as unix:{DEFAULT_PATH}",
            )
        return path


@table
class Admin:
    path: Path = knob(SocketFile(), f'Where the socket is, `"unix:{DEFAULT_PATH}"`.')
    mode: int = knob(
        PERMISSIONS,
        "Its permissions: who may connect. Whoever may can see all that goes on, and reload.",
        default="0600",
    )
    owner: str | None = knob(
        Text("user name"),
        "Whom it belongs to. Needs a start as root.",
        default=None,
        otherwise="who starts edge",
    )
    group: str | None = knob(
        Text("group name"), "The group that it belongs to.", default=None, otherwise="of who starts edge"
    )
