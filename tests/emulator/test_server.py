"""The emulator as a whole: its life, its controls, its page, its process."""

import gc
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from ags_flows.emulator import Emulator


def test_it_is_ready_within_a_second_and_leaves_no_thread_and_no_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = set(threading.enumerate())
    began = time.monotonic()
    with Emulator() as emulator:
        assert time.monotonic() - began < 1
        assert httpx.get(f"{emulator.url}/health").json() == {"status": "ok"}
        headers = {"X-API-KEY": emulator.api_key}
        made = httpx.post(f"{emulator.url}/sandboxes", json={"templateID": "base"}, headers=headers, timeout=30)
        assert made.status_code == 201
        assert list(tmp_path.iterdir())
    assert set(threading.enumerate()) <= before
    assert not list(tmp_path.iterdir())
    with pytest.raises(httpx.ConnectError):
        httpx.get(emulator.url)
    emulator.stop()


def test_a_sandbox_that_is_killed_while_it_starts_leaves_no_socket(recwarn):
    with Emulator() as emulator, httpx.Client(base_url=emulator.url, timeout=30) as client:
        client.headers["X-API-KEY"] = emulator.api_key
        for _ in range(4):
            made = client.post("/sandboxes", json={"templateID": "code-interpreter-v1"}).json()
            client.delete(f"/sandboxes/{made['sandboxID']}")
    gc.collect()
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


def test_what_a_killed_emulator_left_behind_is_swept_away_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Emulator() as alive:
        [held] = tmp_path.iterdir()
        (tmp_path / "ags-emulator-stale" / "machines").mkdir(parents=True)
        # Deeper than Python's stack.
        subprocess.run(["mkdir", "-p", tmp_path / "ags-emulator-stale" / "/".join("d" * 1200)], check=True)
        for each in tmp_path.iterdir():
            os.utime(each, (0, 0))
        with Emulator():
            assert held.exists() and not (tmp_path / "ags-emulator-stale").exists()
        assert httpx.get(f"{alive.url}/health").status_code == 200


def test_it_can_be_started_again_and_beside_others():
    first, second = Emulator(), Emulator()
    with first, second:
        assert first.url != second.url
    with first:
        assert httpx.get(f"{first.url}/health").status_code == 200
        with pytest.raises(RuntimeError):
            first.start()


def test_it_listens_on_loopback_only():
    for host in ("0.0.0.0", "example.com", "10.0.0.1"):
        with pytest.raises(ValueError, match="loopback"):
            Emulator(host=host)


def test_a_taken_port_has_a_clear_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="cannot listen"):
            Emulator(taken.getsockname()[1]).start()


def test_a_state_directory_has_one_emulator_at_a_time(tmp_path):
    with Emulator(state=tmp_path):
        with pytest.raises(OSError, match="in use"):
            Emulator(state=tmp_path).start()
    with Emulator(state=tmp_path):
        pass


def test_the_environment_holds_what_clients_need():
    with Emulator() as emulator:
        assert emulator.environment == {
            "AGS_ENDPOINT": emulator.url,
            "TENCENTCLOUD_SECRET_ID": emulator.secret_id,
            "TENCENTCLOUD_SECRET_KEY": emulator.secret_key,
            "E2B_API_KEY": emulator.api_key,
            "E2B_API_URL": emulator.url,
            "E2B_SANDBOX_URL": emulator.url,
        }


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as running:
        yield running


@pytest.fixture
def control(emulator):
    emulator.reset()
    with httpx.Client(base_url=f"{emulator.url}/_emulator") as client:
        yield client


def test_everything_can_be_controlled_over_http(control):
    fault = control.post("/faults", json={"kind": "slow", "operation": "*", "seconds": 0.1, "times": None}).json()
    assert fault["fault"] >= 1
    assert control.post("/limits", json={"quotas": True, "instances": 3}).json()["limits"]["instances"] == 3
    assert control.post("/clock", json={"advance": 60}).json()["advanced"] == 60
    steps = control.post("/transitions", json={"step": "tool.create", "mode": "seconds", "value": 1}).json()
    assert steps["transitions"]["tool.create"]["value"] == 1
    overview = control.get("").json()
    assert overview["faults"][0]["kind"] == "slow" and overview["limits"]["quotas"] is True
    assert {tool["ToolName"] for tool in overview["regions"]["ap-guangzhou"]["tools"]} == {
        "base",
        "code-interpreter-v1",
    }
    assert control.delete("/faults").json() == {}
    assert control.delete("/transitions").status_code == 200
    assert control.post("/client-tokens", json={"on_repeat": "refuse"}).status_code == 200
    assert control.post("/tokens/expire").json() == {"instances": 0}
    assert control.get("/requests").json()["requests"]
    assert control.post("/reset").status_code == 200
    overview = control.get("").json()
    assert overview["advanced"] == 0 and overview["limits"]["quotas"] is False and overview["faults"] == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/faults", {"kind": "earthquake"}, 400),
        ("/faults", {"kind": "slow", "seconds": "x"}, 400),
        ("/faults", {"colour": "red"}, 400),
        ("/faults", {}, 400),
        ("/faults", {"kind": "lost", "fault_id": 3}, 400),
        ("/faults", {"kind": "status", "status": 7}, 400),
        ("/faults", {"kind": "lost", "times": 0}, 400),
        ("/streams", {}, 400),
        ("/streams", {"kind": "cut", "times": "x"}, 400),
        ("/streams", {"kind": "delay", "after_seconds": -1}, 400),
        ("/streams", {"kind": "slow", "bytes_per_second": True}, 400),
        ("/limits", {"colour": 1}, 400),
        ("/limits", {"instances": "3"}, 400),
        ("/limits", {"paused": -3}, 400),
        ("/limits", {"quotas": None}, 400),
        ("/client-tokens", {}, 400),
        ("/client-tokens", {"on_repeat": "sing"}, 400),
        ("/clock", {}, 400),
        ("/clock", {"advance": -1}, 400),
        ("/clock", {"advance": "x"}, 400),
        ("/clock", {"advance": 1e300}, 400),
        ("/transitions", {"step": "tool.paint", "mode": "never"}, 400),
        ("/transitions", {"step": "tool.create", "mode": "maybe"}, 400),
        ("/transitions", {"step": "tool.create", "mode": "seconds", "value": -1}, 400),
        ("/transitions", {"step": "tool.create"}, 400),
        ("/transitions", {"mode": "never"}, 400),
        ("/tokens/expire", {"instance": "nothing"}, 404),
        ("/instances/nothing/die", {}, 404),
        ("/nothing", {}, 404),
    ],
)
def test_wrong_controls_are_explained(control, path, body, status):
    answer = control.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert not re.search("None|__init__|argument|class", answer.json()["error"]), answer.text


