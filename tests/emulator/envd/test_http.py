"""The plain HTTP routes, tokens, signed URLs; what happens at the edges."""

import gzip
import json
import os
import socket
import threading
import time
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from e2b import SandboxException, TimeoutException
from e2b.exceptions import (
    AuthenticationException,
    NotEnoughSpaceException,
    SandboxNotRunningException,
)


def test_health_needs_no_token(http):
    assert http.get("/health", headers={"X-Access-Token": "wrong"}).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/files?path=/etc/hosts"),
        ("POST", "/files?path=/tmp/x"),
        ("GET", "/envs"),
        ("GET", "/metrics"),
        ("POST", "/init"),
        ("POST", "/process.Process/List"),
        ("POST", "/filesystem.Filesystem/Stat"),
        ("GET", "/unknown"),
    ],
)
@pytest.mark.parametrize("token", ["wrong", None])
def test_everything_else_needs_the_token(http, method, path, token):
    if token is None:
        del http.headers["X-Access-Token"]
    answer = http.request(method, path, headers={"X-Access-Token": token} if token else {})

    assert answer.status_code == 401
    assert answer.json()["code"] == 401


def test_the_sdk_raises_for_a_wrong_token(served, name, box):
    served.machines[name][2].token = "another"
    try:
        with pytest.raises(AuthenticationException):
            box.commands.run("true")
        with pytest.raises(AuthenticationException):
            box.files.read("/etc/hosts")
        assert box.is_running()
    finally:
        served.machines[name][2].token = "token-of-a-test"


def test_parts_of_a_file_are_served(http, box):
    box.files.write("/tmp/ranged", "0123456789")
    path = {"path": "/tmp/ranged"}
    part = http.get("/files", params=path, headers={"Range": "bytes=2-5"})

    assert (part.status_code, part.text, part.headers["content-range"]) == (206, "2345", "bytes 2-5/10")
    assert http.get("/files", params=path, headers={"Range": "bytes=7-"}).text == "789"
    assert http.get("/files", params=path, headers={"Range": "bytes=-3"}).text == "789"
    assert http.get("/files", params=path, headers={"Range": "bytes=20-30"}).status_code == 416
    assert http.head("/files", params=path).status_code in (200, 404, 405)


def test_an_unchanged_file_is_not_sent_again(http, box):
    box.files.write("/tmp/known", "x")
    first = http.get("/files", params={"path": "/tmp/known"})
    tag, date = first.headers["etag"], first.headers["last-modified"]

    assert http.get("/files", params={"path": "/tmp/known"}, headers={"If-None-Match": tag}).status_code == 304
    assert http.get("/files", params={"path": "/tmp/known"}, headers={"If-Modified-Since": date}).status_code == 304
    box.files.write("/tmp/known", "yy")
    assert http.get("/files", params={"path": "/tmp/known"}, headers={"If-None-Match": tag}).text == "yy"


def test_uploads_that_make_no_sense_are_refused(http):
    stream = {"Content-Type": "application/octet-stream"}
    cases = [
        http.post("/files", content=b"x", headers=stream),
        http.post("/files?path=/tmp/x", content=b"x", headers={"Content-Type": "text/plain"}),
        http.post("/files?path=/tmp/x", content=b"not gzip", headers={**stream, "Content-Encoding": "gzip"}),
        http.post("/files?path=/tmp/x", content=b"x", headers={**stream, "Content-Encoding": "br"}),
        http.post(
            "/files?path=/tmp/x", content=b"garbage", headers={"Content-Type": "multipart/form-data; boundary=b"}
        ),
        http.post("/files?path=/tmp/x", files=[("file", ("a", b"1")), ("file", ("b", b"2"))]),
        http.post("/files", files=[("file", ("/tmp/same", b"1")), ("file", ("/tmp/same", b"2"))]),
        http.post("/files?path=/tmp/%00", content=b"x", headers=stream),
        http.post("/files?path=/tmp/x", content=b"x", headers={**stream, "X-Metadata-big": "v" * 5000}),
    ]

    assert [answer.status_code for answer in cases] == [400] * len(cases)
    assert all(answer.json()["message"] for answer in cases)


