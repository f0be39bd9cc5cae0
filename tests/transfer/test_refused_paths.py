"""Devices and pipes are refused before anything is read or replaced."""

import os

import pytest

from ags_flows import tasks
from ags_flows.errors import ConfigurationError, NotFoundError, TransferError


@pytest.fixture
def instance(ags_config):
    return tasks.wait_instance_running.fn(tasks.start_instance.fn("base", config=ags_config), config=ags_config)


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_is_not_sent_and_not_replaced(instance, ags_config, pipe):
    with pytest.raises(TransferError):
        tasks.upload_file.fn(instance, pipe, "f", config=ags_config)
    tasks.write_file.fn(instance, "f", "content", config=ags_config)
    with pytest.raises(TransferError, match="pipe is a device, a pipe or a socket"):
        tasks.download_file.fn(instance, "f", pipe, config=ags_config)
    assert pipe.is_fifo()


@pytest.mark.parametrize("path", [".", "./", "/", "~", "~/", "a/.."])
def test_the_whole_home_is_not_removed(instance, ags_config, path):
    with pytest.raises(ConfigurationError, match="^path: "):
        tasks.remove_path.fn(instance, path, config=ags_config)


@pytest.mark.parametrize("pattern", ["nowhere", "nowhere/*.csv", "[a", "{a,b}.txt"])
def test_a_pattern_that_matches_nothing_is_not_found(instance, ags_config, tmp_path, pattern):
    with pytest.raises(NotFoundError, match="nothing matches|there is no directory"):
        tasks.download_files.fn(instance, pattern, tmp_path / "found", config=ags_config)
    assert not (tmp_path / "found").exists()
