"""A document of TOML, made of tables as `edge.schema.write_table` has them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Mapping[str, Any] | list[Mapping[str, Any]]]


def lines(document: Document) -> Iterator[str]:
    """Its lines. Tables within tables become keys with dots, arrays of them inline tables."""
    for name, content in document.items():
        for item in content if isinstance(content, list) else [content]:
            yield f"[[{name}]]" if isinstance(content, list) else f"[{name}]"
            yield from (f"{path} = {value}" for path, value in keys(item))
            yield ""


def keys(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The path and the value of each key."""
    for name, value in table.items():
        path = prefix + _key(name)
        if isinstance(value, dict) and value:
            yield from keys(value, f"{path}.")
        else:
            yield path, inline(value)


def inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {inline(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    # JSON's strings are TOML's, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else inline(name)
