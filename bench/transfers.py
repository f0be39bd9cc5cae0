"""How much memory the upload of a large file takes."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from ags_flows.tasks import upload_file
from bench.figure import Figure
from bench.sandbox import running_sandbox

SIZE = 500 * 1024 * 1024


def figures() -> Iterator[Figure]:
    """Upload 500 MB and watch the resident memory of this process."""
    with running_sandbox() as (config, instance), tempfile.TemporaryDirectory() as directory:
        small, large = Path(directory) / "small", Path(directory) / "large"
        small.write_bytes(bytes(1 << 20))
        with large.open("wb") as file:
            file.truncate(SIZE)
        upload_file.fn(instance, small, "/tmp/small", config=config)
        moved = []
        growth = peak_growth(lambda: moved.append(upload_file.fn(instance, large, "/tmp/large", config=config)))
        speed = f"{SIZE / 1e6 / moved[0].seconds:.0f} MB/s"
        yield Figure("upload of 500 MB: growth of memory", growth / 1e6, "MB", 64.0, detail=speed)


def peak_growth(action: Callable[[], object]) -> int:
    """Return by how many bytes the resident memory of this process grew at its peak."""
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
        action()
    finally:
        done.set()
        watcher.join()
    return peak - before