def test_a_web_page_cannot_control_it(control):
    answer = control.post("/clock", content=b'{"advance": 5}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400 and "application/json" in answer.json()["error"]
    assert control.post("/reset", headers={"Origin": "http://evil.example"}).status_code == 403


def test_each_request_is_one_line_of_the_log(emulator, caplog):
    with caplog.at_level("INFO", logger="ags_flows.emulator"):
        httpx.get(f"{emulator.url}/v2/sandboxes", headers={"X-API-KEY": emulator.api_key})
        httpx.post(emulator.url, headers={"X-TC-Action": "Evil"})
        # A line is written after the response, and another emulator of this process may write to the same logger.
        deadline = time.monotonic() + 10
        lines = []
        while len(lines) < 2 and time.monotonic() < deadline:
            lines = [line for line in map(str, caplog.messages) if "/sandboxes" in line or "Evil" in line]
            time.sleep(0.01)
    assert len(lines) == 2 and "GET /sandboxes -> 200" in lines[0] and "Evil -> MissingParameter" in lines[1]


def test_the_page_shows_tools_instances_and_requests_and_needs_nothing_else(emulator):
    emulator.reset()
    headers = {"X-API-KEY": emulator.api_key}
    body = {"templateID": "base", "metadata": {"<script>": "<img src=x>"}}
    sandbox_id = httpx.post(f"{emulator.url}/sandboxes", json=body, headers=headers, timeout=30).json()["sandboxID"]
    answer = httpx.get(emulator.url, headers={"Accept": "text/html"})
    assert answer.headers["content-type"].startswith("text/html")
    assert sandbox_id in answer.text and "code-interpreter-v1" in answer.text and "POST /sandboxes" in answer.text
    assert "<img src=x>" not in answer.text and "http://" not in answer.text and "https://" not in answer.text
    assert emulator.secret_key not in answer.text and emulator.api_key not in answer.text


def test_an_unknown_route_is_a_404_in_json(emulator):
    answer = httpx.get(f"{emulator.url}/nothing", headers={"X-API-KEY": emulator.api_key})
    assert (answer.status_code, answer.json()["code"]) == (404, 404)


def test_thousands_of_connections_are_served(emulator):
    host, port = emulator.url.removeprefix("http://").split(":")
    connections = []
    try:
        for _ in range(min(2000, limit_of_files() // 3)):
            connections.append(socket.create_connection((host, int(port)), timeout=10))
        assert httpx.get(f"{emulator.url}/health", timeout=10).status_code == 200
    finally:
        for each in connections:
            each.close()


def limit_of_files():
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def serve_in_process(*arguments, **more):
    code = "import sys; from ags_flows.emulator import serve; sys.exit(serve(" + ", ".join(arguments) + "))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AGS_", "E2B_"))}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **more
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_writes_its_exports_when_ready_and_ends_on_a_signal(tmp_path, number):
    env_file = tmp_path / "emulator.env"
    process = serve_in_process("port=0", f"env_file={str(env_file)!r}")
    try:
        deadline = time.monotonic() + 30
        while not env_file.exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
        exported = subprocess.run(
            ["sh", "-c", '. "$1"; echo "$AGS_ENDPOINT"', "sh", str(env_file)], capture_output=True, text=True
        )
        assert httpx.get(f"{exported.stdout.strip()}/health").status_code == 200
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0 and errors == ""
    assert "export AGS_ENDPOINT=http://127.0.0.1:" in output and "not a security boundary" in output


def test_a_taken_port_ends_the_process_with_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = serve_in_process(f"port={taken.getsockname()[1]}")
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and len(errors.splitlines()) == 1
    assert "is taken" in errors and "--port" in errors and output == ""


def test_it_imports_nothing_of_the_client_side():
    package = Path(__file__).parents[2] / "ags_flows" / "emulator"
    for source in package.rglob("*.py"):
        for line in source.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"]) and words[1].startswith("ags_flows"):
                assert words[1].startswith("ags_flows.emulator"), f"{source}: {line}"
