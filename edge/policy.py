"""Policies: a class of the user's whose methods are called where a decision is theirs. docs/hooks.md is the guide.

    class Policy:
        def director(self, request): ...
        def response(self, request, response): ...
        def connection_state(self, connection, old, new): ...

`load_all` imports the classes that a configuration names and checks them, in the master, before it is accepted;
`Policy.start` makes the object, in each worker, as the user that workers run as.
"""

import contextlib
import dataclasses
import importlib
import inspect
import math
import os
import signal
import stat
import threading
import traceback
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from cext.proxy.client_view import ClientConnection, TlsState
from cext.proxy.directing import Request
from cext.proxy.header_view import Headers
from cext.proxy.hooks import AbortRequest, Hooks, RequestOver
from cext.proxy.response_view import ResponseView as Response

from edge import handshake, timeouts
from edge.change.material import Material
from edge.errors import ConfigError
from edge.handshake import (
    Certificate,
    ClientHello,
    Config,
    Drop,
    HandOver,
    Handshakes,
    Refuse,
    SessionTicketWrapper,
    seal,
    unseal,
)
from edge.hook_modules import Modules
from edge.logs.logline import Log
from edge.schema import Kind, Place, Rate, nearest
from edge.seldom import Seldom

__all__ = [
    "AbortRequest",
    "Certificate",
    "ClientConnection",
    "ClientHello",
    "Config",
    "Drop",
    "HandOver",
    "Headers",
    "Policy",
    "Refuse",
    "Request",
    "RequestOver",
    "Response",
    "SessionTicketWrapper",
    "TlsState",
    "load_all",
    "seal",
    "unseal",
]

IMPORT_SECONDS: Final = 30.0
"""For the import of a policy's module: meanwhile the master does nothing else."""

HOOKS: Final = {
    "director": ("request",),
    "response": ("request", "response"),
    "connection_state": ("connection", "old", "new"),
    **handshake.HOOKS,
    handshake.WRAPPER: (),
}
"""Every hook, with what it is called with."""
MAY_WAIT: Final = ("director", "response", *handshake.HOOKS)
"""Those that may be `async def`."""
OF_ROUTES: Final = ("director", "response")
"""Those that a route may have of its own."""

Wanted = tuple[str, Place, bool]
"""A policy, "module:Class", where it is named, and whether that is at a route."""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """A policy that may be used: its class, and where it is named."""

    cls: type
    at: Place

    @property
    def asked_by_handshakes(self) -> bool:
        """Whether handshakes stop at the ClientHello for it."""
        return handshake.asks(self.cls)

    @property
    def hooks(self) -> list[str]:
        """The names of those that it has."""
        return [name for name in HOOKS if hasattr(self.cls, name)]

    @property
    def wraps_tickets(self) -> bool:
        return hasattr(self.cls, handshake.WRAPPER)

    def start(self, log: Log, handshakes: Handshakes | None = None) -> object:
        """The hooks of a new object of the class, as the data plane calls them. Raises what the class raises."""
        policy = self.cls()
        own = ("director", "response", "connection_state")
        hooks = {name: getattr(policy, name) for name in own if hasattr(self.cls, name)}
        failed = Reports(log).failed
        return Hooks(
            handshake=handshakes.hooks(policy, failed) if handshakes is not None else None,
            **hooks,
            names=timeouts.NAMES,
            read_limit=read_limit,
            show_limit=show_limit,
            failed=failed,
        )


def load_all(wanted: Sequence[Wanted]) -> list[Policy]:
    """The policies of a configuration, found beside the configuration file or installed. Raises ConfigError."""
    if not wanted:
        return []
    modules = modules_of(wanted, Material())
    with modules.importing():
        found = import_all(wanted)
    modules.use()
    return found


def modules_of(wanted: Sequence[Wanted], material: Material) -> Modules:
    """What such policies are imported through."""
    return Modules(_directory(wanted[0][1]), material.get("modules", dict), reads=material.reads)


def import_all(wanted: Sequence[Wanted]) -> list[Policy]:
    """load_all() within Modules.importing()."""
    return [_load(name, at, OF_ROUTES if at_route else HOOKS, _directory(at)) for name, at, at_route in wanted]


def _directory(at: Place) -> Path:
    return Path(at.file).parent.absolute()


def load(name: str, at: Place) -> Policy:
    """One of them, for the whole server."""
    return load_all([(name, at, False)])[0]


