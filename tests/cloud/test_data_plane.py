"""The data plane of a real sandbox: tokens that end, connections that fall silent, many threads, no environment."""

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from ags_flows.cloud.data_plane import DataPlane
from ags_flows.errors import CommandTimeoutError, InstanceGoneError, NotFoundError, TokenExpiredError, UnreachableError
from ags_flows.lifecycle.waiting import wait_instance_running


@pytest.fixture
def acquired():
    return []


@pytest.fixture
def make_plane(ags_config, acquired):
    """Give a data plane that counts the tokens it acquires."""
    control = ags_config.control_plane()
    instance = control.start_instance(tool="base", timeout="1h")
    wait_instance_running(control, instance.id, timeout=30)

    def acquire():
        acquired.append(control.acquire_token(instance.id))
        return acquired[-1]

    def make(**changes):
        connection = ags_config.model_copy(update=changes).connection()
        return DataPlane(connection, instance.id, acquire)

    return make


def test_one_token_serves_many_calls(make_plane, acquired):
    plane = make_plane()
    for number in range(5):
        plane.write("f", str(number))
    assert (plane.read("f"), len(acquired)) == (b"4", 1)


def test_a_token_is_acquired_again_before_it_expires(make_plane, acquired, ags_emulator, monkeypatch):
    plane = make_plane()
    plane.write("f", "x")
    living = plane.sandbox
    began = time.time()
    monkeypatch.setattr("ags_flows.cloud.live_token.REFRESH_PAUSE", 0.0)
    monkeypatch.setattr("ags_flows.cloud.live_token.REFRESH_BEFORE", timedelta(days=1))
    assert plane.read("f") == b"x"
    assert len(acquired) == 2 and plane.sandbox is living
    assert "401" not in {one["outcome"] for one in ags_emulator.requests() if one["at"] >= began}


def test_a_refused_token_is_replaced_on_the_live_object(make_plane, acquired, ags_emulator):
    plane = make_plane()
    plane.write("f", "x")
    living = plane.sandbox
    ags_emulator.expire_tokens(plane.instance_id)
    assert plane.run("cat f").stdout == "x"
    assert len(acquired) == 2 and plane.sandbox is living
    ags_emulator.expire_tokens(plane.instance_id)
    plane.write("g", io.BytesIO(b"streamed"))
    assert plane.read("g") == b"streamed"


def test_threads_that_are_refused_concurrently_acquire_one_token(make_plane, acquired, ags_emulator):
    plane = make_plane()
    plane.write("f", "x")
    ags_emulator.expire_tokens(plane.instance_id)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda _: plane.read("f"), range(64))) == [b"x"] * 64
    assert len(acquired) == 2


def test_a_token_that_is_refused_again_has_a_clear_error(make_plane, ags_emulator):
    plane = make_plane()
    plane.write("f", "x")
    for _ in range(2):
        ags_emulator.stream_fault("status", status=401, times=2)
        with pytest.raises(TokenExpiredError, match="check the region"):
            plane.read("f")
        ags_emulator.clear_faults()


@pytest.mark.parametrize(
    "call",
    [
        lambda plane: plane.read("f"),
        lambda plane: plane.read_range("f", 0, 10),
        lambda plane: plane.write("f", b"y"),
        lambda plane: plane.write("f", io.BytesIO(b"y" * 5_000_000)),
        lambda plane: plane.list("."),
        lambda plane: plane.stat("f"),
        lambda plane: plane.make_dir("d"),
        lambda plane: plane.move("f", "g"),
        lambda plane: plane.run("true", timeout=1.5),
        lambda plane: b"".join(plane.read_stream("f", timeout=1.5)),
    ],
    ids=["read", "range", "write", "stream up", "list", "stat", "make", "move", "run", "stream down"],
)
def test_every_call_ends_in_time_when_nothing_comes_back(make_plane, ags_emulator, call):
    plane = make_plane(runtime_timeout=1.5)
    plane.write("f", "x")
    ags_emulator.stream_fault("blackhole", times=None)
    began = time.monotonic()
    try:
        # A command without any response counts as one that reached its time limit.
        with pytest.raises((UnreachableError, CommandTimeoutError)):
            call(plane)
        assert time.monotonic() - began < 15
    finally:
        ags_emulator.clear_faults()


def test_a_sandbox_that_ended_is_gone_and_not_unreachable(make_plane, ags_config):
    plane = make_plane()
    plane.write("f", "x")
    ags_config.control_plane().stop_instance(plane.instance_id)
    for call in (lambda: plane.read("f"), lambda: plane.run("true"), lambda: plane.list(".")):
        with pytest.raises((InstanceGoneError, NotFoundError)) as caught:
            call()
        assert caught.type is InstanceGoneError, caught.value
    assert not plane.is_alive()


def test_the_environment_is_neither_read_nor_changed(make_plane, monkeypatch):
    monkeypatch.setenv("E2B_API_KEY", "e2b_" + "0" * 40)
    monkeypatch.setenv("E2B_DOMAIN", "elsewhere.invalid")
    monkeypatch.setenv("E2B_SANDBOX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("E2B_DEBUG", "true")
    before = dict(os.environ)
    plane = make_plane()
    assert plane.run("echo here").stdout == "here\n"
    assert plane.sandbox.connection_config.api_key is None
    assert dict(os.environ) == before


def test_many_threads_share_one_plane(make_plane):
    plane = make_plane()
    errors = []

    def work(number):
        try:
            plane.write(f"t/{number}", str(number))
            assert plane.run(f"cat t/{number}").stdout == str(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(plane.list("t")) == 20
