"""Files that cannot be replaced are found before anything is written."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from ags_flows.errors import TransferError
from ags_flows.transfer import download_directory, download_file, upload_directory, upload_file, write_file
from ags_flows.transfer.local_targets import LocalTargets


@pytest.fixture
def mounted(tmp_path):
    """A file of a target that another file is mounted over."""
    (tmp_path / "host").write_text("mounted")
    (tmp_path / "target dir").mkdir()
    path = tmp_path / "target dir" / "m"
    path.write_text("old")
    if subprocess.run(["mount", "--bind", tmp_path / "host", path], capture_output=True).returncode:
        pytest.skip("files cannot be mounted here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def test_a_mounted_file_is_found_before_anything_is_written(plane, remote, mounted):
    plane.script(f"mkdir {remote}; for name in a m z; do echo new >{remote}/$name; done")
    (mounted.parent / "a").write_text("old")
    with pytest.raises(TransferError, match="/target dir/m is a mount point.*nothing was written. Mount the directory"):
        download_directory(plane, remote, mounted.parent)
    with pytest.raises(TransferError, match="/target dir/m is a mount point"):
        download_file(plane, f"{remote}/a", mounted)
    assert {path.name: path.read_text() for path in mounted.parent.iterdir()} == {"a": "old", "m": "mounted"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two users")
def test_a_file_of_another_user_in_a_sticky_directory_cannot_be_replaced():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        target = Path(name)
        target.chmod(0o1777)
        for name, owner in (("own", 4321), ("other", 0)):
            (target / name).write_text("old")
            os.chown(target / name, owner, owner)
        # As a process of another user.
        os.seteuid(4321)
        try:
            targets = LocalTargets(target)
            assert targets.kind_of(target / "own", False) == "other"
            with pytest.raises(TransferError, match="/other belongs to another user.*nothing was written"):
                targets.kind_of(target / "other", False)
        finally:
            os.seteuid(0)
        assert LocalTargets(target).kind_of(target / "other", False) == "other"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two users")
def test_a_file_of_another_user_in_a_sticky_directory_of_a_sandbox_is_found_first(plane, source, remote):
    plane.script(f"mkdir -m 1777 {remote}; echo old >{remote}/f; echo old >{remote}/g", user="root")
    (source / "a first one").write_text("new")
    for upload in (
        lambda **options: upload_directory(plane, source, remote, **options),
        lambda **options: upload_file(plane, source / "f", f"{remote}/f", **options),
        lambda **options: write_file(plane, f"{remote}/f", "new", **options),
    ):
        with pytest.raises(TransferError, match="f belongs to another user.*Nothing was written.*another target"):
            upload()
        assert plane.script(f"ls -A {remote}").stdout.split() == ["f", "g"]
        upload(user="root")
        plane.script(f"rm -r {remote}/*; echo old >{remote}/f; echo old >{remote}/g", user="root")


def test_a_mounted_file_of_a_sandbox_is_found_first(plane, source, remote, monkeypatch):
    """Nothing can be mounted in a sandbox of the emulator: the list of mount points is another file."""
    plane.script(rf"mkdir {remote}; echo old >{remote}/f\ 1; echo '1 2 0:1 /x {remote}/f\0401 rw - ext4 x rw' >mounts")
    (source / "f 1").write_text("new")
    (source / "a first one").write_text("new")
    script = plane.script
    monkeypatch.setattr(
        plane, "script", lambda text, **options: script(text.replace("/proc/self/mountinfo", "~/mounts"), **options)
    )
    for upload in (
        lambda: upload_directory(plane, source, remote),
        lambda: upload_file(plane, source / "f 1", f"{remote}/f 1"),
        lambda: write_file(plane, f"{remote}/f 1", "new"),
    ):
        with pytest.raises(TransferError, match="f 1 is a mount point, and cannot be replaced. Nothing was written"):
            upload()
    assert plane.script(f"ls -A {remote}; cat {remote}/*").stdout == "f 1\nold\n"
