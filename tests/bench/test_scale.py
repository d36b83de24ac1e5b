"""The curves of what grows: how they are drawn, and each of them measured once with few of everything."""

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.scale import site, sweeps
from bench.scale.curves import Curve, Panel, curves_chart, decades, short
from bench.scale_command import CHARTS, chart, scale
from edge import config, plane

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
CPUS = sorted(os.sched_getaffinity(0))
KEPT = ROOT / "docs" / "scale.json"


def run(*arguments):
    command = [sys.executable, "-m", "bench", "scale", "-t", "0.2", "--edge-cpu", str(CPUS[0])]
    command += ["--load-cpu", str(CPUS[1]), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)


@pytest.mark.skipif(shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") is None, reason="nginx is not there")
@pytest.mark.skipif(len(CPUS) < 2, reason="edge and the clients want a CPU each")
@pytest.mark.parametrize("what", list(sweeps.SWEEPS))
def test_a_small_curve(what, tmp_path):
    done = run(what, "--sizes", "3", "--json", tmp_path / "found.json", "--svg", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["curves"]) == set(sweeps.SWEEPS[what])
    for curve, (point,) in found["curves"].items():
        assert done.stdout.count(f"{curve} 3: ") == 1
        assert point["n"] == 3
        drawn = {key for panel in CHARTS[what][1] for source, key, _ in panel[2].values() if source == curve}
        assert drawn <= set(point)
        assert all(value >= 0 for key, value in point.items() if not key.endswith("_bytes")), point
    ET.parse(tmp_path / f"scale-{what}.svg")


@pytest.mark.skipif(not KEPT.exists(), reason="docs/scale.json is not there: python -m bench scale makes it")
def test_what_is_kept_is_what_is_drawn():
    """docs/ has the figures, and the curves that `--draw` makes of them."""
    found = json.loads(KEPT.read_text())
    for name in CHARTS:
        assert (KEPT.parent / f"scale-{name}.svg").read_text() == chart(name, found), "python -m bench scale --draw ..."


def test_a_chart():
    curves = [Curve("a <b>", [(1, 0.5), (10, 40), (100_000, 1234)]), Curve("nothing", []), Curve("zero", [(1, 0)])]
    root = ET.fromstring(curves_chart("Title", "subtitle", "things", [Panel("One", "ms", curves)] * 3))
    lines = root.findall(f"{SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in lines[0].get("points").split()]
    assert len(points) == 3
    assert points == sorted(points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True), "up is more"
    assert len([t for t in root.iter(f"{SVG}title") if t.text == "a <b>: 1.23k with 100,000"]) == 3
    width, height = (float(root.get(side)) for side in ("width", "height"))
    assert all(0 < x < width and 0 < y < height for x, y in points)


@pytest.mark.parametrize(
    ("values", "powers"), [([1], (0, 1)), ([10, 1000], (1, 3)), ([0.5, 40], (-1, 2)), ([100_000], (5, 6))]
)
def test_axes_end_at_powers_of_ten(values, powers):
    assert decades(values) == powers


def test_numbers_on_axes():
    assert [short(value) for value in (0, 0.05, 1, 1500, 20_000, 3e6, 1e9)] == [
        "0", "0.05", "1", "1.5k", "20k", "3M", "1G",
    ]  # fmt: skip


def test_certificates_are_made_once(tmp_path):
    made = site.Certificates(tmp_path)
    made.make(3)
    before = made.chain(2).read_bytes()
    made.make(3)
    assert made.chain(2).read_bytes() == before
    made.issue(2, 3)
    assert made.chain(2).read_bytes() != before


def test_every_route_is_one_for_its_url(tmp_path):
    certificates = site.Certificates(tmp_path)
    certificates.make(1)
    text = '[[listener]]\nbind = ["127.0.0.1:1"]\n' + certificates.tables(1)
    text += '[[upstream]]\nname = "backend"\nservers = ["127.0.0.1:1"]\n' + site.routes(300)
    router = plane.prepare(config.parse(text, str(tmp_path / "edge.toml")), bytes(32)).router
    for i in range(300):
        host, _, path = site.route(i)[1].removeprefix("https://").partition("/")
        assert router.match(host.encode(), b"/" + path.encode()) is router.routes[i]


@pytest.mark.parametrize(
    "options", [["--draw"], ["--sizes", "0"], ["--sizes", "a"], ["--edge-cpu", "0", "--load-cpu", "0"], ["cats"]]
)
def test_bad_options(options):
    assert CliRunner().invoke(scale, options).exit_code in (1, 2)
