"""Host-side access to a sandbox's files while a program inside works against it."""

import os
import stat

import pytest

from ags_flows.emulator.sandbox.tree import Tree


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    tree = Tree(os.open(root, os.O_PATH | os.O_DIRECTORY), chown=os.geteuid() == 0)
    yield tree
    tree.close()


def test_a_link_that_takes_the_place_of_a_new_directory_is_not_followed(tree, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    make = os.mkdir

    def made_and_replaced(name, mode=0o777, *, dir_fd=None):
        make(name, mode, dir_fd=dir_fd)
        os.rmdir(name, dir_fd=dir_fd)
        os.symlink(outside, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", made_and_replaced)
    with pytest.raises(OSError):
        tree.make_directories("/made", (1000, 1000))

    assert stat.S_IMODE(outside.stat().st_mode) == 0o700
    assert outside.stat().st_uid == os.geteuid()


def test_directories_get_their_mode_whatever_the_umask(tree, tmp_path):
    before = os.umask(0o077)
    try:
        tree.make_directories("/a/b", (os.geteuid(), os.getegid()))
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "root" / "a" / "b").stat().st_mode) == 0o755
