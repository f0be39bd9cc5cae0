"""Transfers in images whose users must not write to /tmp, or that have none."""

import itertools

import pytest

from ags_flows.cloud.data_planes import open_plane
from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.transfer import (
    download_directory,
    download_file,
    download_matching,
    read_file,
    upload_directory,
    upload_file,
    write_file,
)


@pytest.fixture
def closed(ags_config, request):
    """A separate sandbox, after a script of root."""
    control = ags_config.control_plane()
    instance = control.start_instance(tool="base", timeout="1h")
    wait_instance_running(control, instance.id, timeout=30)
    plane = open_plane(ags_config.connection(), instance.id).plane
    assert plane.script(request.param, user="root").ok
    return plane


@pytest.mark.parametrize("closed", ["chmod 755 /tmp", "rmdir /tmp || mv /tmp /moved"], indirect=True)
def test_each_transfer_needs_no_tmp_that_the_user_may_write(closed, source, tmp_path):
    for number in range(2):
        (source / "f").write_text(str(number))
        upload_file(closed, source / "f", "up/f")
        upload_directory(closed, source, "up")
        write_file(closed, "up/written", b"written")
        assert read_file(closed, "up/written", 100) == b"written"
        assert download_file(closed, "/proc/version", tmp_path / "version").size > 10
        names = (tmp_path / f"{name}{number}" for name in itertools.count())
        download_file(closed, "up/f", one := next(names))
        assert one.read_text() == str(number)
        for download in (
            lambda target: download_directory(closed, "up", target),
            lambda target: download_directory(closed, "up", target, exclude=["x"]),
            lambda target: download_matching(closed, "up/*", target),
        ):
            download(target := next(names))
            assert (target / "f").read_text() == str(number) and (target / "data" / "a").read_text() == "a"
    left = closed.script("find /tmp ~ -name '.ags_flows-*' ! -name '*instance*'", user="root").stdout
    assert left == ""
