"""Every kind of file, in both directions, into new and into existing targets."""

import os
import socket
import stat
import uuid

import pytest

from ags_flows.cloud.data_planes import open_plane
from ags_flows.errors import TransferIncompleteError
from ags_flows.tasks import download_directory as download_task
from ags_flows.tasks import download_files
from ags_flows.tasks import upload_directory as upload_task
from ags_flows.transfer import download_directory, download_file, upload_directory, upload_file
from ags_flows.transfer.paths import quoted

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


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


SPECIAL = {"pipe": pipe, "socket": unix_socket}
MAKE_SPECIAL = {
    "pipe": "mkfifo -- {}",
    "socket": "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' {}",
}


@pytest.mark.parametrize("target", ["new", "existing"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_has_no_content_is_left_out_and_named_in_both_directions(sandbox, tmp_path, caplog, kind, target):
    config, instance = sandbox
    plane = open_plane(config.connection(), instance.id).plane
    remote, tree, back = f"/tmp/{uuid.uuid4().hex}", tmp_path / "tree", tmp_path / "back"
    (tree / "sub").mkdir(parents=True)
    for name in ("s", "excluded", "sub/s"):
        SPECIAL[kind](tree / name)
    text(tree / "f")
    if target == "existing":
        back.mkdir()
        plane.script(f"mkdir {remote}")
    sent = upload_task.fn(instance, tree, remote, exclude=["excluded"], config=config)
    assert (sent.files, sent.left_out) == (1, ("s", "sub/s"))
    making = "; ".join(MAKE_SPECIAL[kind].format(name) for name in ("s", "excluded", "'sub/-n\n'"))
    assert plane.script(f"cd {remote} && {making}").ok
    for pattern, prefix in ((f"{remote}/*", ""), (f"{remote[:-1]}?", f"{remote[5:]}/"), (remote, "")):
        place = back if pattern == remote else back / "matching"
        download = download_files if pattern != remote else download_task
        got = download.fn(instance, pattern, place, exclude=["excluded"], config=config)
        assert (got.files, got.left_out) == (1, (f"{prefix}s", f"{prefix}sub/-n\n"))
    assert sorted(os.listdir(back)) == ["f", "matching", "sub"] and os.listdir(back / "sub") == []
    assert caplog.text.count("left out, since devices, pipes, sockets and files of the kernel have no content") == 4


@pytest.mark.parametrize("links", ["keep", "skip"])
def test_links_that_lead_outside_are_kept_or_skipped_in_both_directions(plane, tree, tmp_path, links):
    target, before, back = f"/tmp/{uuid.uuid4().hex}", summary(tree), tmp_path / "back"
    inside = {name: entry for name, entry in before.items() if name not in ("absolute_link", "link_outside")}
    upload_directory(plane, tree, target, links=links)
    download_directory(plane, target, back)
    assert summary(back) == (before if links == "keep" else inside)
    upload_directory(plane, tree, target)
    download_directory(plane, target, tmp_path / "again", links=links)
    assert summary(tmp_path / "again") == (before if links == "keep" else inside)


CHANGES = {
    "rewritten": 'printf x | dd of="$F" bs=1 seek=10 conv=notrunc 2>/dev/null',
    "rewritten_and_longer": '{ printf x | dd of="$F" bs=1 seek=10 conv=notrunc; } 2>/dev/null; echo more >>"$F"',
    "shorter": 'truncate -s 5 "$F"',
    "longer": 'echo more >>"$F"',
    "replaced": 'mv "$F" "$F.old"; cp "$F.old" "$F"; rm "$F.old"',
}


@pytest.mark.parametrize("name", ["f", NAMES["quotes"], NAMES["newline"], NAMES["not_utf8"], "\\n\\041"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_its_directory_is_packed(plane, tmp_path, monkeypatch, change, name):
    remote, bin = f"/tmp/{uuid.uuid4().hex}", f"/tmp/{uuid.uuid4().hex}"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / name).write_bytes(bytes(range(256)) * 400)
    text(tmp_path / "tree" / "z")
    upload_directory(plane, tmp_path / "tree", remote)
    # This tar changes the file once, in the middle of its content.
    plane.write(f"{bin}/change", f"[ ! -e {bin}/done ] || exit 0; touch {bin}/done; cd {remote}\n{CHANGES[change]}\n")
    plane.write(
        f"{bin}/tar",
        '#!/bin/bash\ncase $* in *-cf*) set -- --checkpoint=2 --checkpoint-action=exec="bash '
        f'{bin}/change" "$@";; esac\nexec /bin/tar "$@"\n',
    )
    plane.script(f"chmod +x {bin}/tar")
    script, variable = plane.script, quoted(name)
    path = f"export F={variable}; export PATH={bin}:$PATH\n"
    monkeypatch.setattr(plane, "script", lambda given, **options: script(path + given, **options))
    back = tmp_path / "back"
    if change in ("longer", "replaced"):
        download_directory(plane, remote, back)
        assert (back / name).read_bytes() == bytes(range(256)) * 400
    else:
        with pytest.raises(TransferIncompleteError, match="changed as we read it|File shrank"):
            download_directory(plane, remote, back)
        assert not back.exists()
    assert plane.exists(f"{bin}/done")
    # The retry finds a file that does not change.
    assert download_directory(plane, remote, back).files == 2