def test_a_compressed_upload_is_unpacked(http, box):
    headers = {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}
    answer = http.post("/files?path=/tmp/packed", content=gzip.compress(b"text" * 1000), headers=headers)

    assert answer.json() == [{"path": "/tmp/packed", "name": "packed", "type": "file"}]
    assert box.files.read("/tmp/packed") == "text" * 1000


def test_a_form_may_be_compressed_as_a_whole(http, box):
    request = http.build_request("POST", "/files?path=/tmp/form", files={"file": ("x", b"part" * 1000)})
    headers = {"Content-Type": request.headers["content-type"], "Content-Encoding": "gzip"}
    answer = http.post("/files?path=/tmp/form", content=gzip.compress(request.read()), headers=headers)

    assert answer.status_code == 200
    assert box.files.read("/tmp/form") == "part" * 1000


@pytest.mark.parametrize("expiration", [None, 60])
def test_signed_urls_work_without_a_token(box, expiration):
    box.files.write("signed.txt", "for all")
    download = box.download_url("signed.txt", "user", use_signature_expiration=expiration)
    upload = box.upload_url("uploaded.txt", "user", use_signature_expiration=expiration)

    assert httpx.get(download).text == "for all"
    assert httpx.post(upload, files={"file": ("x", b"sent")}).status_code == 200
    assert box.files.read("uploaded.txt") == "sent"


def test_signed_urls_expire_and_cannot_be_changed(box):
    box.files.write("signed.txt", "for all")
    late = httpx.get(box.download_url("signed.txt", "user", use_signature_expiration=-10))
    good = box.download_url("signed.txt", "user")

    assert (late.status_code, late.json()) == (401, {"code": 401, "message": "signature is already expired"})
    assert httpx.get(good.replace("signed.txt", "other.txt")).status_code == 401
    assert httpx.post(good, files={"file": ("x", b"sent")}).status_code == 401
    assert httpx.get(good, headers={"X-Access-Token": "wrong"}).status_code == 401


def test_environment_and_metrics_are_returned(http):
    figures = http.get("/metrics").json()

    assert http.get("/envs").json()["GIVEN"] == "by the sandbox"
    assert figures["cpu_count"] >= 1
    assert figures["mem_total"] > figures["mem_used"] >= 0
    assert figures["disk_total"] > 0


def test_init_changes_environment_user_and_directory(served):
    name = served.make()
    try:
        box = served.attach(name)
        headers = {"E2b-Sandbox-Id": name, "X-Access-Token": "token-of-a-test"}
        given = {"envVars": {"LATER": "1"}, "defaultUser": "root", "defaultWorkdir": "/tmp"}
        assert httpx.post(f"{served.url}/init", json=given, headers=headers).status_code == 204
        assert box.commands.run("echo $LATER; echo $USER; pwd").stdout.split() == ["1", "root", "/tmp"]
        assert httpx.post(f"{served.url}/init", content=b"[", headers=headers).status_code == 400
        assert httpx.post(f"{served.url}/init", content=b"[1]", headers=headers).status_code == 400
    finally:
        served.kill(name)


@pytest.mark.parametrize(
    "path", ["/process.Process/Start", "/process.Process/List", "/filesystem.Filesystem/Stat", "/process.Process/None"]
)
@pytest.mark.parametrize("kind", ["application/json", "application/connect+json", "application/proto", "text/plain"])
def test_garbage_gets_an_error_and_nothing_breaks(http, box, path, kind):
    for body in (b"", b"{", os.urandom(200), b"\0\0\0\0\2{}", b"[]", b'"x"', b'{"process":5}'):
        answer = http.post(path, content=body, headers={"Content-Type": kind, "Connect-Protocol-Version": "1"})
        assert answer.status_code < 500 or answer.json()["code"] == "unimplemented"
    assert box.commands.run("echo well").stdout == "well\n"


def test_unknown_fields_are_ignored(http):
    answer = http.post("/filesystem.Filesystem/Stat", json={"path": "/tmp", "newer": {"than": 1}})

    assert answer.status_code == 200
    assert answer.json()["entry"]["type"] == "FILE_TYPE_DIRECTORY"


