"""A configuration that takes the place of another in a worker while it serves.

The master has validated it, and sends what it is made of. The worker prepares all of it beside its loop: certificates,
routes, upstreams, policies imported afresh. Then the loop exchanges one for the other between two turns: what has begun
keeps what it has, what begins later finds the new.
"""

import dataclasses
import gc
import itertools
import os
import pickle
import socket
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge import plane
from edge.certificates.stapling import Staples
from edge.change.material import Handed, Material, from_pieces, in_pieces
from edge.change.rollout import Parcel
from edge.garbage import young_alone
from edge.logs.logline import Log
from edge.observe.labels import Labels
from edge.plane import Prepared
from edge.settings import Bind, Settings

if TYPE_CHECKING:
    from edge.change.generation import Generation
    from edge.worker import EdgeWorker

CONFIGURATION: Final = "configuration"
"""The kind of rollout."""


@dataclasses.dataclass(frozen=True, slots=True)
class Announcement:
    """What the master says of a configuration, beside the other pieces and the descriptors."""

    number: int
    settings: Settings
    """Without certificates, which are among what was read, and without routes, which are the next pieces: there may be
    many of either."""
    route_pieces: int
    label_pieces: int
    """Those after them: all labels that there are (`edge.observe.labels`), in order."""
    staples: Path
    opened: tuple[Hashable, ...]
    """What the first descriptors are."""
    added: tuple[Bind, ...]
    """The listeners whose sockets the others are."""


def announce(
    generation: "Generation", labels: Labels, material: Material, added: Sequence[Bind]
) -> tuple[list[bytes], "Callable[[EdgeWorker], Sequence[int]]"]:
    """In the master: the pieces, of which the announcement is the first, and each worker's descriptors."""
    settings = generation.prepared.settings
    routes, named = in_pieces(settings.route), in_pieces(list(labels))
    opened = material.descriptors()
    announcement = Announcement(
        number=generation.number,
        settings=dataclasses.replace(settings, route=(), certificate=()),
        route_pieces=len(routes),
        label_pieces=len(named),
        staples=generation.staples,
        opened=tuple(key for key, _ in opened),
        added=tuple(added),
    )

    def descriptors(worker: "EdgeWorker") -> list[int]:
        return [*(fd for _, fd in opened), *(worker.slot.sockets[bind].fileno() for bind in added)]

    return [pickle.dumps(announcement), *routes, *named, *material.pieces()], descriptors


@dataclasses.dataclass(slots=True)
class Successor:
    """In a worker: a configuration that is ready. `take_over` is the worker's, and cannot fail."""

    announcement: Announcement
    prepared: Prepared
    hooks: Any
    staples: Staples
    sockets: dict[Bind, socket.socket]
    """Those that it listens on in addition."""
    take_over: "Callable[[Successor], None]"

    def commit(self) -> None:
        self.take_over(self)


def prepare(
    parcel: Parcel,
    *,
    build: Callable[[Settings, Labels, Prepared, Material], Prepared],
    before: Prepared,
    report: Log,
    take_over: Callable[[Successor], None],
) -> Successor:
    """Beside the worker's loop. Raises what makes it impossible."""
    with young_alone():  # or it would look through all that is made here, in one go, while the loop waits
        return _prepare(parcel, build, before, report, take_over)


def _prepare(
    parcel: Parcel,
    build: Callable[[Settings, Labels, Prepared, Material], Prepared],
    before: Prepared,
    report: Log,
    take_over: Callable[[Successor], None],
) -> Successor:
    pieces = iter(parcel.pieces)
    announcement: Announcement = pickle.loads(next(pieces))  # noqa: S301  # the master's, who made this process
    routes = from_pieces(itertools.islice(pieces, announcement.route_pieces))
    labels = Labels()
    for kind, label in from_pieces(itertools.islice(pieces, announcement.label_pieces)):
        labels.index(kind, label)
    settings = dataclasses.replace(announcement.settings, route=tuple(routes))
    handed = len(announcement.opened)
    opened = dict(zip(announcement.opened, parcel.descriptors[:handed], strict=True))
    handed_over = Handed(from_pieces(pieces), opened)
    prepared = build(settings, labels, before, handed_over)
    hooks = plane.make_hooks(prepared, report)
    staples = Staples(prepared.serving, announcement.staples)
    staples.look()
    sockets = {
        bind: socket.socket(fileno=os.dup(fd))
        for bind, fd in zip(announcement.added, parcel.descriptors[handed:], strict=True)
    }
    # What routes and certificates are made of has been used; a worker need not keep it. It goes one by one: all of it
    # at once would take longer than a turn may.
    prepared = dataclasses.replace(prepared, settings=announcement.settings)
    del settings
    while routes:
        routes.pop()
    handed_over.forget()
    return Successor(announcement, prepared, hooks, staples, sockets, take_over)


def dropped_groups(before: Prepared, after: Prepared) -> list[Any]:
    """The data plane's groups of upstreams that nobody chooses any more."""
    kept = {id(group.made) for group in after.groups.values()}
    return [group.made for group in before.groups.values() if id(group.made) not in kept]


def dismantle(parts: list[Any]) -> None:
    """Lets go of what the list holds, beside the loop: to free a configuration takes longer than a turn may. The caller
    keeps nothing of it."""
    try:
        threading.Thread(target=_dismantle, args=(parts,), name="dismantle", daemon=True).start()
    except RuntimeError:  # there is no thread to be had
        _dismantle(parts)


def _dismantle(parts: list[Any]) -> None:
    policies = False
    while parts:
        part = parts.pop()
        if isinstance(part, Prepared):
            policies = policies or part.modules is not None
            parts += part.router.take_apart()
        while part and isinstance(part, list):
            part.pop()
        while part and isinstance(part, dict):
            part.popitem()
        del part
    if policies:
        gc.collect()  # modules and their functions refer to one another
