import http.client
import json
import socket
import threading
import time

import psutil


def test_a_request_arrives_as_it_was_sent(client, inside):
    answer = client.put(
        "/a%2Fb/c?x=1&y=%20", content=b"\x00\xffbody", headers={"X-Own": "1", "Connection": "keep-alive"}
    )
    told = answer.json()
    assert told["method"] == "PUT"
    assert told["path"] == "/a%2Fb/c"
    assert told["query"] == "x=1&y=%20"
    assert told["body"] == "\x00\xffbody"
    assert told["headers"]["x-own"] == "1"
    assert told["headers"]["host"] == f"{inside.port}-sbi-1.localhost"
    assert told["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert told["headers"]["connection"] == "close"
    assert answer.headers["x-answered"] == "yes"
    assert "keep-alive" not in answer.headers
    assert len(answer.headers.get_list("date")) == 1


def test_statuses_and_responses_without_a_body_pass(client):
    assert client.get("/?status=418").status_code == 418
    assert client.head("/").status_code == 200
    assert client.get("/?status=204").status_code == 204


def test_header_names_arrive_as_programs_write_them(client, outside, target):
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen = []
        answering = threading.Thread(target=lambda: seen.append(_read_and_answer(server)))
        answering.start()
        client.get("/", headers={"Host": f"{server.getsockname()[1]}-sbi-1.localhost", "x-own-name": "1"})
        answering.join()

    assert b"\r\nHost: " in seen[0] and b"\r\nX-Own-Name: 1\r\n" in seen[0]


def _read_and_answer(server):
    connection, _ = server.accept()
    with connection:
        asked = connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return asked


def test_large_bodies_pass_both_ways_in_bounded_memory(client):
    process = psutil.Process()
    before = process.memory_info().rss
    highest = before

    def pieces():
        nonlocal highest
        for _ in range(200):
            highest = max(highest, process.memory_info().rss)
            yield b"y" * (1 << 20)

    assert client.post("/count", content=pieces()).text == str(200 << 20)
    size = 0
    with client.stream("GET", "/big?mib=200") as answer:
        for piece in answer.iter_raw():
            size += len(piece)
            highest = max(highest, process.memory_info().rss)
    assert size == 200 << 20
    assert highest - before < 80 << 20


def test_a_response_is_streamed(client):
    began = time.monotonic()
    with client.stream("GET", "/events?every=0.05") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            assert line == "data: 0"
            break
    assert time.monotonic() - began < 5


def test_request_and_response_stream_at_the_same_time(outside, inside, target):
    with socket.create_connection(("127.0.0.1", outside.port), timeout=10) as connection:
        host = f"{inside.port}-sbi-1.localhost"
        head = (
            f"POST /both/x HTTP/1.1\r\nHost: {host}\r\nX-Access-Token: the-token\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        got = b""
        for word in (b"one", b"two", b"six"):
            connection.sendall(b"3\r\n" + word + b"\r\n")
            while word.upper() not in got:
                got += connection.recv(4096)
        connection.sendall(b"0\r\n\r\n")
        while not got.endswith(b"0\r\n\r\n"):
            got += connection.recv(4096)


def test_a_client_that_leaves_ends_the_request_in_the_sandbox(client, inside):
    with client.stream("GET", "/events") as answer:
        next(answer.iter_lines())
    assert inside.seen.left.wait(5)


def test_a_response_that_breaks_off_breaks_off_for_the_client(outside, target):
    """A server in the sandbox that dies in the middle."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def die():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                time.sleep(0.1)

        thread = threading.Thread(target=die)
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", outside.port, timeout=10)
        port = listener.getsockname()[1]
        connection.request("GET", "/", headers={"Host": f"{port}-sbi-1.x", "X-Access-Token": "the-token"})
        answer = connection.getresponse()
        try:
            answer.read()
            broken = False
        except (http.client.IncompleteRead, ConnectionError):
            broken = True
        connection.close()
        thread.join()
    assert broken


def test_many_concurrent_requests(outside, inside, target):
    failures = []

    def ask(number):
        connection = http.client.HTTPConnection("127.0.0.1", outside.port, timeout=20)
        try:
            for turn in range(5):
                headers = {"Host": f"{inside.port}-sbi-1.x", "X-Access-Token": "the-token"}
                connection.request("POST", f"/{number}", body=str(turn), headers=headers)
                told = json.loads(connection.getresponse().read())
                if (told["path"], told["body"]) != (f"/{number}", str(turn)):
                    failures.append(told)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
