"""Transfers as steps of a session: what a job collects, and what Git sees of this package."""

import os

import pytest

from ags_flows import sandbox_session, tasks
from ags_flows.errors import ConfigurationError, TransferError

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


def test_arguments_of_a_session_are_checked_before_any_request(ags_emulator, ags_config):
    with sandbox_session("base", config=ags_config) as sandbox:
        before = ags_emulator.overview()["requests"]
        for field, wrong in (
            ("local", lambda: sandbox.upload(5, "x")),
            ("local", lambda: sandbox.upload("", "x")),
            ("remote", lambda: sandbox.upload(os.curdir, "")),
            ("remote", lambda: sandbox.download(5, "x")),
            ("remote", lambda: sandbox.download("", "x")),
            ("user", lambda: sandbox.download("x", "y", user="a b")),
            ("path", lambda: sandbox.write("", "x")),
            ("content", lambda: sandbox.write("x", 5)),
            ("limit", lambda: sandbox.read("x", limit=-1)),
            ("command", lambda: sandbox.run(5)),
            ("timeout", lambda: sandbox.run("true", timeout="5")),
            ("handle", lambda: sandbox.wait("x")),
            ("handle", lambda: sandbox.kill(None)),
            ("code", lambda: sandbox.run_code(b"1")),
            ("port", lambda: sandbox.url(-1)),
            ("name", lambda: sandbox.snapshot("")),
        ):
            with pytest.raises(ConfigurationError, match=f"^{field} "):
                wrong()
        assert ags_emulator.overview()["requests"] == before
