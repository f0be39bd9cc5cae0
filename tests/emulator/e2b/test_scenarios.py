"""What users of E2B do with sandboxes, end to end, with both flavours of the real SDK."""

import asyncio
import time

import httpx
import pytest
from e2b import E2B
from e2b.exceptions import SandboxNotFoundException, TimeoutException


def test_files_and_commands_work_and_end_with_the_sandbox(sandboxes):
    sandbox = sandboxes.create("base", envs={"GREETING": "hello"})
    assert sandbox.is_running()
    assert sandbox.commands.run('echo "$GREETING from $(whoami) in $PWD"').stdout == "hello from user in /home/user\n"
    sandbox.files.write("data/report.txt", "figures")
    assert sandboxes.connect(sandbox.sandbox_id).files.read("/home/user/data/report.txt") == "figures"
    command = sandbox.commands.run("sleep 300", background=True, timeout=0)
    sandbox.kill()
    with pytest.raises(TimeoutException, match="The sandbox was killed or reached its end of life"):
        command.wait()
    assert not sandbox.is_running()


def test_a_fork_and_a_snapshot_are_independent_copies(sandboxes):
    sandbox = sandboxes.create("base")
    sandbox.files.write("state.txt", "before")
    snapshot = sandbox.create_snapshot()
    [fork] = sandbox.fork()
    sandbox.files.write("state.txt", "after")
    fork.files.write("more.txt", "fork")
    assert fork.files.read("state.txt") == "before" and not sandbox.files.exists("more.txt")
    sandbox.kill()
    assert sandboxes.create(snapshot.snapshot_id).files.read("state.txt") == "before"


def test_a_pause_keeps_processes_and_memory(sandboxes):
    sandbox = sandboxes.create("base")
    pid = sandbox.commands.run("sleep 300", background=True, timeout=0).pid
    assert sandbox.pause()
    assert not sandbox.is_running()
    sandbox.connect()
    assert sandbox.is_running() and pid in [each.pid for each in sandbox.commands.list()]


def test_a_pause_without_memory_keeps_files_and_boots_again(sandboxes):
    sandbox = sandboxes.create("base")
    sandbox.files.write("kept.txt", "kept")
    command = sandbox.commands.run("sleep 300", background=True, timeout=0)
    before = sandbox.files.read("/proc/sys/kernel/random/boot_id")
    assert len(before.strip()) == 36
    for user in ("user", "root"):
        assert sandbox.commands.run("cat /proc/sys/kernel/random/boot_id", user=user).stdout == before
    assert sandbox.pause(keep_memory=False)
    assert not sandbox.is_running()
    with pytest.raises(TimeoutException):
        command.wait()
    sandbox.connect()
    assert sandbox.files.read("kept.txt") == "kept"
    assert sandbox.commands.list() == []
    assert sandbox.files.read("/proc/sys/kernel/random/boot_id") != before


