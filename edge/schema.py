"""How settings are declared and read: kinds of values, tables of knobs, errors that name file and key.

A table is a frozen dataclass whose fields are made by `knob`: a kind (which reads and checks the TOML
value), an explanation and a default in the form the user would write. From the same declarations come
the typed settings, the errors and the reference page, so that they cannot differ.
"""

import dataclasses
import difflib
import functools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar, cast, dataclass_transform, overload

from edge.errors import ConfigError

T = TypeVar("T")
C = TypeVar("C")

Milliseconds = int

REQUIRED: Final = object()
_KNOB: Final = "knob"
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: a file and the path of its key, such as `listener[0].timeouts.header`."""

    file: str
    path: str = ""

    def key(self, name: str) -> "Place":
        shown = _shown_key(name)
        return Place(self.file, f"{self.path}.{shown}" if self.path else shown)

    def item(self, index: int) -> "Place":
        return Place(self.file, f"{self.path}[{index}]")

    def error(self, problem: str, remedy: str) -> ConfigError:
        return ConfigError(self.file, self.path, problem, remedy)


@functools.lru_cache(256)
def _shown_key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


class Kind(ABC, Generic[T]):
    """A kind of value. `text` names it in the reference."""

    text: str

    @abstractmethod
    def read(self, value: object, at: Place) -> T:
        """The value checked and converted; ConfigError otherwise."""

    def write(self, value: Any) -> object:
        """What `read` makes such a value of: how a user could have written it."""
        return str(value) if isinstance(value, Path) else value


@dataclasses.dataclass(frozen=True, slots=True)
class Knob:
    kind: Kind[Any]
    doc: str
    default: object
    otherwise: str


@overload
def knob(kind: Kind[T], doc: str, *, default: None, otherwise: str = ...) -> T | None: ...
@overload
def knob(kind: Kind[T], doc: str, *, default: object = ...) -> T: ...
def knob(kind: Kind[T], doc: str, *, default: object = REQUIRED, otherwise: str = "none") -> T | None:
    """A field of a table. The default is what the user would write; None means that nothing stands for it, which the
    reference calls `otherwise`."""
    metadata = {_KNOB: Knob(kind, doc, default, otherwise)}
    if default is REQUIRED:
        return cast(T, dataclasses.field(metadata=metadata))
    if default is None:
        return dataclasses.field(default=None, metadata=metadata)
    # What is read never changes, so that all tables that leave the key out have one and the same.
    read = functools.cache(lambda: kind.read(default, Place("default")))
    return dataclasses.field(default_factory=read, metadata=metadata)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(knob, dataclasses.field))
def table(cls: type[T]) -> type[T]:
    """Makes a class of knobs a table."""
    made = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)
    _pickle_quickly(made)
    return made


def _pickle_quickly(cls: type) -> None:
    """What dataclasses have for this asks for the names of all fields each time: of a reload with many routes that was
    a quarter, in each worker."""
    names = tuple(f.name for f in dataclasses.fields(cls))
    puts = tuple(getattr(cls, name).__set__ for name in names)

    def get(self: object) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in names])

    def put(self: object, state: tuple[object, ...]) -> None:
        for set_one, value in zip(puts, state, strict=True):
            set_one(self, value)

    made = cast(Any, cls)
    made.__getstate__, made.__setstate__ = get, put


def knobs(cls: type) -> Iterator[tuple[str, Knob]]:
    yield from _knobs(cls).items()


@functools.cache
def _knobs(cls: type) -> Mapping[str, Knob]:
    return {f.name: f.metadata[_KNOB] for f in dataclasses.fields(cls) if _KNOB in f.metadata}


def read_table(cls: type[T], value: object, at: Place, **extra: object) -> T:
    """The TOML table as a `cls`. `extra` fills fields that are no knobs."""
    if not isinstance(value, dict):
        raise at.error(
            f"{show(value)} is not a table", f"write it as a table with keys of: {', '.join(dict(knobs(cls)))}"
        )
    known = _knobs(cast(Any, cls))
    for name in value:
        if name not in known:
            raise at.key(name).error("unknown key", nearest(name, known, "remove it; the keys here are"))
    found = dict(extra)
    for name, k in known.items():
        if name in value:
            found[name] = k.kind.read(value[name], at.key(name))
        elif k.default is REQUIRED:
            doc = k.doc if k.doc[:2].isupper() else k.doc[0].lower() + k.doc[1:]  # "PEM file: ..."
            raise at.key(name).error("is missing", f"add it ({k.kind.text}): {doc}")
    return cls(**found)


def write_table(value: object) -> dict[str, Any]:
    """A table as a user could have written it, with all defaults; what has none and is not given is left out."""
    found = [(name, k, getattr(value, name)) for name, k in knobs(type(value))]
    return {name: k.kind.write(it) for name, k, it in found if it is not None or k.default is not None}


def nearest(name: str, known: Sequence[str] | Mapping[str, Any], otherwise: str) -> str:
    """A remedy: the known name that was probably meant, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"{otherwise}: {', '.join(known) or 'none'}"


