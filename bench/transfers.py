"""Files up and down: how much memory large ones take, and how fast many small ones go."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from ags_flows.cloud.data_planes import open_plane
from ags_flows.tasks import download_file, upload_directory, upload_file
from bench.figure import Figure, seconds
from bench.sandbox import running_sandbox

MEGABYTE = 1_000_000
FILES = 1_000
FILE_SIZE = 4_096


def figures() -> Iterator[Figure]:
    """Move 500 MB and 2 GB and watch the resident memory of this process; send 1,000 files of 4 KB in three ways."""
    with running_sandbox() as (config, instance), tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        small, large, back = directory / "small", directory / "large", directory / "back"
        small.write_bytes(bytes(MEGABYTE))
        upload_file.fn(instance, small, "/tmp/small", config=config)
        download_file.fn(instance, "/tmp/small", small, config=config)
        for size, told in ((500 * MEGABYTE, "500 MB"), (2_000 * MEGABYTE, "2 GB")):
            # Holes would be quick to read: the content is real.
            block = os.urandom(MEGABYTE)
            with large.open("wb") as file:
                for _ in range(size // MEGABYTE):
                    file.write(block)
            sent, growth = watched(lambda: upload_file.fn(instance, large, "/tmp/large", config=config))
            speed = f"{size / 1e6 / sent.seconds:.0f} MB/s"
            yield Figure(f"upload of {told}: growth of memory", growth / 1e6, "MB", 64.0, detail=speed)
        got, growth = watched(lambda: download_file.fn(instance, "/tmp/large", back, config=config))
        speed = f"{size / 1e6 / got.seconds:.0f} MB/s"
        yield Figure(f"download of {told}: growth of memory", growth / 1e6, "MB", 64.0, detail=speed)
        large.unlink()
        back.unlink()

        tree = directory / "tree"
        tree.mkdir()
        for number in range(FILES):
            (tree / f"{number}.bin").write_bytes(os.urandom(FILE_SIZE))
        sandbox = open_plane(config.connection(), instance.id).plane.sandbox
        entries = [{"path": f"/tmp/theirs/{path.name}", "data": path.read_bytes()} for path in tree.iterdir()]
        turns = iter(range(100))
        # By turns: both see the same load of the machine.
        pairs = [
            (
                seconds(lambda: upload_directory.fn(instance, tree, f"/tmp/ours{next(turns)}", config=config)),
                seconds(lambda: sandbox.files.write_files(entries)),
            )
            for _ in range(5)
        ]
        ours, theirs = (min(times) for times in zip(*pairs, strict=True))
        single = seconds(
            lambda: [sandbox.files.write(f"/tmp/single/{one['path'][12:]}", one["data"]) for one in entries]
        )
        yield Figure(
            "1,000 files of 4 KB: one at a time / upload_directory", single / ours, "x", 5.0, True, f"{ours:.2f} s"
        )
        yield Figure("1,000 files of 4 KB: upload_directory / write_files of e2b", ours / theirs, "x", 1.0)


def watched(action: Callable[[], object]) -> tuple[object, int]:
    """Return what an action gives, and by how many bytes the resident memory of this process grew at its peak."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = action()
    finally:
        done.set()
        watcher.join()
    return result, peak - before
