"""Packages of decorated functions are installed once for each tool."""

import threading
import time
import zipfile

import pytest
from prefect import flow

from ags_flows import in_sandbox
from ags_flows.errors import ConfigurationError
from ags_flows.functions.call import install_packages
from ags_flows.ownership import LIVE
from ags_flows.tasks import list_instances, list_snapshots
from ags_flows.testing import config_for, running_emulator

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def with_wheel(tmp_path):
    """A configuration of an emulator whose image has the wheel of a package that no index has."""
    name = tmp_path / "images" / "wheels_1" / "opt" / "wheels" / "ags_demo_package-1.2-py3-none-any.whl"
    name.parent.mkdir(parents=True)
    info = "ags_demo_package-1.2.dist-info"
    with zipfile.ZipFile(name, "w") as wheel:
        wheel.writestr("ags_demo_package.py", "VERSION = '1.2'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: ags-demo-package\nVersion: 1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    with running_emulator(volumes=tmp_path) as emulator:
        emulator.transition("tool.create", "at_once")
        yield emulator, config_for(emulator)


def wait_until_stopped(config):
    deadline = time.monotonic() + 15
    while any(one.status in LIVE for one in list_instances.fn(config=config)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels"}


@pytest.mark.parametrize("action", ["DescribeSandboxSnapshotList", "CreateSandboxSnapshot"])
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
