import socket

import httpx
import pytest

from ags_flows.emulator.gateway.routing import route_of, token_of

TOKEN = "the-token"


def scope(path="/x", query="", **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": pairs,
    }


@pytest.mark.parametrize(
    ("request_", "instance", "port", "path"),
    [
        (scope(host="8080-sbi-a.localhost:8600"), "sbi-a", 8080, "/x"),
        (scope(host="8080-sbi-a.ap-guangzhou.tencentags.com"), "sbi-a", 8080, "/x"),
        (scope(host="api", e2b_sandbox_id="sbi-a"), "sbi-a", 49983, "/x"),
        (scope(host="api", e2b_sandbox_id="sbi-a", e2b_sandbox_port="49999"), "sbi-a", 49999, "/x"),
        (scope(host="api", x_sandbox_id="sbi-a", x_sandbox_port="80"), "sbi-a", 80, "/x"),
        (scope(host="api", x_cs_sandbox_id="sbi-a", x_cs_sandbox_port="80"), "sbi-a", 80, "/x"),
        (scope(host="api", cookie="a=b; x-sandbox-id=sbi-a; x-sandbox-port=80"), "sbi-a", 80, "/x"),
        (scope(query="x-sandbox-id=sbi-a&x-sandbox-port=80", host="api"), "sbi-a", 80, "/x"),
        (scope("/sandbox/sbi-a/80/a%2Fb", host="api"), "sbi-a", 80, "/a%2Fb"),
        (scope("/sandbox/sbi-a/80", host="api"), "sbi-a", 80, "/"),
        # Host beats header beats cookie beats path.
        (scope(host="1-one.x", e2b_sandbox_id="two", cookie="x-sandbox-id=three"), "one", 1, "/x"),
        (scope("/sandbox/four/4", host="x", x_sandbox_id="two", cookie="x-sandbox-id=three"), "two", 49983, None),
        (scope("/sandbox/four/4", host="x", cookie="x-sandbox-id=three"), "three", 49983, None),
    ],
)
def test_a_request_finds_its_sandbox_and_port(request_, instance, port, path):
    route = route_of(request_)
    assert (route.instance_id, route.port) == (instance, port)
    assert path is None or route.path == path


@pytest.mark.parametrize(
    "request_",
    [
        scope(host="127.0.0.1:8600"),
        scope(host="localhost"),
        scope(host="99999-sbi-a.localhost"),
        scope("/sandbox/sbi-a/99999", host="api"),
        scope("/sandboxes", host="api"),
        {"type": "lifespan"},
    ],
)
def test_other_requests_are_not_for_a_sandbox(request_):
    assert route_of(request_) is None


def test_a_token_comes_as_header_or_in_the_query():
    assert token_of(scope(x_access_token="a")) == "a"
    assert token_of(scope(e2b_traffic_access_token="b")) == "b"
    assert token_of(scope(query="access_token=c")) == "c"
    assert token_of(scope()) is None


def get(outside, path="/", **headers):
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(outside.url + path, headers=pairs, trust_env=False)


def test_a_request_that_is_not_for_a_sandbox_is_left_alone(outside, target):
    assert get(outside).status_code == 418


@pytest.mark.parametrize(
    ("mode", "token", "status"),
    [
        ("TOKEN", None, 401),
        ("TOKEN", "wrong", 401),
        ("TOKEN", TOKEN, 200),
        ("PUBLIC", None, 200),
        ("NONE", None, 200),
    ],
)
def test_the_token_is_checked_as_the_auth_mode_asks(outside, inside, target, mode, token, status):
    target.auth_mode = mode
    headers = {"host": f"{inside.port}-sbi-1.x"} | ({"X-Access-Token": token} if token else {})
    answer = get(outside, **headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == 401


def test_the_token_may_be_in_the_query(outside, inside, target):
    assert get(outside, f"/sandbox/sbi-1/{inside.port}/?access_token={TOKEN}").status_code == 200


def test_envd_checks_tokens_itself(outside, target):
    assert get(outside, "/health", e2b_sandbox_id="sbi-1").json() == {"envd": "/health"}
    assert get(outside, "/sandbox/sbi-1/49983/a%20b").json() == {"envd": "/a b"}


def test_the_code_interpreter_is_built_in_and_its_contexts_need_no_token(outside, target):
    assert get(outside, "/contexts", e2b_sandbox_id="sbi-1", e2b_sandbox_port="49999").status_code == 401
    target.code_app = target.envd_app
    assert get(outside, "/contexts", e2b_sandbox_id="sbi-1", e2b_sandbox_port="49999").status_code == 200
    assert get(outside, "/execute", e2b_sandbox_id="sbi-1", e2b_sandbox_port="49999").status_code == 401
    headers = {"e2b_sandbox_id": "sbi-1", "e2b_sandbox_port": "49999", "x_access_token": TOKEN}
    assert get(outside, "/execute", **headers).json() == {"envd": "/execute"}


def test_what_is_gone_is_404_for_http_and_502_in_the_words_of_e2bs_sdks(outside, target):
    plain = get(outside, host="80-nobody.x")
    assert plain.status_code == 404
    assert "was not found" in plain.json()["message"]
    sdk = get(outside, "/health", host="49983-nobody.x", e2b_sandbox_id="nobody")
    assert sdk.status_code == 502
    assert "was not found" in sdk.json()["message"]
    assert sdk.json()["sandboxId"] == "nobody"


def test_a_paused_sandbox_is_not_to_be_reached(outside, target):
    target.state = "paused"
    assert get(outside, host="80-sbi-1.x", x_access_token=TOKEN).status_code == 409
    assert get(outside, e2b_sandbox_id="sbi-1").status_code == 502


def test_a_port_that_nothing_listens_on_is_502(outside, target):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = get(outside, host=f"{port}-sbi-1.x", x_access_token=TOKEN)
    assert answer.status_code == 502
    assert answer.json()["message"] == "The sandbox is running but port is not open"
    assert answer.json()["port"] == port


def test_what_does_not_speak_http_is_502(outside, target):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        import threading

        def babble():
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"\x00\x01 this is not HTTP\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        answer = get(outside, host=f"{listener.getsockname()[1]}-sbi-1.x", x_access_token=TOKEN)
        thread.join()
    assert answer.status_code == 502
