"""A release made of another one is one that pip takes: its digests, its name and its version agree."""

import io
import subprocess
import sys
import tarfile
import zipfile

from tests.hosts.versions import other_version

INIT = '"""What it is."""\n\n__version__ = "0.1.0"\n'
METADATA = "Metadata-Version: 2.1\nName: edge\nVersion: 0.1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheelhouse(directory):
    house = directory / "trixie"
    house.mkdir(parents=True)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as z:
        z.writestr("edge/__init__.py", INIT)
        z.writestr("edge/plane.py", "x = 1\n")
        for name, text in (("METADATA", METADATA), ("WHEEL", WHEEL), ("RECORD", "")):
            z.writestr(f"edge-0.1.0.dist-info/{name}", text)
    requirements = f"edge==0.1.0 --hash=sha256:{'0' * 64}\n"
    with tarfile.open(house / "wheels.tar", "w") as tar:
        for name, content in (
            ("./edge-0.1.0-py3-none-any.whl", data.getvalue()),
            ("requirements.txt", requirements.encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (house / "release").write_text("0.1.0-000000000000\n")
    (house / "sources").write_text("digest\n")
    return directory


def test_a_release_with_another_version(tmp_path):
    def change(files):
        files["edge/plane.py"] = b"x = 2\n"

    other = other_version(wheelhouse(tmp_path / "one"), tmp_path / "two", "0.2.0", change) / "trixie"
    assert (other / "release").read_text().startswith("0.2.0-")
    assert (other / "sources").read_text() == "digest\n"
    with tarfile.open(other / "wheels.tar") as tar:
        (tmp_path / "wheels").mkdir()
        for member in tar:
            (tmp_path / "wheels" / member.name).write_bytes(tar.extractfile(member).read())
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    options = ["--find-links", tmp_path / "wheels", "--require-hashes", "-r", tmp_path / "wheels/requirements.txt"]
    done = subprocess.run([*pip, *options, "--target", target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '__version__ = "0.2.0"' in (target / "edge/__init__.py").read_text()
    assert (target / "edge/plane.py").read_text() == "x = 2\n"
    assert (target / "edge-0.2.0.dist-info").is_dir()
