import time
from socket import SHUT_RDWR

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def opened(outside, inside, path="/chat", token="the-token", **more):
    headers = {"X-Access-Token": token, "X-Own": "1"} if token else {}
    url = f"ws://127.0.0.1:{outside.port}/sandbox/sbi-1/{inside.port}{path}"
    return connect(url, additional_headers=headers, proxy=None, max_size=None, **more)


def test_messages_pass_both_ways(outside, inside, target):
    with opened(outside, inside) as socket:
        socket.send("hello")
        assert socket.recv(5) == "olleh"
        socket.send(b"\x00\x01\xff")
        assert socket.recv(5) == b"\xff\x01\x00"
        socket.send("")
        assert socket.recv(5) == ""


def test_large_messages_pass(outside, inside, target):
    with opened(outside, inside) as socket:
        socket.send(b"a" * (20 << 20) + b"b")
        assert socket.recv(20) == b"b" + b"a" * (20 << 20)


def test_the_sandbox_chooses_the_subprotocol_and_sees_the_headers(outside, inside, target):
    with opened(outside, inside, subprotocols=["first", "second"], origin="http://page.example") as socket:
        assert socket.subprotocol == "second"
        assert inside.seen.websocket_headers["x-own"] == "1"
        assert inside.seen.websocket_headers["origin"] == "http://page.example"
        assert inside.seen.websocket_headers["host"].startswith("127.0.0.1:")


def test_a_close_of_the_sandbox_arrives_with_code_and_reason(outside, inside, target):
    with opened(outside, inside) as socket:
        socket.send("bye")
        with pytest.raises(ConnectionClosed):
            socket.recv(5)
        assert (socket.close_code, socket.close_reason) == (4321, "as you wish")


def test_a_close_of_the_client_arrives_with_its_code(outside, inside, target):
    inside.seen.left.clear()
    with opened(outside, inside) as socket:
        socket.close(4000, "enough")
    # The end of an earlier test's connection may arrive first.
    deadline = time.monotonic() + 5
    while getattr(inside.seen, "code", None) != 4000:
        assert time.monotonic() < deadline, inside.seen.code
        time.sleep(0.01)


def test_a_client_that_vanishes_ends_the_websocket_in_the_sandbox(outside, inside, target):
    inside.seen.left.clear()
    socket = opened(outside, inside)
    socket.socket.shutdown(SHUT_RDWR)
    assert inside.seen.left.wait(5)
    socket.close()


@pytest.mark.parametrize(
    ("path", "token", "status"), [("/chat", None, 401), ("/shut", "the-token", 403), ("/nothing", "the-token", 403)]
)
def test_a_handshake_is_refused_with_the_reasons_status(outside, inside, target, path, token, status):
    with pytest.raises(InvalidStatus) as refused:
        opened(outside, inside, path, token)
    assert refused.value.response.status_code == status


def test_a_gone_sandbox_and_a_closed_port_refuse_the_handshake(outside, inside, target):
    target.state = "gone"
    with pytest.raises(InvalidStatus) as refused:
        opened(outside, inside)
    assert refused.value.response.status_code == 404
