"""Certificates, which change while a configuration stays: the master watches their files, has OCSP responses fetched,
brings what is new to all workers at once, and tells what will expire."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from edge.certificates import stapling
from edge.certificates.certs import Identity
from edge.certificates.expiry import Expiry
from edge.certificates.ocsp_fetch import Target
from edge.certificates.serving import CERTIFICATES
from edge.change.generation import Generation, Generations
from edge.change.material import in_pieces
from edge.change.rollout import SENDING_SECONDS, Commit, Rollout
from edge.errors import EdgeError
from edge.logs.logline import Log
from edge.processes.companion import Companion
from edge.worker import EdgeWorker

# A new certificate waits this long for the OCSP response without which clients refuse it.
STAPLE_SECONDS: Final = 60.0

Begin = Callable[[str, Sequence[bytes], Commit], Rollout]
"""Makes the rollout of a kind and of pieces that every worker prepares, and of what the master itself has."""


class Renewal:
    """`fetcher` is the companion that fetches."""

    def __init__(self, generations: Generations, fetcher: Companion, begin: Begin, log: Log) -> None:
        self._generations = generations
        self._fetcher = fetcher
        self._begin = begin
        self._log = log
        self._expiry = Expiry()
        self._rollout: Rollout | None = None
        self._renewing: dict[int, Identity] = {}
        """The certificates that it brings."""
        self._awaited: tuple[Identity, ...] = ()
        """Certificates that are not served before there is an OCSP response for them,"""
        self._await_until = 0.0
        """or this moment has come."""
        self._stapled_for: tuple[Sequence[Identity], Sequence[Identity]] = ((), ())
        self._targets: tuple[Target, ...] = ()
        """What is to be fetched for those."""
        self._fetch_at = 0.0
        self._due = math.inf

    @property
    def under_way(self) -> bool:
        """Whether certificates are on their way to the workers."""
        return self._rollout is not None

    @property
    def due(self) -> float:
        """When the next step is to come (monotonic), if nothing else is under way."""
        return self._due

    def forget(self) -> None:
        """Another configuration holds."""
        self._awaited = ()

    def step(self, generation: Generation, members: Iterable[EdgeWorker]) -> None:
        """One step onwards; `members` are the workers that are to have what is new."""
        served = generation.prepared.serving.identities
        if self._rollout:
            self._due = time.monotonic() + SENDING_SECONDS if self._rollout.sending else math.inf
            self._step(self._rollout, generation, members)
            return
        if changed := generation.watch.look(served, lambda message: self._log("error", message)):
            self._renew(generation, changed)
        self._due = generation.watch.due

    def _renew(self, generation: Generation, changed: dict[int, Identity]) -> None:
        if self._awaits_staples(generation, changed):
            return
        try:
            own = generation.prepared.serving.prepare(changed)
        except EdgeError as e:
            self._log("error", f"{e}; the certificate before goes on")
            generation.watch.refuse(changed)
            return
        for identity in changed.values():
            self._log("info", f"{identity.at.path}: is new, and prepared by the workers")
        self._renewing = changed
        self._rollout = self._begin(CERTIFICATES, in_pieces(list(changed.items())), own)

    def _awaits_staples(self, generation: Generation, changed: dict[int, Identity]) -> bool:
        """Whether certificates that clients refuse without an OCSP response wait for theirs, for a while: the watch
        offers them again."""
        directory = generation.staples
        lacking = tuple(i for i in changed.values() if i.must_staple and not stapling.is_there(directory, i))
        now = time.monotonic()
        if not lacking or (self._awaited and now > self._await_until):
            self._awaited = ()
            return False
        if not self._awaited:
            self._await_until = now + STAPLE_SECONDS
        self._awaited = lacking
        return True

    def _step(self, rollout: Rollout, generation: Generation, members: Iterable[EdgeWorker]) -> None:
        if not rollout.step(members):
            return
        renewed, self._rollout, self._renewing = self._renewing, None, {}
        if rollout.fault:
            self._log("error", f"the certificates before go on: {rollout.fault}")
            if rollout.broken:
                generation.watch.refuse(renewed)
            return
        generation.watch.accept(renewed)
        for identity in renewed.values():
            self._log("info", f"{identity.at.path}: {identity.describe()}")
            for warning in identity.warnings:
                self._log("warning", warning)

    def keep_fetching(self, generation: Generation) -> None:
        """Has OCSP responses fetched for the certificates that are served, and for those that wait for theirs."""
        identities = generation.prepared.serving.identities
        if self._stapled_for[0] is not identities or self._stapled_for[1] is not self._awaited:
            self._stapled_for = (identities, self._awaited)
            self._targets = stapling.targets((*identities, *self._awaited))
        if time.monotonic() < self._fetch_at:
            return
        if self._targets and not generation.staples.is_dir():
            try:
                self._generations.staples.make(generation.prepared.settings, generation.owner)
            except EdgeError as e:
                self._log("error", f"no OCSP responses are fetched: {e}")
                self._fetch_at = time.monotonic() + STAPLE_SECONDS
                return
        fetching = stapling.Fetching(self._targets, generation.staples, generation.owner, self._log)
        self._fetcher.keep(fetching if self._targets else None)

    def tell_expiry(self, generation: Generation) -> None:
        self._expiry.look(generation.prepared.serving.identities, self._log)
