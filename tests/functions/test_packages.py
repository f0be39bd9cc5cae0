"""Packages of decorated functions are installed once for each tool."""

import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler

import pytest
from prefect import flow

from ags_flows import in_sandbox
from ags_flows.errors import ConfigurationError
from ags_flows.functions.call import install_packages
from ags_flows.ownership import LIVE
from ags_flows.tasks import list_instances, list_snapshots
from ags_flows.testing import config_for, running_emulator
from tests.servers import serving

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def with_wheel(tmp_path):
    """A configuration of an emulator whose image has the wheel of a package that no index has."""
    make_wheel(tmp_path / "images" / "wheels_1" / "opt" / "wheels")
    with running_emulator(volumes=tmp_path) as emulator:
        emulator.transition("tool.create", "at_once")
        yield emulator, config_for(emulator)


WHEEL = "ags_demo_package-1.2-py3-none-any.whl"


def make_wheel(directory):
    directory.mkdir(parents=True)
    info = "ags_demo_package-1.2.dist-info"
    with zipfile.ZipFile(directory / WHEEL, "w") as wheel:
        wheel.writestr("ags_demo_package.py", "VERSION = '1.2'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: ags-demo-package\nVersion: 1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


class Index(BaseHTTPRequestHandler):
    """An index with one package, which breaks the first connections, or does not have the package yet."""

    def do_GET(self):
        if self.server.broken > 0:
            self.server.broken -= 1
            self.close_connection = True
            return
        body = (
            self.server.wheel.read_bytes() if self.path.endswith(".whl") else f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
        )
        self.send_response(404 if self.server.is_empty else 200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def index(tmp_path):
    make_wheel(tmp_path / "wheels")
    with serving(Index, wheel=tmp_path / "wheels" / WHEEL, broken=0, is_empty=False) as server:
        yield server


@pytest.fixture
def from_index(index):
    """The options of a function whose sandboxes reach the index."""
    url = f"http://127.0.0.1:{index.server_port}/simple"
    env = {"PIP_INDEX_URL": url, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_RETRIES": "1"}
    with running_emulator(host_ports=[index.server_port]) as emulator:
        emulator.transition("tool.create", "at_once")
        yield {
            "image": "python:3.11",
            "packages": ["ags-demo-package==1.2"],
            "env": env,
            "config": config_for(emulator),
        }


def wait_until_stopped(config):
    deadline = time.monotonic() + 15
    while any(one.status in LIVE for one in list_instances.fn(config=config)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels"}


@pytest.mark.parametrize(
    "action", [pytest.param("DescribeSandboxSnapshotList", marks=pytest.mark.long), "CreateSandboxSnapshot"]
)
def test_sandboxes_install_concurrently_where_no_snapshot_has_the_packages(with_wheel, monkeypatch, action):
    emulator, config = with_wheel
    emulator.fault("error", action, code="UnsupportedOperation", message="there are no snapshots", times=1000)
    # Where snapshots can be listed, one might be made of the first sandbox: the others wait for that one alone.
    alone = [1] if action == "CreateSandboxSnapshot" else []
    others = threading.Barrier(3 - len(alone), timeout=20)
    install = install_packages

    def install_beside_others(*args):
        if alone:
            alone.pop()
        else:
            others.wait()
        return install(*args)

    monkeypatch.setattr("ags_flows.functions.decorator.install_packages", install_beside_others)

    @in_sandbox(
        image="wheels:1", packages=["ags-demo-package==1.2"], env=OFFLINE, sandboxes=3, retries=0, config=config
    )
    def installed(pause):
        import time

        import ags_demo_package

        time.sleep(pause)
        return ags_demo_package.VERSION

    @flow
    def using():
        return installed.map([3.0] * 3).result()

    assert using() == ["1.2"] * 3
    assert len(list_instances.fn(config=config)) == 3
    wait_until_stopped(config)


@pytest.mark.parametrize("version", ["1.2", "9.9"])
def test_packages_are_installed_once_and_kept_in_a_snapshot(with_wheel, version):
    _, config = with_wheel

    @in_sandbox(
        image="wheels:1",
        packages=[f"ags-demo-package=={version}"],
        env=OFFLINE,
        sandboxes=2,
        config=config,
    )
    def installed(number):
        import os

        import ags_demo_package

        # A sandbox that starts from the snapshot has the same files.
        place = os.stat(ags_demo_package.__file__)
        return ags_demo_package.VERSION, place.st_mtime_ns

    @flow
    def using():
        return installed.map([1, 2, 3]).result()

    if version == "9.9":
        with pytest.raises(ConfigurationError, match=r"pip cannot install ags-demo-package==9.9 (.|\n)*No matching"):
            using()
    else:
        found = [*using(), *using()]
        assert {value for value, _ in found} == {"1.2"}
        assert len({made for _, made in found}) == 1
        assert len(list_snapshots.fn(config=config)) == 1
    wait_until_stopped(config)


def version():
    import ags_demo_package

    return ags_demo_package.VERSION


def test_a_short_outage_of_the_index_is_waited_for(index, from_index):
    # All connections of the first pip.
    index.broken = 2
    installed = in_sandbox(**from_index)(version)
    assert flow(lambda: installed(), name="using")() == "1.2"
    assert index.broken == 0
    wait_until_stopped(from_index["config"])


def test_packages_that_could_not_be_installed_are_tried_again_later(index, from_index, monkeypatch):
    installed = in_sandbox(**from_index)(version)

    @flow
    def using():
        index.is_empty = True
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="No matching distribution"):
                installed()
        index.is_empty = False
        with pytest.raises(ConfigurationError, match="No matching distribution"):
            installed()
        monkeypatch.setattr("ags_flows.functions.pool.BROKEN_FOR", 0.0)
        return installed()

    assert using() == "1.2"
    # While the error holds, no sandbox is started.
    assert len(list_instances.fn(config=from_index["config"])) == 2
    wait_until_stopped(from_index["config"])


def test_packages_that_cannot_be_installed_with_one_environment_can_be_with_another(with_wheel):
    _, config = with_wheel
    options = {"image": "wheels:1", "packages": ["ags-demo-package==1.2"], "config": config}
    without = in_sandbox(env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/none"}, **options)(version)
    installed = in_sandbox(env=OFFLINE, **options)(version)

    @flow
    def using():
        with pytest.raises(ConfigurationError, match="pip cannot install"):
            without()
        return installed()

    assert using() == "1.2"
    wait_until_stopped(config)
