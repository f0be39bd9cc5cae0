import os

import pytest

from ags_flows.batch.items import read_items
from ags_flows.batch.work import Work
from ags_flows.errors import ConfigurationError
from ags_flows.flows.run_items import checked_items


def test_items_are_known_by_their_key_or_by_what_they_are():
    found = read_items([{"id": 7, "a": 1}, {"a": 2}, "north", 3]).all
    assert [item.key for item in found] == ["7", found[1].key, "north", "3"]
    assert [item.index for item in found] == [0, 1, 2, 3]
    assert read_items([{"a": 2}]).all[0].key == found[1].key


def test_the_same_item_twice_is_done_once_and_two_with_one_key_are_refused():
    assert read_items(["a", "b", "a"]).duplicates == 1
    with pytest.raises(ConfigurationError, match="item 0 and item 2 differ"):
        read_items([{"id": 1, "v": 1}, {"id": 2}, {"id": 1, "v": 2}])


def test_lines_and_files_are_items(tmp_path):
    lines = tmp_path / "items.jsonl"
    lines.write_text('{"id": "a"}\n\n"b"\n')
    assert [item.key for item in read_items(lines).all] == ["a", "b"]
    directory = tmp_path / "files"
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "two.csv").write_text("2")
    (directory / "one.csv").write_text("1")
    (directory / ".hidden").write_text("")
    found = read_items(str(directory)).all
    assert [(item.key, item.path) for item in found] == [
        ("deep/two.csv", directory / "deep" / "two.csv"),
        ("one.csv", directory / "one.csv"),
    ]


@pytest.mark.parametrize("empty", [[], "empty.jsonl", "directory"])
def test_no_items_are_refused(empty, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "directory").mkdir()
    with pytest.raises(ConfigurationError, match="no items"):
        read_items(tmp_path / empty if isinstance(empty, str) else empty)


def test_an_empty_path_is_not_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="items: it is empty"):
        read_items("")


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text('"a"\n\n{"id": \n"c"\n')
    with pytest.raises(ConfigurationError, match=r"items\.jsonl, line 3 is not JSON"):
        read_items(file)
    file.write_bytes(b'"a"\n\xff\xfe\n')
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_items(file)
    with pytest.raises(ConfigurationError, match="no such file"):
        read_items(tmp_path / "missing.jsonl")
    with pytest.raises(ConfigurationError, match="item 1 is not JSON"):
        read_items(["a", {"when": object()}])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_in_the_middle_is_named(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    (tmp_path / "b").chmod(0)
    with pytest.raises(ConfigurationError, match=r"/b cannot be read"):
        read_items(tmp_path)


def test_what_is_not_text_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.csv")).write_text("1")
    with pytest.raises(ConfigurationError, match=r"caf\\udce9.csv: the name of the file is not UTF-8"):
        read_items(tmp_path)
    with pytest.raises(ConfigurationError, match="item 1 is not JSON"):
        read_items(["a", {"id": "b", "text": "\ud800"}])


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b'\xef\xbb\xbf{"id": "a"}\r\n\r\n  \n{"id": "b"}\r\n', ["a", "b"]),
        (b'{"id": "a", "$ref": "x"}\n{"$ref": {"id": 1}}', ["a", None]),
        ('{"id": "caf\u00e9\u2028line"}\n'.encode(), ["caf\u00e9\u2028line"]),
        (b'{"id": true, "n": 1}\ntrue\n1\n', [None, "true", "1"]),
    ],
    ids=["byte order mark, CRLF and blank lines", "$ref", "line separators inside of a text", "booleans are not keys"],
)
def test_usual_json_lines_are_read(tmp_path, content, keys):
    (tmp_path / "items.jsonl").write_bytes(content)
    found = read_items(tmp_path / "items.jsonl").all
    assert [key or item.key for key, item in zip(keys, found, strict=True)] == [item.key for item in found]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'1\n{"id": "a", "n": NaN}', "line 2 is not JSON .key 'a', field 'n'.: Out of range float"),
        (b'{"n": -Infinity}', "line 1 is not JSON .key '[0-9a-f]{16}', field 'n'.: Out"),
        (b'{"id": 1}\n{"id": 2, "id": 3}', "line 2: it has the field 'id' twice"),
        ('{"id": 1}'.encode("utf-16"), "items.jsonl cannot be read: it is UTF-16"),
        ('{"id": 1}'.encode("utf-32"), "items.jsonl cannot be read: it is UTF-32"),
        (b'1\n"\xff"', "line 2 cannot be read: it is not UTF-8"),
        (b"[" * 100_000, "line 1"),
        (b'1\n"\\ud800"', "line 2 is not JSON: .*surrogates not allowed"),
    ],
)
def test_lines_that_cannot_be_used_are_named(tmp_path, content, message):
    (tmp_path / "items.jsonl").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_items(tmp_path / "items.jsonl")


def test_an_item_of_a_file_that_no_command_can_get_is_named_by_its_line(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": "a"}\n\n{"id": "b", "text": "x\\u0000"}\n')
    with pytest.raises(ConfigurationError, match=r"items\.jsonl, line 3, key 'b' .field 'text'., has the character"):
        checked_items(tmp_path / "items.jsonl", Work(command="true"))


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([1, {"id": 10**5000}], "items: item 1 is not JSON .field 'id'.: Exceeds the limit"),
        ([1, {"a": nested(20_000)}], "items: item 1 is not JSON .field 'a'.: maximum recursion"),
        ([1, {1: "a", "b": 2}], "items: item 1 is not JSON"),
        (5, "items=5: this is neither a list nor a path"),
        (None, "items=None: this is neither a list nor a path"),
        (b"items.jsonl", "this is neither a list nor a path"),
        ({"id": "a"}, "this is neither a list nor a path"),
    ],
    ids=["digits", "depth", "names of fields", "number", "none", "bytes", "dict"],
)
def test_lists_that_cannot_be_used_are_refused(items, message):
    with pytest.raises(ConfigurationError, match=message):
        read_items(items)


def test_items_that_are_equal_as_json_are_the_same():
    assert read_items([(1, 2), [1, 2]]).duplicates == 1


def test_a_file_that_vanished_has_a_version_that_no_file_has(tmp_path):
    versions = set()
    for content in ("", "a", None):
        (tmp_path / "file").write_text(content or "")
        [item] = read_items(tmp_path).all
        if content is None:
            (tmp_path / "file").unlink()
        versions.add(item.version)
    assert len(versions) == 3
