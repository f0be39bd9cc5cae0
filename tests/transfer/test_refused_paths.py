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


HOMES = [
    *(".", "./", "/", "//", "~", "~/", "~/.", "a/..", "..", "../", "../..", "/home", "/home/user", "/home/user/"),
    *("../user", "/home/../home/user", "/tmp/..", "link-to-home/../../user", "/tmp/link-to-slash/home"),
]


@pytest.mark.parametrize("path", HOMES)
def test_a_home_and_what_is_above_it_is_not_removed(instance, ags_config, path):
    tasks.exec_command.fn(
        instance, "ln -s / /tmp/link-to-slash; ln -s ~ link-to-home; echo x >kept", durable=False, config=ags_config
    )
    with pytest.raises(ConfigurationError, match="^path: .* is a home, or a directory above it"):
        tasks.remove_path.fn(instance, path, config=ags_config)
    assert tasks.read_file.fn(instance, "kept", config=ags_config) == b"x\n"


@pytest.mark.parametrize("path", ["/root", "/root/", "/home/other", "/home/user/../other"])
def test_the_home_of_another_user_is_not_removed(instance, ags_config, path):
    made = (
        "grep -q ^other: /etc/passwd || echo other:x:1234:1234::/home/other:/bin/sh >>/etc/passwd; mkdir -p /home/other"
    )
    tasks.exec_command.fn(instance, made, user="root", check=True, config=ags_config)
    with pytest.raises(ConfigurationError, match="^path: .* is a home, or a directory above it"):
        tasks.remove_path.fn(instance, path, config=ags_config)
    assert tasks.exec_command.fn(instance, f"ls -d {path}", user="root", config=ags_config).ok


@pytest.mark.parametrize("path", ["link-to-home", "~/kept", "/home/user/kept", "../user/kept", "/tmp/user"])
def test_what_is_in_a_home_or_leads_to_it_is_removed(instance, ags_config, path):
    tasks.exec_command.fn(
        instance, "ln -s ~ link-to-home; echo x >kept; mkdir /tmp/user", durable=False, config=ags_config
    )
    tasks.remove_path.fn(instance, path, config=ags_config)
    assert tasks.exec_command.fn(instance, f"ls -d {path}", durable=False, config=ags_config).exit_code != 0
    assert len(tasks.list_files.fn(instance, "~", config=ags_config)) >= 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/**/*", {"lib/a.csv", "lib/in/b.csv", "lib64", "other"}),
        ("p/**/*.csv", {"lib/a.csv", "lib/in/b.csv", "other/c.csv"}),
        ("p/*/*.csv", {"lib/a.csv", "other/c.csv"}),
        ("p/*", {"lib/a.csv", "lib/in/b.csv", "lib64", "other"}),
        ("p/lib64/*.csv", {"a.csv"}),
        ("p/lib6*/*.csv", {"lib64/a.csv"}),
        ("p/lib64", {"lib64"}),
    ],
)
def test_what_a_pattern_reaches_through_a_link_is_fetched_once(instance, ags_config, tmp_path, pattern, expected):
    layout = "mkdir -p p/lib/in elsewhere; echo a >p/lib/a.csv; echo b >p/lib/in/b.csv; echo c >elsewhere/c.csv"
    tasks.exec_command.fn(
        instance, f"{layout}; ln -s lib p/lib64; ln -s ../elsewhere p/other", durable=False, config=ags_config
    )
    done = tasks.download_files.fn(instance, pattern, tmp_path / "found", config=ags_config)
    found = [path for path in (tmp_path / "found").rglob("*") if path.is_symlink() or path.is_file()]
    assert {str(path.relative_to(tmp_path / "found")) for path in found} == expected
    assert done.files == len(expected)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("q/*/*", ["f", "g"]),
        ("q/[fl]*/*", ["f", "g"]),
        ("q/*/i*", ["g"]),
        ("q/*/*/*", ["f", "g"]),
    ],
)
@pytest.mark.parametrize("exclude", [(), ("*.no",)])
def test_what_is_in_a_directory_and_reached_by_links_is_fetched_once(
    instance, ags_config, tmp_path, pattern, expected, exclude
):
    """A file that a link leads to directly, and a directory above it that another link leads to."""
    layout = "mkdir -p q/a/in; echo f >q/a/f; echo g >q/a/in/g; cd q; ln -s a/in first; ln -s a last; ln -s . self"
    tasks.exec_command.fn(instance, layout, durable=False, config=ags_config)
    done = tasks.download_files.fn(instance, pattern, tmp_path / "found", exclude=exclude, config=ags_config)
    found = [path for path in (tmp_path / "found").rglob("*") if path.is_symlink() or path.is_file()]
    assert sorted(path.read_text().strip() for path in found if not path.is_symlink()) == expected
    assert done.files == len(found)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"s/a\[1\].csv", {"a[1].csv"}),
        (r"s/\[x\]", {"[x]/b.csv"}),
        (r"s/\[x\]/*.csv", {"[x]/b.csv"}),
        ("s/a[[]1].csv", {"a[1].csv"}),
        (r"s/*\**/", {"s*r/c.csv"}),
        ("s/*/", {"[x]/b.csv", "s*r/c.csv"}),
        ("s/**/", {"[x]/b.csv", "s*r/c.csv"}),
        ("s/[[]x]/", {"[x]/b.csv"}),
    ],
)
def test_patterns_may_be_escaped_and_end_with_a_slash(instance, ags_config, tmp_path, pattern, expected):
    layout = "mkdir -p 's/[x]' 's/s*r'; cd s; touch 'a[1].csv' a1.csv '[x]/b.csv' 's*r/c.csv'"
    tasks.exec_command.fn(instance, layout, durable=False, config=ags_config)
    tasks.download_files.fn(instance, pattern, tmp_path / "found", config=ags_config)
    found = [path for path in (tmp_path / "found").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "found")) for path in found} == expected


@pytest.mark.parametrize("pattern", ["nowhere", "nowhere/*.csv", "[a", "{a,b}.txt"])
def test_a_pattern_that_matches_nothing_is_not_found(instance, ags_config, tmp_path, pattern):
    with pytest.raises(NotFoundError, match="nothing matches|there is no directory"):
        tasks.download_files.fn(instance, pattern, tmp_path / "found", config=ags_config)
    assert not (tmp_path / "found").exists()
