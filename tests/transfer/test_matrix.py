"""Every kind of file, in both directions, into new and into existing targets; and every kind of login profile."""

import os
import shlex
import stat
import time
import uuid

import pytest

from ags_flows.transfer import download_directory, download_file, download_matching, upload_directory, upload_file

USERS = ("user", "root")


def text(path):
    path.write_text("content\n")


def read_only(path):
    text(path)
    path.chmod(0o444)


def executable(path):
    path.write_text("#!/bin/sh\necho ran\n")
    path.chmod(0o755)


def empty(path):
    path.touch()


def sparse(path):
    with path.open("wb") as file:
        file.truncate(3_000_000)
        file.seek(1_500_000)
        file.write(b"middle")


def dated(year):
    def make(path):
        text(path)
        when = (year - 1970) * 31_556_952
        os.utime(path, (when, when))

    return make


def link_to(aim):
    return lambda path: path.symlink_to(aim)


FILES = {
    "text": text,
    "read_only": read_only,
    "executable": executable,
    "empty": empty,
    "sparse": sparse,
    "year_1970": dated(1970),
    "year_1960": dated(1960),
    "year_2128": dated(2128),
    "year_2500": dated(2500),
}
LINKS = {
    "link_to_file": link_to("beside"),
    "link_to_directory": link_to("sub"),
    "dangling_link": link_to("nothing"),
    "absolute_link": link_to("/usr/bin/env"),
    "link_outside": link_to("../../elsewhere"),
}
NAMES = {
    "space": "a b",
    "quotes": 'it\'s "q" `x` $HOME \\',
    "newline": "line\nline\n",
    "dash": "-rf",
    "two_dashes": "--help",
    "tilde": "~user",
    "unicode": "你好",
    "long": "x" * 255,
    "not_utf8": os.fsdecode(b"caf\xe9 \xff"),
    "glob": "*[a]?",
}


def summary(directory):
    """Return type, mode and content of each entry of a local directory; of a link what it leads to."""
    found = {}
    for at, directories, files in os.walk(directory):
        for name in directories + files:
            path = os.path.join(at, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = (stat.S_IMODE(status.st_mode), file.read())
            else:
                content = stat.S_IMODE(status.st_mode)
            found[os.path.relpath(path, directory)] = content
    return found


@pytest.fixture
def tree(tmp_path):
    """A directory with every kind of entry under every kind of name."""
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    text(tree / "beside")
    (tree / "sub" / "private").mkdir(0o700)
    for name, make in {**FILES, **LINKS}.items():
        make(tree / name)
    for name in NAMES.values():
        text(tree / name)
        (tree / "sub" / name).mkdir()
        text(tree / "sub" / name / name)
    return tree


@pytest.mark.parametrize("user", USERS)
def test_a_directory_with_every_kind_of_entry_comes_back_as_it_went(plane, tree, tmp_path, user):
    target, before = f"/tmp/{uuid.uuid4().hex}", summary(tree)
    files = sum(not isinstance(entry, int) for entry in before.values())
    # Into a new target, an existing one with all of it, and an existing one with other content and links.
    assert upload_directory(plane, tree, target, user=user).unchanged == 0
    again = upload_directory(plane, tree, target, user=user)
    assert (again.files, again.unchanged) == (files, files - len(LINKS))
    script = 'cd $T && for F in *; do [ -d "$F" ] || ln -sfn /nowhere -- "./$F"; done && printf x >./sub/-rf/-rf'
    assert plane.script(f"T={target}\n{script}", user=user).ok
    assert upload_directory(plane, tree, target, user=user).unchanged < files
    back = tmp_path / "back"
    for _ in range(2):
        assert download_directory(plane, target, back, user=user).files == files
        assert summary(back) == before
    assert os.stat(back / "year_2128").st_mtime == os.stat(tree / "year_2128").st_mtime
    assert sorted(os.listdir(tmp_path)) == ["back", "tree"]
    assert plane.script(f"find {target} /tmp -maxdepth 2 -name '.ags_flows-*' -user {user}").stdout == ""


@pytest.mark.parametrize("target", ["new", "existing", "link"])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_every_kind_comes_back_as_it_went(plane, tmp_path, kind, target):
    FILES[kind](tmp_path / "f")
    remote, back = f"/tmp/{uuid.uuid4().hex}", tmp_path / "back"
    if target == "existing":
        plane.script(f"echo other >{remote}; chmod 400 {remote}")
        back.write_text("other")
        back.chmod(0o400)
    if target == "link":
        plane.script(f"echo kept >{remote}.aim; ln -s {remote}.aim {remote}")
        (tmp_path / "aim").write_text("kept")
        back.symlink_to("aim")
    upload_file(plane, tmp_path / "f", remote)
    download_file(plane, remote, back)
    assert back.read_bytes() == (tmp_path / "f").read_bytes()
    assert back.stat().st_mode == (tmp_path / "f").stat().st_mode
    assert upload_file(plane, tmp_path / "f", remote).unchanged == 1
    if target == "link":
        # One rule for both directions: a link at the target is replaced.
        assert plane.read(f"{remote}.aim") == b"kept\n"
        assert (tmp_path / "aim").read_text() == "kept"
        assert not back.is_symlink()


PROFILES = {
    "prints": "echo Welcome to this image; echo warning >&2",
    "changes_directory": "cd /tmp",
    "takes_seconds": "sleep 20",
    "stops_at_errors": "set -eu; shopt -s failglob",
    "ends": "exit 3",
    "exports": "export HOME=/nowhere IFS=/ LANG=xx_XX LC_ALL=xx_XX PATH=/nowhere TAR_OPTIONS=-v; umask 077",
    "aliases": "shopt -s expand_aliases; alias tar=false mv=false; cd() { false; }; export -f cd",
}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("profile", PROFILES)
def test_no_login_profile_changes_a_transfer(plane, tmp_path, profile, user):
    home, name = {"user": "/home/user", "root": "/root"}[user], f"p-{uuid.uuid4().hex}"
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.csv").write_text("a")
    (source / "b.csv").write_text("b")
    quoted = shlex.quote(PROFILES[profile])
    started = time.monotonic()
    try:
        plane.script(f"echo {quoted} >~/.bash_profile; cp ~/.bash_profile ~/.bashrc", user=user)
        upload_file(plane, source / "a.csv", f"{name}/file/a.csv", user=user)
        upload_directory(plane, source, f"{name}/tree", user=user)
        upload_directory(plane, source, f"{name}/tree", user=user)
        assert plane.read(f"{home}/{name}/file/a.csv", user=user) == b"a"
        assert plane.stat(f"{home}/{name}/tree/b.csv", user=user).mode == 0o644
        download_file(plane, f"{name}/file/a.csv", tmp_path / "a.csv", user=user)
        download_directory(plane, f"{name}/tree", tmp_path / "tree", user=user)
        download_matching(plane, f"{name}/t*/*.csv", tmp_path / "matching", user=user)
    finally:
        plane.script("rm -f ~/.bash_profile ~/.bashrc", user=user)
    assert time.monotonic() - started < 20
    assert (tmp_path / "a.csv").read_text() == "a"
    assert summary(tmp_path / "tree") == summary(tmp_path / "matching" / "tree") == summary(source)
