import threading
import time

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

CUT = (httpx.RemoteProtocolError, httpx.ReadError)


def test_a_cut_closes_one_connection_without_a_response(client, fault):
    fault("cut", instance_id="sbi-1")
    with pytest.raises(CUT):
        client.get("/")
    assert client.get("/").status_code == 200


def test_a_cut_after_bytes_lets_just_so_much_pass(client, fault):
    fault("cut", after_bytes=100_000)
    got = b""
    with pytest.raises(CUT):
        with client.stream("GET", "/big?mib=2") as answer:
            for piece in answer.iter_raw():
                got += piece
    assert len(got) <= 100_000


def test_a_cut_after_seconds_strikes_also_when_nothing_is_sent(client, fault):
    fault("cut", after_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(CUT):
        with client.stream("GET", "/events?every=30") as answer:
            for _ in answer.iter_raw():
                pass
    assert 0.2 < time.monotonic() - began < 5


def test_a_black_hole_sends_nothing_until_it_is_cleared(client, fault, outside):
    fault("blackhole", times=None)
    with pytest.raises(httpx.ReadTimeout):
        client.get("/", timeout=0.3)
    threading.Timer(0.3, lambda: outside.loop.call_soon_threadsafe(outside.faults.clear)).start()
    with pytest.raises(CUT):
        client.get("/", timeout=10)
    assert client.get("/").status_code == 200


def test_a_black_hole_may_begin_in_the_middle(client, fault):
    fault("blackhole", after_bytes=50)
    with pytest.raises(httpx.ReadTimeout):
        with client.stream("GET", "/events?every=0.01", timeout=0.5) as answer:
            for _ in answer.iter_raw():
                pass


def test_a_status_replaces_the_response_of_the_sandbox(client, fault):
    fault("status", status=503, times=2)
    assert [client.get("/").status_code for _ in range(3)] == [503, 503, 200]


def test_a_delay_delays_the_response(client, fault):
    fault("delay", after_seconds=0.3)
    began = time.monotonic()
    assert client.get("/").status_code == 200
    assert time.monotonic() - began > 0.25


def test_slow_reads_and_writes_take_their_time(client, fault):
    fault("slow", bytes_per_second=2 << 20, times=2)
    began = time.monotonic()
    assert len(client.get("/big?mib=1").content) == 1 << 20
    assert time.monotonic() - began > 0.4
    began = time.monotonic()
    assert client.post("/count", content=b"x" * (1 << 20)).text == str(1 << 20)
    assert time.monotonic() - began > 0.4


def test_a_fault_strikes_only_what_it_is_meant_for(client, fault, inside):
    fault("status", instance_id="another")
    fault("status", port=inside.port + 1)
    fault("status", path="/elsewhere")
    assert client.get("/").status_code == 200
    assert client.get("/elsewhere").status_code == 502


def test_a_websocket_is_cut_too(outside, inside, target, fault):
    url = f"ws://127.0.0.1:{outside.port}/sandbox/sbi-1/{inside.port}/chat"
    fault("cut", after_bytes=5)
    with connect(url, additional_headers={"X-Access-Token": "the-token"}, proxy=None) as socket:
        socket.send("abc")
        assert socket.recv(5) == "cba"
        socket.send("abc")
        with pytest.raises(ConnectionClosed):
            socket.recv(5)


@pytest.mark.parametrize("wrong", [{"kind": "strange"}, {"kind": "cut", "colour": "red"}])
def test_an_unknown_fault_is_refused(fault, target, wrong):
    with pytest.raises(ValueError, match="strange|colour"):
        fault(**wrong)
