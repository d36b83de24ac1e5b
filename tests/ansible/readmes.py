"""The tables of variables in the roles' READMEs, made of their argument specs: `python -m tests.ansible.readmes` writes
them between the two marks of each file."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "ansible"
ROLES = sorted(path.name for path in (COLLECTION / "roles").iterdir())
BEGIN, END = "<!-- variables: made by `python -m tests.ansible.readmes` -->\n", "<!-- end of variables -->\n"


def specs(role: str) -> dict:
    """Entry points by name, as meta/argument_specs.yml has them."""
    return yaml.safe_load((COLLECTION / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]


def defaults(role: str) -> dict:
    return yaml.safe_load((COLLECTION / "roles" / role / "defaults/main.yml").read_text())


def table(role: str) -> str:
    """Each variable once, in the order of the specs."""
    lines = ["| variable | type | default | |", "|---|---|---|---|"]
    seen = set()
    for point in specs(role).values():
        for name, option in point["options"].items():
            if name not in seen and "See the entry point" not in str(option["description"]):
                seen.add(name)
                lines += _rows(name, option)
    return "\n".join(lines) + "\n"


def _rows(name: str, option: dict, of: str = "") -> list[str]:
    kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
    default = "required" if option.get("required") else ""
    if "default" in option:
        default = f"`{_written(option['default'])}`".replace("|", "\\|")
    rows = [f"| {of}`{name}` | {kind} | {default} | {_text(option)} |"]
    for inner, inner_option in option.get("options", {}).items():
        rows += _rows(inner, inner_option, f"{of}`{name}` · ")
    return rows


def _written(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _text(option: dict) -> str:
    description = option["description"]
    text = " ".join(description) if isinstance(description, list) else description
    if "choices" in option:
        text += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
    return re.sub(r"C\((.*?)\)", lambda m: f"`{m[1]}`", text.strip()).replace("|", "\\|")


def filled(role: str) -> str:
    """The README with its table as it is to be."""
    text = (COLLECTION / "roles" / role / "README.md").read_text()
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the README of {role} has no place for its variables")
    return f"{before}{BEGIN}\n{table(role)}\n{END}{after}"


if __name__ == "__main__":
    for role in ROLES:
        (COLLECTION / "roles" / role / "README.md").write_text(filled(role))
