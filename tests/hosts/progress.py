"""What is told while hosts are worked on: which step, on which hosts, for how long; and the table at the end."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

STILL_SECONDS = 20
"""Where nothing can be written over, a step that lasts says so this often."""


class Progress:
    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.rows: list[tuple[str, str, float]] = []
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {text}")

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator["Step"]:
        step = Step(self, what)
        status = self.console.status(what) if self.console.is_terminal else None
        if status:
            status.start()
        else:
            self.say(what)
        step.status = status
        how = "failed"
        try:
            yield step
            how = "done"
        finally:
            if status:
                status.stop()
            self.say(f"{what}: {how} in {step.seconds:.1f} s")

    def note(self, what: str, figure: str, seconds: float) -> None:
        """A row of the table."""
        self.rows.append((what, figure, seconds))
        self.say(f"[bold]{what}[/bold]: {figure}")

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column, justify in (("stage", "left"), ("result", "left"), ("s", "right")):
            table.add_column(column, justify=justify)
        for what, figure, seconds in self.rows:
            table.add_row(what, figure, f"{seconds:.1f}")
        return table


class Step:
    def __init__(self, progress: Progress, what: str) -> None:
        self.progress = progress
        self.what = what
        self.status = None
        self._began = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def now(self, text: str) -> None:
        """What is being done."""
        if self.status:
            self.status.update(f"{self.what} [dim]{self.seconds:.0f} s: {text}[/dim]")
        elif time.monotonic() - self._told > STILL_SECONDS:
            self._told = time.monotonic()
            self.progress.say(f"    {text}")