def test_traffic_resumes_a_sandbox_that_asked_for_it(sandboxes):
    sandbox = sandboxes.create("base", timeout=60, lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.files.write("kept.txt", "kept")
    sandbox.pause()
    assert sandbox.files.read("kept.txt") == "kept"
    assert sandbox.is_running()


def test_a_port_is_reached_by_its_host_name(sandboxes, emulator):
    sandbox = sandboxes.create("base")
    sandbox.commands.run("python -m http.server 8000", background=True, timeout=0)
    host = sandbox.get_host(8000)
    assert host == f"8000-{sandbox.sandbox_id}.localhost:{emulator.port}"
    deadline = time.monotonic() + 10
    while (answer := httpx.get(emulator.url, headers={"Host": host})).status_code != 200:
        assert answer.status_code == 502 and time.monotonic() < deadline
        time.sleep(0.05)
    assert "Directory listing" in answer.text
    # A client that has a response finds its request in the log.
    for number in range(40):
        assert httpx.get(f"{emulator.url}/{number}", headers={"Host": host}).status_code == 404
        assert emulator.requests()[0]["operation"] == f"GET /{number}"
    closed = httpx.get(emulator.url, headers={"Host": sandbox.get_host(3000)})
    assert closed.status_code == 502
    message = "The sandbox is running but port is not open"
    assert closed.json() == {"code": 502, "message": message, "sandboxId": sandbox.sandbox_id, "port": 3000}
    sandbox.kill()
    gone = httpx.get(emulator.url, headers={"Host": host})
    emulator.advance(4000)
    assert sandbox.sandbox_id not in str(emulator.overview())
    forgotten = httpx.get(emulator.url, headers={"Host": host})
    assert (gone.status_code, forgotten.status_code) == (502, 502)
    assert (
        gone.json()
        == forgotten.json()
        == {"code": 502, "message": "The sandbox was not found", "sandboxId": sandbox.sandbox_id}
    )


def test_a_port_that_is_not_public_needs_the_traffic_token(sandboxes, emulator):
    sandbox = sandboxes.create("base", network={"allow_public_traffic": False})
    sandbox.commands.run("python3 -m http.server 8000", background=True, timeout=0)
    headers = {"Host": sandbox.get_host(8000)}
    assert httpx.get(emulator.url, headers=headers).status_code == 403
    headers["e2b-traffic-access-token"] = sandbox.traffic_access_token
    deadline = time.monotonic() + 10
    while httpx.get(emulator.url, headers=headers).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_servers_see_the_masked_host(sandboxes, emulator):
    sandbox = sandboxes.create("base", network={"mask_request_host": "example.com:${PORT}"})
    program = (
        "import http.server as h\n"
        "class Echo(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "        self.wfile.write(self.headers['Host'].encode())\n"
        "h.HTTPServer(('', 8000), Echo).serve_forever()\n"
    )
    sandbox.files.write("echo.py", program)
    sandbox.commands.run("python3 echo.py", background=True, timeout=0)
    deadline = time.monotonic() + 10
    while (answer := httpx.get(emulator.url, headers={"Host": sandbox.get_host(8000)})).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert answer.text == "example.com:8000"
    assert sandbox.get_info().network["mask_request_host"] == "example.com:${PORT}"


def test_without_internet_access_nothing_is_reached(sandboxes):
    sandbox = sandboxes.create("base", allow_internet_access=False)
    assert sandbox.commands.run("env | grep -i _proxy; true").stdout == ""
    assert sandbox.commands.run("curl -s --max-time 2 http://127.0.0.1:1 || echo refused").stdout == "refused\n"


def test_the_asynchronous_sdk_works_the_same(options):
    async def run():
        sandboxes = E2B(**options).AsyncSandbox
        made = await asyncio.gather(*(sandboxes.create("base", metadata={"n": str(n)}) for n in range(5)))
        try:
            listed = await sandboxes.list().next_items()
            assert {each.sandbox_id for each in listed} == {each.sandbox_id for each in made}
            results = await asyncio.gather(*(each.commands.run("hostname") for each in made))
            assert len({each.stdout for each in results}) == 5
            await made[0].pause()
            assert not await made[0].is_running()
            await made[0].connect()
            assert await made[0].is_running()
        finally:
            assert all(await asyncio.gather(*(each.kill() for each in made)))
        with pytest.raises(SandboxNotFoundException):
            await made[0].get_info()

    asyncio.run(run())


def test_two_sandboxes_share_nothing(sandboxes):
    first, second = sandboxes.create("base"), sandboxes.create("base")
    first.files.write("/tmp/mine", "secret")
    assert not second.files.exists("/tmp/mine")
    for sandbox in (first, second):
        sandbox.commands.run("python3 -m http.server 8000", background=True, timeout=0)
    time.sleep(0.5)
    assert all("http.server" in " ".join(each.commands.list()[0].args) for each in (first, second))


def test_hundreds_of_sandboxes_come_and_go(options, emulator):
    async def run():
        sandboxes = E2B(**options).AsyncSandbox
        gate = asyncio.Semaphore(20)

        async def one(number):
            async with gate:
                sandbox = await sandboxes.create("base", timeout=120)
                result = await sandbox.commands.run(f"echo {number}")
                assert result.stdout == f"{number}\n"
                assert await sandbox.kill()

        await asyncio.gather(*(one(number) for number in range(200)))

    asyncio.run(run())
    instances = emulator.overview()["regions"]["ap-guangzhou"]["instances"]
    assert {each["Status"] for each in instances} == {"STOPPED"}