def show(value: object) -> str:
    """A TOML value for an error: short, and on one line whatever stands in it."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# Kinds of values.


class Text(Kind[str]):
    """A string that matches a pattern as a whole."""

    def __init__(self, text: str = "string", pattern: str = r"[^\x00-\x1f\x7f]+", remedy: str = "") -> None:
        self.text = text
        self._pattern = re.compile(pattern)
        self._remedy = remedy or f"write a {text} in quotes, not empty"

    def read(self, value: object, at: Place) -> str:
        if isinstance(value, str) and self._pattern.fullmatch(value):
            return value
        raise at.error(f"{show(value)} is not a {self.text}", self._remedy)


class Choice(Kind[str]):
    """One of a few strings."""

    def __init__(self, *options: str) -> None:
        self.text = " or ".join(f'"{o}"' for o in options)
        self._options = options

    def read(self, value: object, at: Place) -> str:
        if isinstance(value, str) and value in self._options:
            return value
        raise at.error(f"{show(value)} is not known", f"write {self.text}")


class Named(Kind[int]):
    """A number that users write by its name; with `any_case`, names being in lower case then, however they like."""

    def __init__(self, text: str, numbers: dict[str, int], *, any_case: bool = False) -> None:
        self.text = text
        self._numbers = numbers
        self._any_case = any_case

    def write(self, value: int) -> object:
        return next(name for name, number in self._numbers.items() if number == value)

    def read(self, value: object, at: Place) -> int:
        name = value.lower() if self._any_case and isinstance(value, str) else value
        if isinstance(name, str) and name in self._numbers:
            return self._numbers[name]
        raise at.error(f"{show(value)} is not a known {self.text}", nearest(str(value), self._numbers, "choose of"))


class Integer(Kind[int]):
    """A whole number within bounds. "none" is 0, where it is allowed."""

    def __init__(self, low: int, high: int, none: bool = False) -> None:
        self.text = 'integer or "none"' if none else "integer"
        self._low = low
        self._high = high
        self._none = none

    def write(self, value: int) -> object:
        return "none" if self._none and not value else value

    def read(self, value: object, at: Place) -> int:
        if value == "none" and self._none:
            return 0
        if isinstance(value, bool) or not isinstance(value, int):
            raise at.error(f"{show(value)} is not an integer", "write a whole number without quotes")
        if not self._low <= value <= self._high:
            raise at.error(f"{value} is out of range", f"choose between {self._low} and {self._high}")
        return value


class Boolean(Kind[bool]):
    text = "boolean"

    def read(self, value: object, at: Place) -> bool:
        if isinstance(value, bool):
            return value
        raise at.error(f"{show(value)} is neither true nor false", "write true or false, without quotes")


class _Quantity(Kind[int]):
    """A number with a unit, as an integer of the smallest unit. "none" is 0, where it is allowed."""

    units: ClassVar[dict[str, int]]
    noun: str
    examples: str

    def __init__(self, low: str, high: str, none: bool = False) -> None:
        self.text = f'{self.noun} or "none"' if none else self.noun
        self._none = none
        self._bounds = (low, high)
        self._low = self._number(low)
        self._high = self._number(high)

    def _number(self, value: str) -> int:
        m = re.fullmatch(r"([0-9]{1,12})\s?([A-Za-z]+)", value)
        if not m or m[2] not in self.units:
            return -1
        return int(m[1]) * self.units[m[2]]

    def write(self, value: int) -> object:
        if self._none and not value:
            return "none"
        number, unit = next((value // n, unit) for unit, n in reversed(self.units.items()) if not value % n)
        return f"{number}{unit}"

    def read(self, value: object, at: Place) -> int:
        if value == "none":
            if self._none:
                return 0
            raise at.error('"none" is not possible here', f"choose between {self._bounds[0]} and {self._bounds[1]}")
        number = self._number(value) if isinstance(value, str) else -1
        if number < 0:
            examples = f'{self.examples}, or "none"' if self._none else self.examples
            raise at.error(f"{show(value)} is not a {self.noun}", f"write a number with its unit, such as {examples}")
        if not self._low <= number <= self._high:
            raise at.error(f"{show(value)} is out of range", f"choose between {self._bounds[0]} and {self._bounds[1]}")
        return number


class Duration(_Quantity):
    """A duration, in milliseconds."""

    units: ClassVar = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    noun = "duration"
    examples = '"250ms", "5s", "2m" or "1h"'

    def __init__(self, low: str = "1ms", high: str = "7d", none: bool = False) -> None:
        super().__init__(low, high, none)


class Size(_Quantity):
    """A size in bytes."""

    units: ClassVar = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
    noun = "size"
    examples = '"512B", "14KiB" or "1MiB"'


class Rate(Kind[int]):
    """A size per second, in bytes per second. "none" is 0."""

    text = 'rate or "none"'
    _size = Size("1B", "1GiB")

    def write(self, value: int) -> object:
        return f"{self._size.write(value)}/s" if value else "none"

    def read(self, value: object, at: Place) -> int:
        if value == "none":
            return 0
        size, per, second = value.partition("/") if isinstance(value, str) else ("", "", "")
        if per + second != "/s":
            raise at.error(f"{show(value)} is not a rate", 'write a size per second, such as "1KiB/s", or "none"')
        return self._size.read(size, at)


class File(Kind[Path]):
    """A path; a relative one starts at the directory of the configuration file."""

    text = "path"

    def read(self, value: object, at: Place) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise at.error(f"{show(value)} is not a path", "write a file's path in quotes")
        if value.startswith("/"):
            return Path(value)
        try:
            path = Path(value).expanduser()
        except RuntimeError:
            user = value.partition("/")[0]
            raise at.error(f"{show(value)}: no home directory is known for {user}", "write the whole path") from None
        return Path(at.file).parent.absolute() / path


class ListOf(Kind[tuple[T, ...]]):
    """An array of one kind, without repetitions."""

    def __init__(self, kind: Kind[T], empty: bool = False) -> None:
        self.text = f"array of {kind.text}"
        self._kind = kind
        self._empty = empty

    def write(self, value: tuple[T, ...]) -> object:
        return [self._kind.write(item) for item in value]

    def read(self, value: object, at: Place) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise at.error(f"{show(value)} is not an array", f"write it in brackets: [{show(value)}]")
        if not value and not self._empty:
            raise at.error("is empty", f"write at least one {self._kind.text}")
        found: dict[T, None] = {}
        for i, item in enumerate(value):
            one = self._kind.read(item, at.item(i))
            if one in found:
                raise at.item(i).error(f"{show(item)} stands here twice", "remove one of them")
            found[one] = None
        return tuple(found)


class Section(Kind[T]):
    """A table within a table. "none" is None, where it is allowed. With `short`, the value of that key stands for a
    table in which all else has its default."""

    def __init__(self, cls: type[T], none: bool = False, short: str = "") -> None:
        self.cls = cls
        self.text = 'table or "none"' if none else f"table, or its `{short}`" if short else "table"
        self._none = none
        self._short = short

    def write(self, value: T) -> object:
        return "none" if value is None else write_table(value)

    def read(self, value: object, at: Place) -> T:
        if self._none and value == "none":
            return cast(T, None)  # its field says so
        if self._short and not isinstance(value, dict):
            dict(knobs(self.cls))[self._short].kind.read(value, at)  # its errors name the key that is there
            value = {self._short: value}
        return read_table(self.cls, value, at)


class Variants(Kind[T]):
    """A plain value, or a table whose key `by` names which of several tables it is."""

    def __init__(self, plain: Kind[Any], by: str, tables: dict[str, type]) -> None:
        self.text = f"{plain.text} or table"
        self.tables = tables
        self._plain = plain
        self._by = by

    def write(self, value: T) -> object:
        return write_table(value) if isinstance(value, tuple(self.tables.values())) else self._plain.write(value)

    def read(self, value: object, at: Place) -> T:
        if not isinstance(value, dict):
            return cast(T, self._plain.read(value, at))
        known = " or ".join(f'"{name}"' for name in self.tables)
        if self._by not in value:
            raise at.key(self._by).error("is missing", f"add {self._by} = {known}")
        name = value[self._by]
        if not isinstance(name, str) or name not in self.tables:
            raise at.key(self._by).error(f"{show(name)} is not known", f"write {known}")
        return cast(T, read_table(self.tables[name], value, at))


class Sections(Kind[tuple[T, ...]]):
    """An array of tables, `[[name]]`; at least one, unless it may be empty."""

    text = "array of tables"

    def __init__(self, cls: type[T], empty: bool = False) -> None:
        self.cls = cls
        self._empty = empty

    def write(self, value: tuple[T, ...]) -> object:
        return [write_table(item) for item in value]

    def read(self, value: object, at: Place) -> tuple[T, ...]:
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise at.error("is not an array of tables", f"write [[{at.path}]] with two brackets on each side")
        if not value and not self._empty:
            raise at.error("is empty", f"write at least one [[{at.path}]]")
        return tuple(read_table(self.cls, v, at.item(i)) for i, v in enumerate(value))


class Parsed(Kind[T]):
    """A string given to a function, which raises ValueError with what is wrong. `unparse` is its inverse."""

    def __init__(self, text: str, parse: Callable[[str], T], remedy: str, unparse: Callable[[T], str] = str) -> None:
        self.text = text
        self._parse = parse
        self._remedy = remedy
        self._unparse = unparse

    def write(self, value: T) -> object:
        return self._unparse(value)

    def read(self, value: object, at: Place) -> T:
        if not isinstance(value, str):
            raise at.error(f"{show(value)} is not a string", self._remedy)
        try:
            return self._parse(value)
        except ValueError as e:
            raise at.error(f"{show(value)}: {e}", self._remedy) from None


# The reference page.


def reference(cls: type) -> Iterator[str]:
    """Markdown lines for the top-level table `cls`: a heading and a table of keys for each of its sections."""
    for name, k in knobs(cls):
        kind = k.kind
        if not isinstance(kind, Section | Sections):
            raise TypeError(f"{cls.__name__}.{name}: only sections stand at the top")
        heading = f"[[{name}]]" if isinstance(kind, Sections) else f"[{name}]"
        yield from ("", f"## `{heading}`", "", k.doc, "", "| key | type | default | meaning |", "|---|---|---|---|")
        yield from _rows(kind.cls, "")


def _rows(cls: type, prefix: str) -> Iterator[str]:
    for name, k in knobs(cls):
        if isinstance(k.kind, Section):
            yield f"| `{prefix}{name}` | {k.kind.text} | {_default(k)} | {k.doc} |"
            yield from _rows(k.kind.cls, f"{prefix}{name}.")
        else:
            yield f"| `{prefix}{name}` | {k.kind.text} | {_default(k)} | {k.doc} |"
            if isinstance(k.kind, Variants):
                for cls_of_variant in k.kind.tables.values():
                    yield from _rows(cls_of_variant, f"{prefix}{name}.")


def _default(k: Knob) -> str:
    if k.default is REQUIRED:
        return "required"
    if k.default is None:
        return k.otherwise
    return f"`{json.dumps(k.default)}`"