def _load(name: str, at: Place, allowed: Collection[str], directory: Path) -> Policy:
    module_name, _, class_name = name.partition(":")
    try:
        _check_writers(module_name, directory, at)
        with _no_longer_than(IMPORT_SECONDS):
            module = importlib.import_module(module_name)
    except ConfigError:
        raise
    except ModuleNotFoundError as e:
        if e.name is not None and (module_name == e.name or module_name.startswith(f"{e.name}.")):
            raise at.error(
                f'there is no module "{module_name}"', f"put {module_name}.py into {directory}, or install it"
            ) from None
        raise at.error(f'"{module_name}" cannot be imported: {_brief(e)}', "install what it needs") from None
    except BaseException as e:
        raise at.error(f'"{module_name}" cannot be imported: {_brief(e)}', "correct the module") from None
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        classes = [k for k, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
        raise at.error(
            f'there is no class "{class_name}" in {module_name}', nearest(class_name, classes, "name one of")
        )
    _check(cls, at, allowed)
    return Policy(cls, at)


@contextlib.contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what is done within. Not in a thread, where others wait for it in theirs; and what is in
    one long call of C goes on to its end."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _check(cls: type, at: Place, allowed: Collection[str]) -> None:
    public = [name for name in dir(cls) if not name.startswith("_") and inspect.isroutine(getattr(cls, name))]
    for name in public:
        if name not in HOOKS:
            meant = nearest(name, list(HOOKS), "the hooks are")
            raise at.error(f"{cls.__name__}.{name} is no hook", f'{meant} (or let the name begin with "_")')
        if name not in allowed:
            raise at.error(
                f"{cls.__name__}.{name} is no hook of a route",
                f"leave it to server.hooks; here are: {', '.join(allowed)}",
            )
    if not public:
        raise at.error(f"{cls.__name__} has no hooks", f"define one of: {', '.join(allowed)}")
    for name in public:
        _check_method(cls, name, at)
    try:
        inspect.signature(cls).bind()
    except (TypeError, ValueError):
        raise at.error(
            f"{cls.__name__} cannot be made without arguments", "give the parameters of __init__ defaults"
        ) from None


def _check_method(cls: type, name: str, at: Place) -> None:
    arguments = HOOKS[name]
    method = getattr(cls, name)
    wanted = f"def {name}({', '.join(('self', *arguments))})"
    if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
        raise at.error(f"{cls.__name__}.{name} is a generator", f"write it as {wanted}, without yield")
    if inspect.iscoroutinefunction(method) and name not in MAY_WAIT:
        raise at.error(f"{cls.__name__}.{name} is async", f"write it as {wanted}: nobody would wait for it")
    bound = isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
    try:
        inspect.signature(method).bind(*(() if bound else ("self",)), *arguments)
    except (TypeError, ValueError):
        raise at.error(f"{cls.__name__}.{name} takes other arguments", f"write it as {wanted}") from None


def _check_writers(name: str, directory: Path, at: Place) -> None:
    """The master imports it, as root most often: nobody else may have written it."""
    if os.geteuid() != 0:
        return
    top = name.partition(".")[0]
    for path in (directory, directory / f"{top}.py", directory / top):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH and (path != directory or _is_beside(top, directory)):
            raise at.error(f"every user may write {path}, and root would run it", f"chmod o-w {path}")


def _is_beside(top: str, directory: Path) -> bool:
    return (directory / f"{top}.py").exists() or (directory / top).exists()


# Time limits, as a director writes and reads them.


def read_limit(name: str, value: object) -> int:
    """Milliseconds or bytes per second, 0 for none, from what a limit is set to. Raises ValueError or TypeError."""
    kind = timeouts.kind_of(name)
    if name == "header":
        raise ValueError("header: the head of this request has been read")
    if value is None:
        value = "none"
    if isinstance(value, str):
        try:
            return kind.read(value, Place("", name))
        except ConfigError as e:
            raise ValueError(f"{name}: {e.problem}; {e.remedy}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: a number, a string with a unit or None, not {type(value).__name__}")
    return _read_number(kind, name, value)


def _read_number(kind: Kind[int], name: str, value: float) -> int:
    scale = 1 if isinstance(kind, Rate) else 1000
    most = 1024**3 if isinstance(kind, Rate) else 7 * 86_400_000
    number = math.ceil(value * scale) if math.isfinite(value) else 0
    if not 1 <= number <= most:
        raise ValueError(f"{name}: {value} is not above 0 and at most {most // scale}; None is for no limit")
    return number


def show_limit(name: str, value: int) -> float | None:
    if value == 0:
        return None
    return value if isinstance(timeouts.kind_of(name), Rate) else value / 1000


# Faults.


class Reports:
    """Tells the operator of hooks that raised: what, and where, in one line; of one that repeats, now and then."""

    def __init__(self, log: Log, what: str = "hook ") -> None:
        self._tell = Seldom(log)
        self._what = what

    def failed(self, hook: str, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        fault = " ".join([hook, type(error).__name__, *places[-1:]])
        where = ", ".join(places[-8:]) or "no line"
        self._tell("error", f"{self._what}{hook}: {_brief(error)}; at {where}", fault)


def _brief(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