def test_a_full_disk_is_reported(served):
    name = served.make(storage_bytes=8 << 20)
    try:
        box = served.attach(name)
        with pytest.raises(NotEnoughSpaceException):
            box.files.write("big", b"x" * (20 << 20))
        box.files.remove("big")
        assert box.commands.run("head -c 20000000 /dev/zero > big || echo full").stdout == "full\n"
        box.files.remove("big")
        box.files.write("small", b"x" * (1 << 20))
        assert int(box.commands.run("df --output=size -B1 / | tail -1").stdout) == 8 << 20
    finally:
        served.kill(name)


def test_a_sandbox_that_is_killed_ends_its_streams(served):
    name = served.make()
    box = served.attach(name)
    handle = box.commands.run("sleep 60", background=True, timeout=0)
    threading.Timer(0.3, served.kill, [name]).start()
    with pytest.raises(SandboxNotRunningException):
        handle.wait()

    assert not box.is_running()
    with pytest.raises((SandboxException, TimeoutException)):
        box.commands.run("true")


def test_a_sandbox_whose_first_process_is_killed_takes_only_itself_along(served, box):
    name = served.make()
    victim = served.attach(name)
    with pytest.raises((SandboxException, TimeoutException)):
        victim.commands.run("kill -9 -1; sleep 5", user="root")
        served.call(served.machines[name][0].wait_dead())
    served.kill(name)

    assert box.commands.run("echo well").stdout == "well\n"


def test_a_large_file_goes_through_without_being_held_in_memory(http, box, tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(300 << 20)
    me = psutil.Process()
    before, most, done = me.memory_info().rss, 0, threading.Event()

    def watch():
        nonlocal most
        while not done.wait(0.02):
            most = max(most, me.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with big.open("rb") as file:
            box.files.write("/tmp/big", file)
        with http.stream("GET", "/files", params={"path": "/tmp/big"}) as answer:
            size = sum(len(piece) for piece in answer.iter_raw())
    finally:
        done.set()
        thread.join()
        box.files.remove("/tmp/big")

    assert size == 300 << 20
    assert most - before < 60 << 20


def test_a_broken_off_upload_leaves_the_server_well(served, name, box):
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST /files?path=/tmp/half HTTP/1.1\r\nHost: x\r\nE2b-Sandbox-Id: {name}\r\n"
        head += (
            "X-Access-Token: token-of-a-test\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\n"
        )
        connection.sendall(head.encode() + b"half")
        time.sleep(0.2)

    assert box.commands.run("echo well").stdout == "well\n"


def test_the_binary_codec_is_spoken_too(http):
    answer = http.post(
        "/process.Process/List",
        content=b"",
        headers={"Content-Type": "application/proto", "Connect-Protocol-Version": "1"},
    )

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/proto"


def test_a_keepalive_comes_when_nothing_else_does(served, name):
    body = json.dumps({"process": {"cmd": "/bin/sleep", "args": ["1.5"]}}).encode()
    headers = {
        "E2b-Sandbox-Id": name, "X-Access-Token": "token-of-a-test", "Content-Type": "application/connect+json",
        "Connect-Protocol-Version": "1", "Keepalive-Ping-Interval": "1",
    }  # fmt: skip
    answer = httpx.post(
        f"{served.url}/process.Process/Start", content=b"\0" + len(body).to_bytes(4, "big") + body, headers=headers
    )

    assert b'"keepalive"' in answer.content
    assert b'"exitCode"' not in answer.content or b'"end"' in answer.content


def test_an_error_does_not_overtake_the_body_of_its_request(served, name):
    url = urlsplit(served.url)
    head = (
        f"POST /files?path=a&username=nosuch HTTP/1.1\r\nHost: {url.netloc}\r\nE2b-Sandbox-Id: {name}\r\n"
        f"X-Access-Token: token-of-a-test\r\nContent-Type: application/octet-stream\r\nContent-Length: 4\r\n\r\nab"
    )
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(head.encode())
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        connection.sendall(b"cd")
        refused = HTTPResponse(connection)
        refused.begin()
        assert (refused.status, b"nosuch" in refused.read()) == (401, True)
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: {url.netloc}\r\nE2b-Sandbox-Id: {name}\r\n\r\n".encode())
        healthy = HTTPResponse(connection)
        healthy.begin()
        assert healthy.status == 204
