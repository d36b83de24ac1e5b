"""Filters for edge's configuration: `edge_config | edge.server.to_toml` is the text of edge.toml."""

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping

from ansible.errors import AnsibleFilterError

DOCUMENTATION = """
name: to_toml
author: The edge project
version_added: 0.1.0
short_description: A dictionary as a document of TOML
description:
  - Each key becomes one of TOML with the same name and value; tables keep their order.
  - Values of the first level that are dictionaries become C([tables]), lists of dictionaries C([[arrays of tables]]),
    everything below stands inline, as the documentation of edge writes it.
options:
  _input:
    description: The configuration.
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show what will be written
  ansible.builtin.debug:
    msg: "{{ {'server': {'workers': 2}} | edge.server.to_toml }}"
"""

RETURN = """
_value:
  description: The document, which ends with a line's end.
  type: str
"""


class FilterModule:
    """What Ansible looks for."""

    def filters(self):
        return {"to_toml": to_toml}


def to_toml(document):
    """The text of a document. Raises AnsibleFilterError with the key of what TOML cannot say."""
    if not isinstance(document, Mapping):
        raise AnsibleFilterError(f"to_toml: a {type(document).__name__} is no document; it takes a dictionary")
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping) -> Iterator[str]:
    tables = {name: value for name, value in document.items() if _is_table(value) or _is_array_of_tables(value)}
    first = [f"{_key(name, '')} = {_value(value, name)}" for name, value in document.items() if name not in tables]
    yield from first
    for i, (name, value) in enumerate(tables.items()):
        array = not _is_table(value)
        for j, table in enumerate(value if array else [value]):
            if first or i or j:
                yield ""
            yield f"[[{_key(name, '')}]]" if array else f"[{_key(name, '')}]"
            path = f"{name}[{j}]" if array else name
            yield from (f"{_key(key, path)} = {_value(item, f'{path}.{key}')}" for key, item in table.items())


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_table, value))


def _value(value: object, path: str) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value, path)
        case int():
            if not -(1 << 63) <= value < 1 << 63:
                raise AnsibleFilterError(f"to_toml: {path}: {value} has more than 64 bits")
            return str(int(value))
        case float():
            return _float(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case Mapping():
            items = (f"{_key(name, path)} = {_value(item, f'{path}.{name}')}" for name, item in value.items())
            return "{ " + ", ".join(items) + " }" if value else "{}"
        case list() | tuple():
            return "[" + ", ".join(_value(item, f"{path}[{i}]") for i, item in enumerate(value)) + "]"
        case None:
            raise AnsibleFilterError(f"to_toml: {path}: TOML has no null; leave the key out")
    raise AnsibleFilterError(f"to_toml: {path}: TOML has nothing for a {type(value).__name__}")


def _string(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise AnsibleFilterError(f"to_toml: {path}: is no Unicode text") from None
    # JSON's strings are TOML's, but for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _float(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(float(value))


def _key(name: object, path: str) -> str:
    if not isinstance(name, str):
        raise AnsibleFilterError(f"to_toml: {path or 'the document'}: the key {name!r} is no string; quote it")
    return str(name) if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name, path)
