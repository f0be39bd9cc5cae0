"""Watchers: by polling, as the synchronous SDK does it, and by stream, as the asynchronous one does."""

import asyncio
import time

import pytest
from e2b import FilesystemEventType, InvalidArgumentException, NotFoundException

CREATE, WRITE, CHMOD = FilesystemEventType.CREATE, FilesystemEventType.WRITE, FilesystemEventType.CHMOD
REMOVE, RENAME = FilesystemEventType.REMOVE, FilesystemEventType.RENAME


def test_a_written_file_is_created_given_and_written(box):
    box.files.make_dir("seen")
    handle = box.files.watch_dir("seen")
    box.files.write("seen/a", "text")

    assert [(event.type, event.name) for event in handle.get_new_events()] == [
        (CREATE, "a"), (CHMOD, "a"), (WRITE, "a")]  # fmt: skip
    assert handle.get_new_events() == []
    handle.stop()
    with pytest.raises(Exception, match="stopped|not found"):
        handle.get_new_events()


def test_moves_and_removals_are_reported(box):
    box.files.make_dir("moved")
    box.files.write("moved/a", "text")
    handle = box.files.watch_dir("moved")
    box.files.rename("moved/a", "moved/b")
    box.files.remove("moved/b")
    events = [(event.type, event.name) for event in handle.get_new_events()]
    handle.stop()

    assert events == [(RENAME, "a"), (CREATE, "b"), (REMOVE, "b")]


def test_a_recursive_watch_sees_directories_made_later(box):
    box.files.make_dir("deep")
    handle = box.files.watch_dir("deep", recursive=True)
    box.files.write("deep/new/er/file", "text")
    time.sleep(0.1)
    box.files.write("deep/new/er/file", "again")
    events = handle.get_new_events()
    handle.stop()

    assert (WRITE, "new/er/file") in [(event.type, event.name) for event in events]


def test_without_recursion_deeper_changes_are_not_reported(box):
    box.files.make_dir("flat/sub")
    handle = box.files.watch_dir("flat")
    box.files.write("flat/sub/file", "text")
    events = handle.get_new_events()
    handle.stop()

    assert all(not event.name.startswith("sub/") for event in events)


def test_entries_come_with_events_when_asked(box):
    box.files.make_dir("with")
    handle = box.files.watch_dir("with", include_entry=True)
    box.files.write("with/a", "text")
    events = handle.get_new_events()
    handle.stop()

    assert events[-1].entry.path == "/home/user/with/a"
    assert events[-1].entry.size == 4


def test_only_directories_that_are_there_can_be_watched(box):
    box.files.write("a-file", "x")
    with pytest.raises(NotFoundException):
        box.files.watch_dir("nowhere")
    with pytest.raises(InvalidArgumentException):
        box.files.watch_dir("a-file")


async def _watch(box):
    seen, ended = [], asyncio.Event()
    await box.files.make_dir("streamed")
    handle = await box.files.watch_dir("streamed", on_event=seen.append, on_exit=lambda error: ended.set())
    await box.files.write("streamed/a", "text")
    for _ in range(100):
        if len(seen) >= 3:
            break
        await asyncio.sleep(0.02)
    await handle.stop()
    return [(event.type, event.name) for event in seen]


def test_the_asynchronous_sdk_gets_events_by_a_stream(async_box):
    assert asyncio.run(_watch(async_box)) == [(CREATE, "a"), (CHMOD, "a"), (WRITE, "a")]
