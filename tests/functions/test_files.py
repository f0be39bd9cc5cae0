"""Files of a result: all paths are checked before the first download, and nothing is written out of `files`."""

import os
from pathlib import Path

import pytest

from ags_flows import SandboxFile, in_sandbox
from ags_flows.errors import AGSFlowsError, FunctionError
from ags_flows.functions.files import Destination


@pytest.fixture
def files(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def outside(tmp_path):
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "own.txt").write_text("own")
    return directory


def is_untouched(directory):
    return os.listdir(directory) == ["own.txt"] and (directory / "own.txt").read_text() == "own"


def planting(target, destinations):
    import os

    os.makedirs("planting/inner", exist_ok=True)
    if os.path.islink("planting/link"):
        os.unlink("planting/link")
    os.symlink(target, "planting/link")
    with open("planted.txt", "w") as file:
        file.write("planted")
    return [SandboxFile(path, to=to) for path, to in destinations]


@pytest.mark.parametrize("source", ["planted.txt", "planting/inner"])
@pytest.mark.parametrize("to", ["tree/link", "tree/link/own.txt", "tree/link/new.txt", "tree/link/deep/new.txt"])
def test_nothing_is_written_through_a_link_that_an_earlier_result_has_left(session, files, outside, source, to):
    remote = in_sandbox(files=str(files))(planting)
    session.call(remote, str(outside), [("planting", "tree")])
    assert os.readlink(files / "tree" / "link") == str(outside)
    with pytest.raises(FunctionError, match=r"planting: .*leads out of the directory"):
        session.call(remote, str(outside), [(source, to)])
    assert is_untouched(outside)


def test_nothing_is_written_through_a_link_of_the_same_result(session, files, outside):
    remote = in_sandbox(files=str(files))(planting)
    with pytest.raises(FunctionError, match=r"planted\.txt' is inside of that of .*planting'"):
        session.call(remote, str(outside), [("planting", "tree"), ("planted.txt", "tree/link/new.txt")])
    assert is_untouched(outside)
    assert not files.exists()


def test_a_link_inside_of_the_directory_is_followed(session, files):
    remote = in_sandbox(files=str(files))(planting)
    session.call(remote, "inner", [("planting", "tree")])
    found = session.call(remote, "inner", [("planted.txt", "tree/link/new.txt")])
    assert found == [SandboxFile(str(files / "tree" / "inner" / "new.txt"))]
    assert Path(found[0]).read_text() == "planted"


def test_a_file_replaces_a_link_to_a_file(session, files, outside):
    remote = in_sandbox(files=str(files))(planting)
    files.mkdir()
    (files / "here").symlink_to(outside / "own.txt")
    session.call(remote, ".", [("planted.txt", "here")])
    assert (files / "here").read_text() == "planted"
    assert is_untouched(outside)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("same", "same"),
        ("same", "./same"),
        ("same", "same/child"),
        ("same/child", "same"),
        ("same", "../escaped"),
        ("same", "nul\0byte"),
        ("same", "file/child"),
        ("same", "directory"),
    ],
)
def test_a_result_whose_paths_are_refused_is_not_written_in_part(session, files, first, second):
    files.mkdir()
    (files / "file").write_text("file")
    (files / "directory").mkdir()

    def pair(first, second):
        for name in ("left", "right"):
            open(name, "w").close()
        return SandboxFile("left", to=first), SandboxFile("right", to=second)

    with pytest.raises(FunctionError):
        session.call(in_sandbox(files=str(files))(pair), first, second)
    assert sorted(os.listdir(files)) == ["directory", "file"]
    assert not (files.parent / "escaped").exists()


def test_a_result_of_which_a_file_is_missing_is_not_written_in_part(session, files):
    def half():
        open("half", "w").close()
        return SandboxFile("half"), SandboxFile("other-half")

    with pytest.raises(FunctionError, match="other-half' does not exist"):
        session.call(in_sandbox(files=str(files))(half))
    assert not files.exists()


def test_a_link_that_is_made_after_the_check_is_not_followed(files, outside):
    destination = Destination("function", files, "own")
    path = destination.place(SandboxFile("new.txt", to="tree/link/deep/new.txt"))
    (files / "tree").mkdir(parents=True)
    (files / "tree" / "link").symlink_to(outside)
    with pytest.raises(FunctionError, match="leads through 'tree/link'"):
        destination.make_parents(path)
    assert is_untouched(outside)


@pytest.mark.parametrize("source", ["planted.txt", "planting"])
def test_a_link_that_is_made_at_the_target_before_the_download_is_not_followed(
    session, files, outside, source, monkeypatch
):
    remote = in_sandbox(files=str(files))(planting)
    make_parents = Destination.make_parents

    def then_plant(destination, path):
        make_parents(destination, path)
        path.symlink_to(outside)

    monkeypatch.setattr(Destination, "make_parents", then_plant)
    with pytest.raises(AGSFlowsError):
        session.call(remote, ".", [(source, "target")])
    assert is_untouched(outside)
