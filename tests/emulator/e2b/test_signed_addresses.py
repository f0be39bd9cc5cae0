"""Addresses that the SDK signs, where all sandboxes have one host: the signature tells whose file is meant."""

import urllib.request

import httpx
import pytest

EXPIRED = {"code": 401, "message": "signature is already expired"}


@pytest.fixture
def sandbox(sandboxes):
    """One of three sandboxes, with a file that the others have too."""
    made = [sandboxes.create("base") for _ in range(3)]
    for number, each in enumerate(made):
        each.files.write("a file+.txt", f"of sandbox {number}")
    return made[1]


@pytest.mark.parametrize("expiration", [None, 120])
def test_whoever_has_the_address_reads_the_file_of_that_sandbox(sandbox, expiration):
    for user in ("user", None):
        address = sandbox.download_url("a file+.txt", user, use_signature_expiration=expiration)
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == b"of sandbox 1"


@pytest.mark.parametrize("user, path", [(None, "/home/user/in.txt"), ("root", "/root/in.txt")])
@pytest.mark.parametrize("name", ["ignored", None])
def test_whoever_has_the_address_writes_the_file_of_that_sandbox(sandbox, user, path, name):
    address = sandbox.upload_url("in.txt", user, use_signature_expiration=120)
    answer = httpx.post(address, files={"file": (name, b"sent")})
    assert (answer.status_code, answer.json()) == (200, [{"path": path, "name": "in.txt", "type": "file"}])
    assert sandbox.files.read(path, user="root") == "sent"


def test_an_address_ends_with_its_time(sandbox):
    for address, method in (
        (sandbox.download_url("a file+.txt", "user", use_signature_expiration=-10), "GET"),
        (sandbox.upload_url("a file+.txt", "user", use_signature_expiration=-10), "POST"),
    ):
        answer = httpx.request(method, address, files={"file": b"x"} if method == "POST" else None)
        assert (answer.status_code, answer.json()) == (401, EXPIRED)


def test_an_address_opens_nothing_else(sandbox, emulator):
    address = sandbox.download_url("a file+.txt", "user")
    for other in (
        address.replace("username=user", "username=root"),
        address.replace("a%20file", "another").replace("a+file", "another"),
        address.replace("signature=v1_", "signature=v1_A"),
        f"{emulator.url}/files?path=/etc/passwd",
    ):
        answer = httpx.get(other)
        assert other != address
        assert answer.status_code == 401
        assert "no sandbox has signed this address" in answer.json()["message"]
    assert httpx.post(address, files={"file": b"x"}).status_code == 401


def test_an_address_of_a_sandbox_that_is_gone_says_so(sandbox):
    address = sandbox.download_url("a file+.txt", "user")
    sandbox.kill()
    answer = httpx.get(address)
    assert (answer.status_code, answer.json()["message"]) == (502, "The sandbox was not found")
