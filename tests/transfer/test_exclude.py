"""What a transfer leaves out: patterns in the style of .gitignore, and this package's own files."""

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ags_flows import tasks
from ags_flows.errors import ConfigurationError, NotFoundError
from ags_flows.transfer import download_directory, download_matching, upload_directory
from ags_flows.transfer.exclusion import Exclusion, check_links

FILES = (
    "a.py",
    "a.pyc",
    "keep.pyc",
    "node_modules/x/index.js",
    "src/b.py",
    "src/build/out",
    "src/b.pyc",
    "build/out",
    ".git/config",
)
EXCLUDE = ["*.pyc", "!keep.pyc", "node_modules/", "/build", ".git/", "# a comment", ""]
LEFT = ["a.py", "keep.pyc", "src", "src/b.py", "src/build", "src/build/out"]


@pytest.fixture
def source(tmp_path):
    for name in FILES:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "source"


def names(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def remote():
    return f"/tmp/{uuid.uuid4().hex}"


@pytest.mark.parametrize("exclude", [EXCLUDE, "\n".join(EXCLUDE)])
def test_an_upload_leaves_out_what_the_patterns_match(plane, source, tmp_path, remote, exclude):
    assert upload_directory(plane, source, remote, exclude=exclude).files == 4
    download_directory(plane, remote, tmp_path / "back")
    assert names(tmp_path / "back") == LEFT


def test_downloads_leave_out_what_the_patterns_match(plane, source, tmp_path, remote):
    upload_directory(plane, source, remote)
    assert download_directory(plane, remote, tmp_path / "back", exclude=EXCLUDE).files == 4
    assert names(tmp_path / "back") == LEFT
    download_matching(plane, f"{remote}/*", tmp_path / "matching", exclude=EXCLUDE)
    assert names(tmp_path / "matching") == LEFT
    download_matching(plane, f"{remote}/**/*.js*", tmp_path / "js", exclude=["b.py"])
    assert names(tmp_path / "js") == ["node_modules", "node_modules/x", "node_modules/x/index.js"]
    with pytest.raises(NotFoundError, match="nothing is left of it"):
        download_matching(plane, f"{remote}/**/*.js", tmp_path / "none", exclude=["node_modules"])


def test_all_of_a_directory_may_be_left_out(plane, source, tmp_path, remote):
    upload_directory(plane, source, remote, exclude=["*"])
    download_directory(plane, remote, tmp_path / "back")
    assert names(tmp_path / "back") == []
    upload_directory(plane, source, remote)
    download_directory(plane, remote, tmp_path / "empty", exclude="*")
    assert names(tmp_path / "empty") == []


def test_a_pattern_fetches_each_file_once(plane, source, tmp_path, remote):
    upload_directory(plane, source, remote)
    for pattern in ("**/*", "*", "**"):
        moved = download_matching(plane, f"{remote}/{pattern}", tmp_path / uuid.uuid4().hex)
        assert moved.files == len([name for name in FILES if not name.startswith(".")])
        assert moved.size == sum(len(name) for name in FILES if not name.startswith("."))
    download_matching(plane, f"{remote}/.*", tmp_path / "hidden")
    assert names(tmp_path / "hidden") == [".git", ".git/config"]


def test_a_pattern_that_is_not_valid_is_named(plane, source):
    with pytest.raises(ConfigurationError, match="exclude.*not valid"):
        upload_directory(plane, source, "x", exclude=["!"])
    with pytest.raises(ConfigurationError, match="exclude must be patterns as text, got 1"):
        Exclusion([1])
    with pytest.raises(ConfigurationError, match="links must be 'keep' or 'skip', got 'follow'"):
        check_links("follow", "links")


def test_files_of_this_package_are_not_transferred(plane, source, tmp_path, sandbox):
    config, instance = sandbox
    plane.script("mkdir -p .ags_flows/jobs d/.ags_flows-1; echo 1 >.ags_flows/jobs/x; touch d/f d/.ags_flows-1/x")
    (source / ".ags_flows-1").mkdir()
    upload_directory(plane, source, "d/uploaded")
    download_directory(plane, ".", tmp_path / "home", exclude=[".bash*", ".profile"])
    assert not [name for name in names(tmp_path / "home") if ".ags_flows" in name]
    assert (tmp_path / "home" / "d" / "f").exists()
    download_matching(plane, ".*", tmp_path / "hidden")
    assert ".ags_flows" not in os.listdir(tmp_path / "hidden")
    # By its name it can be downloaded, for a look at it.
    download_directory(plane, "~/.ags_flows/jobs", tmp_path / "jobs")
    assert names(tmp_path / "jobs") == ["x"]
    listed = [entry.name for entry in tasks.list_files.fn(instance, ".", depth=3, config=config)]
    assert "f" in listed and not [name for name in listed if name.startswith(".ags_flows")]
    assert [entry.name for entry in tasks.list_files.fn(instance, ".ags_flows/jobs", config=config)] == ["x"]


NAMES = st.sampled_from(["a", "b", "a.txt", "b.py", "[x]", "a b", "a\n", "\nb.py"])
PIECES = st.sampled_from(
    ["a", "b", "*", "**", "*.txt", "?", "[ab]*", "a[!0-9]", "[!b]?b", "a.txt", "b.py", "\\[x]", "[[]x]", "[a&&b]"]
)
PATTERNS = st.builds(
    lambda include, anchor, pieces, directory: f"{include}{anchor}{'/'.join(pieces)}{directory}",
    st.sampled_from(["", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(PIECES, min_size=1, max_size=3),
    st.sampled_from(["", "/"]),
)


@pytest.mark.filterwarnings("error")
@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git, which is not installed")
@settings(max_examples=100, deadline=None)
@given(
    paths=st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True),
    patterns=st.lists(PATTERNS, max_size=4),
)
@example(paths=["a/a.txt", "a/b.py", "a.txt", "b.py"], patterns=["*", "!*/", "!*.txt"])
@example(paths=["a\n/a.txt", "a\n", "b\n"], patterns=["*.txt", "[a-z]"])
@example(paths=["[x]", "&", "a"], patterns=["[[]x]", "[a&&b]"])
@example(paths=["a/b", "ab/b"], patterns=["a[!0-9]", "a[!x]b"])
@example(paths=["a/b/a.txt", "a/b/b.py", "a/a.txt"], patterns=["a/**", "!a/**/", "!a/**/*.txt"])
def test_patterns_mean_what_they_mean_to_git(paths, patterns):
    files = [path for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    with tempfile.TemporaryDirectory() as directory:
        for path in files:
            target = Path(directory, "tree", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("")
        Path(directory, "patterns").write_text("".join(f"{pattern}\n" for pattern in patterns))
        git = ["git", "-c", "core.quotePath=false", "-C", f"{directory}/tree"]
        subprocess.run([*git, "init", "-q"], check=True)
        command = [*git, "ls-files", "-z", "--others", f"--exclude-from={directory}/patterns"]
        expected = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")[:-1]
    entries = {(path, False) for path in files}
    entries |= {(str(above), True) for path in files for above in Path(path).parents if str(above) != "."}
    remaining = set(Exclusion(patterns).remaining(sorted(entries)))
    assert sorted(remaining & set(files)) == sorted(expected)
