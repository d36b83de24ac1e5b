"""Errors that end in one clear line for the operator, never in a traceback."""


from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from edge.settings import Bind


class EdgeError(Exception):
    """Something the operator can mend; its text is all they need."""

    exit_code: ClassVar = 1
    """A command's that ends by it."""


class ConfigError(EdgeError):
    """A fault in the configuration: in which file, at which key, what is wrong, and what to do."""

    def __init__(self, file: str, key: str, problem: str, remedy: str) -> None:
        super().__init__(file, key, problem, remedy)
        self.file = file
        self.key = key
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}" if self.key else self.file
        return f"{place}: {self.problem}; {self.remedy}"


class ListenError(EdgeError):
    """An address cannot be listened on."""


class AddressInUseError(ListenError):
    """Somebody listens on `bind`."""

    def __init__(self, message: str, bind: "Bind") -> None:
        super().__init__(message)
        self.bind = bind
