"""Transfers as steps of a session: what a job collects, and what Git sees of this package."""

import os

import pytest

from ags_flows import sandbox_session, tasks
from ags_flows.cloud.data_planes import open_plane
from ags_flows.errors import ConfigurationError, TransferError, UnreachableError

FILES = {
    "missing": "no-such-file",
    "pattern": "no-such-*",
    "pipe": "kinds/pipe",
    "empty name": "",
    "zero byte": "a\0b",
    "unreadable": "/root",
}


def test_what_cannot_be_collected_is_logged_and_the_rest_is_collected(ags_config, tmp_path, caplog):
    (tmp_path / "in-the-way").write_text("x")
    (tmp_path / "long").mkdir()
    with sandbox_session("base", config=ags_config) as sandbox:
        sandbox.write("kinds/ok/f", "f")
        sandbox.run("mkfifo kinds/pipe")
        downloads = {remote: str(tmp_path / "got" / name) for name, remote in FILES.items()}
        downloads["kinds/ok"] = str(tmp_path / "in-the-way")
        downloads["kinds/ok/f"] = str(tmp_path / ("x" * 300))
        downloads["kinds/*"] = str(tmp_path / "in-the-way" / "below")
        downloads["kinds/o*"] = str(tmp_path / "ok")
        assert sandbox.collect(downloads, must=False) == {"kinds/o*": str(tmp_path / "ok")}
        assert (tmp_path / "ok" / "ok" / "f").read_text() == "f"
        with pytest.raises(TransferError, match="in-the-way is there already"):
            sandbox.collect({"kinds/ok": str(tmp_path / "in-the-way")})


def test_sessions_leave_out_what_is_excluded_and_git_ignores_this_package(ags_config, tmp_path):
    (tmp_path / "tree" / "node_modules").mkdir(parents=True)
    (tmp_path / "tree" / "node_modules" / "x").write_text("x")
    (tmp_path / "tree" / "f").write_text("f")
    (tmp_path / "link").symlink_to("tree")
    with sandbox_session("base", config=ags_config) as sandbox:
        sandbox.upload(tmp_path / "link", "tree", exclude=["node_modules/"])
        sandbox.upload(tmp_path / "tree" / "f", "f", exclude=["f"])
        assert sandbox.run("ls tree").stdout == "f\n"
        sandbox.download(".", tmp_path / "home", exclude=["f", ".*"])
        assert os.listdir(tmp_path / "home") == ["tree"]
        sandbox.download("f", tmp_path / "f", exclude=["f"], links="skip")
        added = sandbox.run("git init -q . && git add -A && git ls-files").stdout.split()
        assert "f" in added and not [name for name in added if name.startswith(".ags_flows")]


def test_a_name_that_is_not_utf8_is_refused_for_one_file_and_transferred_with_its_directory(ags_config, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / name).mkdir()
    (tmp_path / name / name).write_text("x")
    with sandbox_session("base", config=ags_config) as sandbox:
        sandbox.upload(tmp_path / name, name)
        sandbox.download(name, tmp_path / "directory")
        sandbox.download(f"{name}/c*", tmp_path / "pattern")
        for back in ("directory", "pattern"):
            assert (tmp_path / back / name).read_text() == "x"
        for refused in (
            lambda: sandbox.upload(tmp_path / name / name, "d/"),
            lambda: sandbox.upload(tmp_path / name / name, name),
            lambda: sandbox.write(name, "x"),
            lambda: sandbox.read(name),
            lambda: sandbox.list(name),
            lambda: sandbox.run("pwd", cwd=name),
            lambda: tasks.download_file.fn(sandbox.instance, name, tmp_path / "x", config=ags_config),
            lambda: tasks.remove_path.fn(sandbox.instance, name, config=ags_config),
        ):
            with pytest.raises((ConfigurationError, TransferError), match=r"valid UTF-8.*Transfer the directory"):
                refused()


def test_a_name_that_is_a_pattern_is_one_of_its_matches(ags_emulator, ags_config, tmp_path):
    with sandbox_session("base", config=ags_config) as sandbox:
        sandbox.run("mkdir out && cd out && touch '*.csv' a.csv b.csv c.txt")
        assert sandbox.download("out/*.csv", tmp_path / "tables").files == 3
        assert sorted(os.listdir(tmp_path / "tables")) == ["*.csv", "a.csv", "b.csv"]
        assert sandbox.download(r"out/\*.csv", tmp_path / "one").files == 1


@pytest.mark.parametrize(
    "remote", ["b/" * 2200 + "c", "b/" * 1990 + "c" * 30, "nn/mm/" + "a" * 300, "nn/é" + "é" * 127]
)
def test_a_path_that_is_too_long_leaves_no_directories(ags_emulator, ags_config, tmp_path, remote):
    (tmp_path / "f").write_text("x")
    with sandbox_session("base", config=ags_config) as sandbox:
        for call in (
            lambda: sandbox.upload(tmp_path / "f", remote),
            lambda: sandbox.upload(tmp_path, remote),
            lambda: sandbox.write(remote, "x"),
        ):
            with pytest.raises(ConfigurationError, match="^(remote|path) must be a path .* at most 255 in each name"):
                call()
        assert sandbox.run("ls").stdout == ""


def test_a_file_is_not_replaced_by_a_download_into_it(ags_emulator, ags_config, tmp_path):
    (tmp_path / "file").write_text("here")
    with sandbox_session("base", config=ags_config) as sandbox:
        sandbox.write("F", "there")
        with pytest.raises(TransferError, match="file.*Not a directory"):
            sandbox.download("F", f"{tmp_path}/file/")
        sandbox.download("F", f"{tmp_path}/new/")
    assert (tmp_path / "file").read_text() == "here" and (tmp_path / "new" / "F").read_text() == "there"


def test_a_file_that_becomes_shorter_while_it_is_read_ends_the_connection(ags_emulator, ags_config, caplog):
    with sandbox_session("base", config=ags_config) as sandbox:
        sandbox.run("head -c 50000000 /dev/zero >shorter")
        pieces = open_plane(ags_config.connection(), sandbox.instance.id).plane.read_stream("shorter")
        next(pieces)
        sandbox.run("truncate -s 5 shorter")
        with pytest.raises(UnreachableError):
            list(pieces)
    assert "Exception in ASGI application" not in caplog.text
