"""The whole workflow for real, at the smallest sizes: train on dm_control pixels, draw, report; the page in a browser.

The browser is Debian's chromium, without network; where it is missing that test is skipped and says so.
"""

import json
import re
import shutil
import struct
import subprocess
import zlib

import pandas as pd
import pytest
import yaml

from tests.workflows.conftest import MEASURED

KEPT = {  # paper -> experiment -> the variants kept: what is left has every rule and every kind of run
    "planet": {
        "figure_4": ["rssm"],
        "table_1": ["rssm", "simulator"],
        "figure_10": ["rssm"],
        "figure_11": ["rssm"],
        "figure_12": [],
    },
    "dreamer": {"figure_4": ["dreamer"], "figure_5": ["dreamer"], "figure_9": ["atari"]},
}
FIGURES = [f"{paper}/{figure}" for paper, figures in KEPT.items() for figure in figures]
CORE = ("numerics", "estimators", *(["mutation"] if MEASURED else []))
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER_OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=15000", "--window-size=1400,1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(copy):
    """A sandbox after `make figures` (without its set-up), at sizes below smoke."""
    sandbox = copy()
    sandbox.keep(*KEPT)
    path = sandbox.path("workflows/profiles/smoke/scale.yaml")
    scale = yaml.safe_load(path.read_text())
    named = ("planet", "planet/simulator", "planet/simulator-*", "dreamer", "dreamer/atari*")
    scale["overrides"] = {key: scale["overrides"][key] for key in named}
    scale["grids"] = {"planet": {"figure_12": {**scale["grids"]["planet"]["figure_12"], "planner.horizon": [2]}}}
    del scale["left_out"]
    path.write_text(yaml.safe_dump(scale))
    for paper, figures in KEPT.items():
        path = sandbox.path(f"replications/{paper}/experiments.yaml")
        experiments = {name: entry for name, entry in yaml.safe_load(path.read_text()).items() if name in figures}
        for name, entry in experiments.items():
            entry["variants"] = {variant: entry["variants"][variant] for variant in figures[name]}
        path.write_text(yaml.safe_dump(experiments, sort_keys=False))
    command = ["bash", "workflows/scripts/run.sh", "smoke"]
    done = subprocess.run(
        command, cwd=sandbox.root, env=sandbox.environment, text=True, check=False, timeout=900,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    sandbox.said = done.stdout
    return sandbox


def test_every_figure_has_picture_numbers_and_sources(finished):
    for figure in FIGURES:
        folder = finished.path("results/smoke")
        for suffix in ("png", "pdf", "csv", "json"):
            assert (folder / f"{figure}.{suffix}").stat().st_size > 100
    folder = finished.path("results/smoke/planet")
    assert (folder / "table_1.md").is_file() and (folder / "figure_10.gif").is_file()
    assert finished.path("results/smoke/dreamer/figure_5.gif").is_file()
    game = json.loads(finished.path("results/smoke/dreamer/figure_9.json").read_text())["runs"]
    assert [(run["framework"], run["task"]) for run in game] == [("jax", "atari_pong"), ("torch", "atari_pong")]
    sources = json.loads((folder / "figure_4.json").read_text())
    assert [run["framework"] for run in sources["runs"]] == ["jax", "torch"], "both frameworks in one figure"
    for run in sources["runs"]:
        assert (run["task"], run["seed"], run["status"], run["scale"]) == ("cartpole_swingup", 0, "complete", "smoke")


def test_the_diff_page_compares_every_run_and_judges_none_of_this_scale(finished):
    cells = json.loads(finished.path("results/smoke/diff/matrix.json").read_text())
    assert {"torch", "jax", "torch against JAX"} <= {cell["column"] for cell in cells}
    assert {cell["paper"] for cell in cells} == {"planet", "dreamer"}
    assert {cell["verdict"] for cell in cells} == {"not comparable"}, "one seed each, and none of scale paper"
    assert "<details id=" in finished.path("results/smoke/diff/matrix.html").read_text()


def test_the_core_is_measured_within_its_tolerances(finished):
    folder = finished.path("results/smoke/core")
    for name in CORE:
        for suffix in ("png", "csv", "md"):
            assert (folder / f"{name}.{suffix}").stat().st_size > 100
    measured = pd.read_csv(folder / "numerics.csv")
    assert set(measured["library"]) == {"numpy", "torch", "jax"}
    assert "BEYOND TOLERANCE" not in (folder / "numerics_measured.log").read_text()


def test_the_end_says_where_figures_and_report_are(finished):
    tail = finished.said.rpartition("\n\n")[2].splitlines()
    assert any(line.startswith("figures: ") for line in tail)
    assert f"report:  {finished.path('results/smoke/report.html')}" in tail
    assert any("results/smoke/planet/figure_4.png" in line for line in tail)


def test_progress_is_seen_and_logged(finished):
    log = finished.path("results/smoke/planet/torch/rssm/cartpole_swingup/seed_0.log").read_text()
    assert "env steps" in log and "updates" in log
    assert log.strip().splitlines()[-1] in finished.said


def test_a_finished_workflow_has_nothing_to_do(finished):
    assert finished.planned() == {}


def test_the_report_is_one_page_with_everything_in_it(finished):
    page = finished.path("results/smoke/report.html").read_text(encoding="utf-8")
    loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']https?:|<link[^>]+href=[\"']https?:", page)
    assert loaded == [], "nothing is fetched from anywhere"
    assert "System Message" not in page, "a caption that is no valid reStructuredText"
    results = json.loads(re.search(r"var results = (\{.*?\});?\s*</script>", page, re.DOTALL)[1])
    for picture in (*FIGURES, *(f"core/{name}" for name in CORE)):
        record = results[f"results/smoke/{picture}.png"]
        assert re.match(r"data:image/png;[^,]*base64,iVBORw0KGgo", record["data_uri"])
        assert len(record["caption"]) > 100, "a caption that explains"
        assert record["labels"]["scale"] == "smoke"
    assert re.match(r"data:image/gif;[^,]*base64,R0lGOD", results["results/smoke/planet/figure_10.gif"]["data_uri"])


@pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium to look at the report in a browser")
def test_the_report_renders_in_a_browser_without_network(finished, tmp_path):
    address = finished.path("results/smoke/report.html").as_uri()
    command = [BROWSER, *BROWSER_OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"]
    dump = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    shown = re.findall(r'<img class="item[^>]*src="data:image/(png|gif);[^,"]*base64,(.{30})', dump.stdout, re.DOTALL)
    assert [kind for kind, _ in shown].count("png") == len(FIGURES) + len(CORE), "each figure is on the opening page"
    assert [kind for kind, _ in shown].count("gif") == 2
    assert all(not data.startswith("R0lGODlhAQABAAAAACH5") for _, data in shown), "the placeholder is gone"
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", address], capture_output=True, timeout=120, check=True)
    assert distinct_bytes(picture.read_bytes()) > 50, "the page is not blank"


def distinct_bytes(png: bytes) -> int:
    """How many different byte values the decompressed rows of a PNG have: 1 to 5 for an empty page."""
    data, at = b"", 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += size + 12
    return len(set(zlib.decompress(data)))
