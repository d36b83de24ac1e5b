"""`edge example NAME`: a directory of docs/examples, served as it stands, with what it takes for granted beside it.

An example has `edge.toml`, whose leading comment says what it shows, the modules that it names, and `beside.py` where
something has to run beside edge: a key server, say. It is copied to a directory of its own, where it finds `cert.pem`,
`key.pem` and `ca.pem` for localhost, and the demo's origin on `backend.sock`. beside.py runs there too: it makes a file
`ready` when it is, and gets SIGTERM when edge has ended. In a file `environment` it may leave variables for edge, a
NAME=value in each line.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from edge import demo
from edge.errors import EdgeError

ROOT: Final = Path(__file__).resolve().parents[1] / "docs/examples"

_READY_SECONDS: Final = 60
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)


def names() -> list[str]:
    return sorted(file.parent.name for file in ROOT.glob("*/edge.toml"))


def title(name: str) -> str:
    """The first line of the example's comment."""
    with (ROOT / name / "edge.toml").open() as file:
        return file.readline().lstrip("# ").strip()


def prepare(name: str, port: int) -> tuple[Path, str]:
    """Copies an example and starts what it needs. -> the configuration's path, and what to tell the user."""
    if name not in names():
        raise EdgeError(f"there is no example {name!r}; there are {', '.join(names()) or 'none here'}")
    directory = Path(tempfile.mkdtemp(prefix=f"edge-{name}-"))
    shutil.copytree(ROOT / name, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    state = demo.state_directory()
    demo.make_certificates(state)
    for made, called in (("ca.pem", "ca.pem"), ("localhost.pem", "cert.pem"), ("localhost.key", "key.pem")):
        shutil.copy(state / made, directory / called)
    demo.start_origin(directory / "backend.sock")
    file = directory / "edge.toml"
    text = re.sub(rf"\b{demo.PORT}\b", str(port), file.read_text())
    text = re.sub(r"\bunix:(?!/)", f"unix:{directory}/", text)  # in a configuration they are absolute
    file.write_text(text)
    if (directory / "beside.py").exists():
        _start(directory)
        _take_environment(directory / "environment")
    return file, _welcome(text, directory)


def _start(directory: Path) -> None:
    """Starts beside.py and waits until it is ready."""
    process = subprocess.Popen(  # this interpreter, and the example's own file
        [sys.executable, "beside.py"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,  # noqa: PLW1509  # there is one thread yet
        process_group=0,
    )
    end = time.monotonic() + _READY_SECONDS
    while not (directory / "ready").exists():
        if process.poll() is not None:
            raise EdgeError(f"{directory / 'beside.py'} ended with exit code {process.returncode}")
        if time.monotonic() > end:
            process.terminate()
            raise EdgeError(f"{directory / 'beside.py'} is not ready after {_READY_SECONDS} seconds")
        time.sleep(0.02)
    process.returncode = 0  # the master reaps all children; Popen shall not try


def _take_environment(file: Path) -> None:
    lines = file.read_text().splitlines() if file.exists() else []
    os.environ.update((name, value) for name, _, value in (line.partition("=") for line in lines))


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _welcome(text: str, directory: Path) -> str:
    """The comment at the top, whose commands are for the example's directory."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    title, *rest = lines
    last = f"Its files are in {directory}; stop it with Ctrl-C."
    return "\n".join([title, "", f"  cd {directory}", *rest[1:], "", last, ""])
