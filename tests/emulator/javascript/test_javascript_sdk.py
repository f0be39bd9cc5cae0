"""The JavaScript SDK of E2B from npm against the emulator; the scenarios are in `scenarios.mjs`."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ags_flows.emulator import Emulator

HERE = Path(__file__).parent
SCENARIOS = re.findall(r"^export async function (\w+)", (HERE / "scenarios.mjs").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The directory of the npm packages; they are installed once and kept outside of the work tree."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=60).stdout.strip()
    if int(re.match(r"v(\d+)", version)[1]) < 20:
        pytest.skip(f"the e2b package needs node 20 or later, this is {version}")
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]["e2b"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ags-flows" / f"e2b-{wanted}"
    if not cache.exists():
        place = tmp_path_factory.mktemp("npm")
        shutil.copy(HERE / "package.json", place)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1"]
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            pytest.skip("npm install took longer than two minutes")
        if done.returncode:
            pytest.skip(f"npm cannot install e2b {wanted}: {done.stderr.strip()[-300:]}")
        cache.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, also if another process installs it at the same time.
        beside = cache.with_name(f"{cache.name}.{os.getpid()}")
        shutil.copytree(place, beside, symlinks=True)
        try:
            beside.rename(cache)
        except OSError:
            shutil.rmtree(beside)
    return cache / "node_modules"


@pytest.fixture(scope="module")
def outcomes(packages, tmp_path_factory):
    place = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "run.mjs", "scenarios.mjs"):
        shutil.copy(HERE / name, place)
    (place / "node_modules").symlink_to(packages)
    with Emulator() as emulator:
        done = subprocess.run(
            ["node", "run.mjs"],
            cwd=place,
            env={"PATH": os.environ["PATH"], **emulator.environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        instances = emulator.overview()["regions"][emulator.region]["instances"]
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), [each for each in instances if each["Status"] not in ("STOPPED", "STOPPING")]


@pytest.mark.xdist_group("javascript")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_javascript_sdk_works_against_the_emulator(outcomes, scenario):
    assert outcomes[0][scenario] == ""


@pytest.mark.xdist_group("javascript")
def test_nothing_is_left_running(outcomes):
    assert outcomes[1] == []
