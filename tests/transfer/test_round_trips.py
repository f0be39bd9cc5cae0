"""Random trees, names and contents come back byte by byte."""

import os
import shutil
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ags_flows.errors import NotFoundError, TransferError
from ags_flows.transfer import (
    download_directory,
    download_file,
    download_matching,
    read_file,
    upload_directory,
    upload_file,
    write_file,
)

QUICK = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def is_name(name):
    return name not in (b".", b"..") and len(name) <= 255 and not name.startswith(b".ags_flows")


NAMES = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda name: name.replace(b"/", b"-").replace(b"\0", b"0")),
    st.text(min_size=1, max_size=60).map(
        lambda name: name.encode(errors="replace").replace(b"/", b"-").replace(b"\0", b"0")
    ),
    st.sampled_from([b"-", b"--", b"-rf", b"~", b" ", b"\n", b"'", b'"', b"$(id)", b"*", b"\\", b"\xff", b"a b\n"]),
).filter(is_name)
CONTENTS = st.one_of(st.binary(max_size=2_000), st.integers(0, 300_000).map(bytes))
TREES = st.recursive(
    st.one_of(CONTENTS, NAMES.map(lambda aim: ("link", aim))),
    lambda children: st.dictionaries(NAMES, children, max_size=4),
    max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


def write(at, tree):
    os.mkdir(at)
    for name, entry in tree.items():
        path = at + b"/" + name
        if isinstance(entry, dict):
            write(path, entry)
        elif isinstance(entry, tuple):
            os.symlink(entry[1], path)
        else:
            with open(path, "wb") as file:
                file.write(entry)


def read(at):
    tree = {}
    for name in os.listdir(at):
        path = at + b"/" + name
        if os.path.islink(path):
            tree[name] = ("link", os.readlink(path))
        elif os.path.isdir(path):
            tree[name] = read(path)
        else:
            with open(path, "rb") as file:
                tree[name] = file.read()
    return tree


@QUICK
@given(first=TREES, second=TREES)
def test_trees_come_back_byte_by_byte(plane, tmp_path, first, second):
    remote = f"/tmp/{uuid.uuid4().hex}"
    places = [tmp_path / uuid.uuid4().hex for _ in range(3)]
    write(os.fsencode(places[0]), first)
    write(os.fsencode(places[1]), first)
    files = upload_directory(plane, places[0], remote).files
    assert download_directory(plane, remote, places[2]).files == files
    assert read(os.fsencode(places[2])) == first
    # Again, over what is there; then something else, which no old content shines through.
    upload_directory(plane, places[0], remote)
    download_directory(plane, remote, places[1])
    assert read(os.fsencode(places[1])) == first
    shutil.rmtree(places[0])
    plane.script(f"rm -rf {remote}/* {remote}/.[!.]* {remote}/..?*")
    write(os.fsencode(places[0]), second)
    upload_directory(plane, places[0], remote)
    shutil.rmtree(places[1])
    download_directory(plane, remote, places[1], exclude=["no-such-name-at-all/"])
    assert read(os.fsencode(places[1])) == second
    for place in places:
        shutil.rmtree(place)


@QUICK
@given(name=NAMES, content=CONTENTS)
def test_files_come_back_byte_by_byte(plane, tmp_path, name, content):
    local, back = tmp_path / uuid.uuid4().hex, tmp_path / uuid.uuid4().hex
    local.mkdir()
    path = local / os.fsdecode(name)
    path.write_bytes(content)
    directory = f"/tmp/{uuid.uuid4().hex}"
    try:
        remote = f"{directory}/{name.decode()}"
    except UnicodeDecodeError:
        with pytest.raises(TransferError, match="is not valid UTF-8. Transfer the directory"):
            upload_file(plane, path, f"{directory}/")
        assert plane.script(f"[ -e {directory} ]").exit_code == 1
        return
    upload_file(plane, path, remote)
    assert plane.script(f"ls -A {directory} | grep -c '^.ags_flows'").stdout == "0\n"
    back.mkdir()
    download_file(plane, remote, back / "f")
    assert (back / "f").read_bytes() == content
    write_file(plane, remote, content + b"!")
    assert read_file(plane, remote, 1 << 20) == content + b"!"
    if not name.startswith(b"."):
        download_matching(plane, f"{directory}/*", back / "m")
        assert os.listdir(os.fsencode(back / "m")) == [name]


DATES = st.integers(-(10**18), 10**19 // 2)


@QUICK
@given(dates=st.lists(DATES, min_size=4, max_size=4))
def test_dates_come_back_to_the_nanosecond_also_those_of_links(plane, tmp_path, dates):
    local, back, remote = tmp_path / uuid.uuid4().hex, tmp_path / uuid.uuid4().hex, f"/tmp/{uuid.uuid4().hex}"
    name = "n\xe9" * 60
    (local / "sub").mkdir(parents=True)
    (local / "file").write_text("x")
    (local / name).symlink_to("nowhere" * 20)

    def dates_of(directory):
        return [(directory / one).lstat().st_mtime_ns for one in ("file", name, "sub", ".")]

    for one, date in zip(("file", name, "sub", "."), dates, strict=True):
        os.utime(local / one, ns=(0, date), follow_symlinks=False)
    expected = dates_of(local)
    upload_directory(plane, local, remote)
    download_directory(plane, remote, back)
    assert dates_of(back) == expected


def test_names_that_are_not_utf8_do_not_hide_a_directory(plane, tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / os.fsdecode(b"caf\xe9")).write_text("x")
    (tmp_path / "t" / "plain").write_text("x")
    moved = upload_directory(plane, tmp_path / "t", "not-utf8")
    assert moved.files == 2
    assert len(plane.list("not-utf8")) == 2
    download_matching(plane, "not-utf8/caf?", tmp_path / "m")
    assert os.listdir(os.fsencode(tmp_path / "m")) == [b"caf\xe9"]
    with pytest.raises(NotFoundError):
        download_matching(plane, "not-utf8/nothing*", tmp_path / "n")
