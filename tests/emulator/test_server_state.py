"""What survives a restart when a directory is given."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from ags_flows.emulator import Emulator


class Account:
    """E2B's routes and the controls, over plain HTTP."""

    def __init__(self, url, api_key):
        self.client = httpx.Client(base_url=url, headers={"X-API-KEY": api_key}, timeout=30)

    def create(self, **fields):
        answer = self.client.post("/v2/sandboxes", json={"templateID": "base", "timeout": 600, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()["sandboxID"]

    def detail(self, sandbox_id):
        return self.client.get(f"/sandboxes/{sandbox_id}").json()

    def wait(self, sandbox_id, state):
        deadline = time.monotonic() + 20
        while True:
            found = self.detail(sandbox_id)
            # One that is being started again has the status RUNNING too; only its port shows the difference.
            if found.get("state") == state and (state != "running" or self.files(sandbox_id).status_code != 502):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def files(self, sandbox_id, path="/home/user/kept.txt", **more):
        headers = {
            "E2b-Sandbox-Id": sandbox_id,
            "E2b-Sandbox-Port": "49983",
            "X-Access-Token": self.detail(sandbox_id)["envdAccessToken"],
        }
        method = "POST" if more else "GET"
        return self.client.request(method, "/files", params={"path": path}, headers=headers, **more)

    def write(self, sandbox_id, text):
        assert self.files(sandbox_id, files={"file": ("kept.txt", text)}).status_code == 200


@pytest.fixture
def account_of():
    made = []

    def account(url, api_key):
        made.append(Account(url, api_key))
        return made[-1]

    yield account
    for each in made:
        each.client.close()


def test_tools_keys_snapshots_and_sandboxes_survive_a_restart(tmp_path, account_of):
    with Emulator(state=tmp_path) as emulator:
        account = account_of(emulator.url, emulator.api_key)
        running, paused, killed = (account.create(metadata={"n": str(index)}) for index in range(3))
        account.write(running, "files stay")
        account.write(paused, "files of paused ones, too")
        account.client.post(f"/sandboxes/{paused}/pause")
        account.client.delete(f"/sandboxes/{killed}")
        snapshot = account.client.post(f"/sandboxes/{running}/snapshots", json={"name": "kept"}).json()["snapshotID"]
        before = account.detail(running)
        account.client.post("/_emulator/clock", json={"advance": 60})

    with Emulator(state=tmp_path) as emulator:
        account = account_of(emulator.url, emulator.api_key)
        after = account.wait(running, "running")
        for same in ("envdAccessToken", "templateID", "metadata", "endAt"):
            assert after[same] == before[same]
        assert account.files(running).text == "files stay"
        assert account.detail(paused)["state"] == "paused"
        assert account.client.post(f"/v2/sandboxes/{paused}/connect", json={"timeout": 60}).status_code == 201
        assert account.files(paused).text == "files of paused ones, too"
        assert account.client.get(f"/sandboxes/{killed}").status_code == 404
        copy = account.create(templateID=snapshot)
        assert account.files(copy).text == "files stay"
        assert emulator.overview()["advanced"] == 60
        emulator.reset()
        assert emulator.overview()["advanced"] == 0

    with Emulator(state=tmp_path) as emulator:
        regions = emulator.overview()["regions"]
        assert all(not region["instances"] and not region["snapshots"] for region in regions.values())
    leftovers = [path for name in ("machines", "parked", "snapshots") for path in (tmp_path / name).glob("*")]
    assert leftovers == []


def test_what_expired_while_it_was_away_is_stopped(tmp_path, account_of):
    with Emulator(state=tmp_path) as emulator:
        account = account_of(emulator.url, emulator.api_key)
        sandbox_id = account.create(timeout=1)
    time.sleep(1.1)
    with Emulator(state=tmp_path) as emulator:
        account = account_of(emulator.url, emulator.api_key)
        assert account.client.get(f"/sandboxes/{sandbox_id}").status_code == 404
        [shown] = emulator.overview()["regions"]["ap-guangzhou"]["instances"]
        assert (shown["Status"], shown["StopReason"]) == ("STOPPED", "timeout")


def test_it_survives_being_killed(tmp_path, account_of):
    env_file, state = tmp_path / "env", tmp_path / "state"
    code = f"from ags_flows.emulator import serve; serve(port=0, state={str(state)!r}, env_file={str(env_file)!r})"

    def start():
        env_file.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not env_file.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        exports = dict(line.removeprefix("export ").split("=", 1) for line in env_file.read_text().splitlines())
        return process, account_of(exports["AGS_ENDPOINT"], exports["E2B_API_KEY"])

    first, account = start()
    try:
        sandbox_id = account.create()
        account.write(sandbox_id, "written before the end")
        token = account.detail(sandbox_id)["envdAccessToken"]
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    second, account = start()
    try:
        assert account.wait(sandbox_id, "running")["envdAccessToken"] == token
        assert account.files(sandbox_id).text == "written before the end"
    finally:
        second.terminate()
        assert second.wait(20) == 0
