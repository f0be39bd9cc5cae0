"""URLs that the SDK signs, where all sandboxes have one host: the signature identifies the sandbox."""

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
def test_a_signed_url_reads_the_file_of_its_sandbox(sandbox, expiration):
    for user in ("user", None):
        url = sandbox.download_url("a file+.txt", user, use_signature_expiration=expiration)
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"of sandbox 1"


@pytest.mark.parametrize("user, path", [(None, "/home/user/in.txt"), ("root", "/root/in.txt")])
@pytest.mark.parametrize("name", ["ignored", None])
def test_a_signed_url_writes_the_file_of_its_sandbox(sandbox, user, path, name):
    url = sandbox.upload_url("in.txt", user, use_signature_expiration=120)
    answer = httpx.post(url, files={"file": (name, b"sent")})
    assert (answer.status_code, answer.json()) == (200, [{"path": path, "name": "in.txt", "type": "file"}])
    assert sandbox.files.read(path, user="root") == "sent"


def test_a_signed_url_expires(sandbox):
    for url, method in (
        (sandbox.download_url("a file+.txt", "user", use_signature_expiration=-10), "GET"),
        (sandbox.upload_url("a file+.txt", "user", use_signature_expiration=-10), "POST"),
    ):
        answer = httpx.request(method, url, files={"file": b"x"} if method == "POST" else None)
        assert (answer.status_code, answer.json()) == (401, EXPIRED)


def test_a_signed_url_gives_access_to_nothing_else(sandbox, emulator):
    url = sandbox.download_url("a file+.txt", "user")
    for other in (
        url.replace("username=user", "username=root"),
        url.replace("a%20file", "another").replace("a+file", "another"),
        url.replace("signature=v1_", "signature=v1_A"),
        f"{emulator.url}/files?path=/etc/passwd",
    ):
        answer = httpx.get(other)
        assert other != url
        assert answer.status_code == 401
        assert "no sandbox has signed this URL" in answer.json()["message"]
    assert httpx.post(url, files={"file": b"x"}).status_code == 401


def test_a_signed_url_of_a_sandbox_that_is_gone_has_a_clear_error(sandbox):
    url = sandbox.download_url("a file+.txt", "user")
    sandbox.kill()
    answer = httpx.get(url)
    assert (answer.status_code, answer.json()["message"]) == (502, "The sandbox was not found")
