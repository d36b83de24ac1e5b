"""Releases that differ from one that was built: in their version, and in what a test changes in their Python.

Compiling takes minutes; a release of the same sources with another number is made of the wheel that is there.
"""

import base64
import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

Files = dict[str, bytes]


def other_version(wheelhouse: Path, other: Path, version: str, change: Callable[[Files], None] | None = None) -> Path:
    """A wheelhouse with that version for each Debian release that the first has, and `change(edge's files)` made."""
    for house in sorted(path.parent for path in wheelhouse.glob("*/release")):
        (other / house.name).mkdir(parents=True)
        shutil.copy(house / "sources", other / house.name)
        _make(house, other / house.name, version, change)
    return other


def _make(house: Path, other: Path, version: str, change: Callable[[Files], None] | None) -> None:
    with tarfile.open(house / "wheels.tar") as tar:
        files = {m.name.removeprefix("./"): tar.extractfile(m).read() for m in tar if m.isfile()}
    (name,) = [name for name in files if name.startswith("edge-") and name.endswith(".whl")]
    old = name.split("-")[1]
    wheel = _wheel(files.pop(name), old, version, change)
    new_name = name.replace(f"edge-{old}-", f"edge-{version}-")
    files[new_name] = wheel
    lines = files["requirements.txt"].decode().splitlines(keepends=True)
    own = f"edge=={version} --hash=sha256:{hashlib.sha256(wheel).hexdigest()}\n"
    text = "".join(own if line.startswith("edge==") else line for line in lines)
    files["requirements.txt"] = text.encode()
    with tarfile.open(other / "wheels.tar", "w") as tar:
        for file, data in sorted(files.items()):
            member = tarfile.TarInfo(file)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (other / "requirements.txt").write_text(text)
    (other / "release").write_text(f"{version}-{hashlib.sha256(text.encode()).hexdigest()[:12]}\n")


def _wheel(wheel: bytes, old: str, version: str, change: Callable[[Files], None] | None) -> bytes:
    """The wheel with another version (PEP 427: its name, its directory, its METADATA, and RECORD, which lists all)."""
    was, info = f"edge-{old}.dist-info/", f"edge-{version}.dist-info/"
    with zipfile.ZipFile(io.BytesIO(wheel)) as z:
        files = {m.filename.replace(was, info): z.read(m) for m in z.infolist() if not m.is_dir()}
    metadata = files[f"{info}METADATA"].decode()
    files[f"{info}METADATA"] = metadata.replace(f"\nVersion: {old}\n", f"\nVersion: {version}\n", 1).encode()
    own = f'__version__ = "{old}"'.encode()
    assert own in files["edge/__init__.py"]
    files["edge/__init__.py"] = files["edge/__init__.py"].replace(own, f'__version__ = "{version}"'.encode())
    if change:
        change(files)
    del files[f"{info}RECORD"]
    record = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items()]
    files[f"{info}RECORD"] = "".join([*record, f"{info}RECORD,,\n"]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        for name, data in files.items():
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
