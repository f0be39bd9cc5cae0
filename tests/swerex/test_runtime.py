"""What an agent does in its sandbox by SWE-ReX, and what happens on failures."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest
from swerex.exceptions import (
    BashIncorrectSyntaxError,
    CommandTimeoutError,
    NonZeroExitCodeError,
    SessionDoesNotExistError,
    SessionExistsError,
    SwerexException,
)
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    CloseBashSessionRequest,
    Command,
    CreateBashSessionRequest,
    ReadFileRequest,
    UploadRequest,
    WriteFileRequest,
)

from ags_flows.errors import (
    InstanceGoneError,
    OutcomeUnknownError,
    ServiceError,
    TokenExpiredError,
    UnreachableError,
    UnsupportedError,
)
from ags_flows.swerex import AGSDeployment, SwerexServer, connect
from ags_flows.swerex.transferred import exception_of
from ags_flows.tasks import download_file


def shell(name="default"):
    return CreateBashSessionRequest(session=name, startup_timeout=10)


def with_agent(config, work):
    """Let an agent work in a deployment, and return what it returns."""

    async def main():
        async with AGSDeployment.from_config(config) as deployment:
            return await work(deployment.runtime)

    return asyncio.run(main())


def test_shells_commands_and_files(configured, ags_config, tmp_path):
    (tmp_path / "patch.diff").write_text("--- a\n+++ b\n")
    (tmp_path / "repo" / "src").mkdir(parents=True)
    (tmp_path / "repo" / "src" / "main.py").write_text("print('it works')")

    async def work(runtime):
        await asyncio.gather(runtime.create_session(shell("one")), runtime.create_session(shell("two")))
        with pytest.raises(SessionExistsError):
            await runtime.create_session(shell("one"))

        async def run(command, session="one", **options):
            options = {"timeout": 20, "check": "silent", **options}
            return await runtime.run_in_session(BashAction(command=command, session=session, **options))

        # Two shells side by side, each with its own directory and variables.
        await asyncio.gather(run("cd /tmp; export NAME=one"), run("cd /usr; export NAME=two", "two"))
        seen = await asyncio.gather(run("echo $NAME in $PWD"), run("echo $NAME in $PWD", "two"))
        assert [one.output.strip() for one in seen] == ["one in /tmp", "two in /usr"]
        assert (await run("(exit 7)")).exit_code == 7
        with pytest.raises(NonZeroExitCodeError, match="exit code 1"):
            await run("false", check="raise")
        with pytest.raises(BashIncorrectSyntaxError) as wrong:
            await run("if then")
        assert wrong.value.extra_info["bash_stderr"]
        with pytest.raises(CommandTimeoutError):
            await run("sleep 60", timeout=0.5)
        await runtime.run_in_session(BashInterruptAction(session="one"))
        assert (await run("echo again")).output.strip() == "again"
        await runtime.close_session(CloseBashSessionRequest(session="two"))
        with pytest.raises(SessionDoesNotExistError):
            await run("true", "two")

        # Commands outside of shells.
        told = await runtime.execute(Command(command="echo out; echo err >&2; exit 3", shell=True))
        assert (told.stdout, told.stderr, told.exit_code) == ("out\n", "err\n", 3)
        told = await runtime.execute(Command(command=["env"], env={"ONLY": "this"}))
        assert "ONLY=this" in told.stdout
        with pytest.raises(CommandTimeoutError):
            await runtime.execute(Command(command=["sleep", "60"], timeout=0.5))

        # A response that is not one of SWE-ReX.
        await runtime.execute(Command(command="python3 -m http.server 9000 >/dev/null 2>&1 &", shell=True))
        other = connect(SwerexServer(instance_id=runtime.instance_id, port=9000), ags_config)
        while "Nothing listens" in (alive := await other.is_alive()).message:
            await asyncio.sleep(0.1)
        assert not alive
        with pytest.raises((UnsupportedError, OutcomeUnknownError)):
            await other.execute(Command(command=["true"]))

        # Files there and back.
        await runtime.write_file(WriteFileRequest(path="/tmp/new/deep/note.txt", content="grüße\n"))
        read = await runtime.read_file(ReadFileRequest(path="/tmp/new/deep/note.txt", encoding="utf-8"))
        assert read.content == "grüße\n"
        with pytest.raises(FileNotFoundError):
            await runtime.read_file(ReadFileRequest(path="/tmp/nothing"))
        await runtime.upload(UploadRequest(source_path=str(tmp_path / "patch.diff"), target_path="/tmp/in/p.diff"))
        await runtime.upload(UploadRequest(source_path=str(tmp_path / "repo"), target_path="/tmp/repo"))
        assert (await run("cat /tmp/in/p.diff && cat /tmp/repo/src/main.py")).output.splitlines() == [
            "--- a",
            "+++ b",
            "print('it works')",
        ]
        for year in (1970, 2128):
            (tmp_path / "dated").mkdir(exist_ok=True)
            (tmp_path / "dated" / str(year)).touch()
            at = datetime(year, 1, 2, tzinfo=timezone.utc).timestamp()
            os.utime(tmp_path / "dated" / str(year), (at, at))
        await runtime.upload(UploadRequest(source_path=str(tmp_path / "dated"), target_path="/tmp/dated"))
        assert (await run("ls /tmp/dated")).output.split() == ["1970", "2128"]
        with pytest.raises(ValueError, match="nothing is not a file or a directory"):
            await runtime.upload(UploadRequest(source_path="/nothing", target_path="/tmp/x"))
        await run(r"printf '\x00\xff\x01' > /tmp/binary")
        with pytest.raises(SwerexException, match="UnicodeDecodeError"):
            await runtime.read_file(ReadFileRequest(path="/tmp/binary", encoding="utf-8"))
        await asyncio.to_thread(
            download_file.fn, runtime.instance_id, "/tmp/binary", tmp_path / "binary", config=ags_config
        )
        await runtime.close()
        await runtime.close()
        with pytest.raises(RuntimeError, match="shell not initialized"):
            await run("true")

    with_agent(configured(), work)
    assert (tmp_path / "binary").read_bytes() == b"\x00\xff\x01"


def test_a_token_that_expires_in_the_middle_is_replaced(configured, sandboxes, monkeypatch):
    def since(entry):
        latest = sandboxes.requests()
        return [(one["operation"].rsplit("/", 1)[-1], one["outcome"]) for one in latest[: latest.index(entry)]][::-1]

    async def work(runtime):
        await runtime.create_session(shell())
        long = asyncio.ensure_future(runtime.run_in_session(BashAction(command="sleep 2; echo done", timeout=30)))
        await asyncio.sleep(1)
        sandboxes.expire_tokens(runtime.instance_id)
        assert (await long).output.strip() == "done"
        before = sandboxes.requests()[0]
        # Refused with 401, and sent again with a new one: once.
        assert (
            await runtime.run_in_session(BashAction(command="echo x >> /tmp/count; cat /tmp/count"))
        ).output == "x\n"
        acquired = ("AcquireSandboxInstanceToken", "ok")
        assert since(before) == [("run_in_session", "401"), acquired, ("run_in_session", "200")]
        # Before it expires, no request is refused.
        monkeypatch.setattr("ags_flows.cloud.live_token.REFRESH_PAUSE", 0.0)
        monkeypatch.setattr("ags_flows.cloud.live_token.REFRESH_BEFORE", timedelta(days=1))
        before = sandboxes.requests()[0]
        await runtime.execute(Command(command=["true"]))
        assert since(before) == [acquired, ("execute", "200")]
        monkeypatch.undo()
        # Refused, whatever token is sent.
        sandboxes.stream_fault("status", status=401, port=8000, times=2)
        with pytest.raises(TokenExpiredError, match="check the region"):
            await runtime.execute(Command(command=["true"]))
        assert (await runtime.execute(Command(command=["echo", "fine"]))).stdout == "fine\n"

    with_agent(configured(), work)


def test_a_sandbox_that_ends_is_distinct_from_a_command_that_fails(configured, sandboxes):
    async def work(runtime):
        await runtime.create_session(shell())
        with pytest.raises(NonZeroExitCodeError):
            await runtime.run_in_session(BashAction(command="false", timeout=20))
        running = asyncio.ensure_future(runtime.run_in_session(BashAction(command="sleep 600")))
        await asyncio.sleep(0.5)
        sandboxes.kill_sandbox(runtime.instance_id)
        began = time.monotonic()
        with pytest.raises(InstanceGoneError, match="has ended"):
            await running
        assert time.monotonic() - began < 10
        with pytest.raises(InstanceGoneError):
            await runtime.run_in_session(BashAction(command="true"))
        alive = await runtime.is_alive()
        assert not alive and "has ended" in alive.message

    with_agent(configured(), work)


def test_a_dead_sandbox_behind_a_silent_connection_is_noticed(configured, sandboxes, monkeypatch):
    monkeypatch.setattr("ags_flows.swerex.runtime.LOOK_EVERY", 0.5)

    async def work(runtime):
        sandboxes.stream_fault("blackhole", port=8000, path="execute")
        running = asyncio.ensure_future(runtime.execute(Command(command=["true"])))
        await asyncio.sleep(1.2)
        assert not running.done()
        sandboxes.kill_sandbox(runtime.instance_id)
        with pytest.raises(InstanceGoneError):
            await asyncio.wait_for(running, 10)

    with_agent(configured(), work)


def test_a_lost_connection_is_an_unknown_outcome_and_nothing_is_sent_twice(configured, sandboxes):
    async def work(runtime):
        await runtime.create_session(shell())
        sandboxes.stream_fault("cut", port=8000, path="run_in_session", after_seconds=1)
        with pytest.raises(OutcomeUnknownError, match="may have been executed"):
            await runtime.run_in_session(BashAction(command="echo once >> /tmp/runs; sleep 2", timeout=20))
        told = await runtime.execute(Command(command=["cat", "/tmp/runs"]))
        assert told.stdout == "once\n"
        # Errors that allow a repetition are retryable.
        sandboxes.stream_fault("cut", port=8000, path="read_file")
        with pytest.raises(UnreachableError):
            await runtime.read_file(ReadFileRequest(path="/tmp/runs"))
        sandboxes.stream_fault("status", port=8000, path="execute", status=504)
        with pytest.raises(OutcomeUnknownError):
            await runtime.execute(Command(command=["true"]))
        # Its server has ended, the sandbox lives: nothing was executed.
        await runtime.execute(Command(command="sleep 0.2 && pkill -f swerex >/dev/null 2>&1 &", shell=True))
        await asyncio.sleep(1.5)
        with pytest.raises(ServiceError, match="has ended"):
            await runtime.execute(Command(command=["true"]))

    with_agent(configured(), work)


def test_a_sandbox_cannot_make_the_client_call_what_it_names(tmp_path):
    mark = tmp_path / "mark"
    for path in (
        "os.system",
        "builtins.exec",
        "builtins.open",
        "subprocess.run",
        "builtins.SystemExit",
        "",
        "..",
        "a.b",
    ):
        error = exception_of({"class_path": path, "message": f"touch {mark}", "extra_info": "nonsense"})
        assert type(error) is SwerexException
        assert error.extra_info == {}
    assert not mark.exists()
    assert isinstance(exception_of({"class_path": "builtins.FileNotFoundError", "message": "x"}), FileNotFoundError)


def test_without_its_package_the_module_names_what_to_install():
    script = "import sys; sys.modules['swerex'] = None; import ags_flows, ags_flows.flows; import ags_flows.swerex"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert told.stderr.strip().splitlines()[-1] == (
        "ModuleNotFoundError: ags_flows.swerex needs the package swe-rex: pip install 'ags-flows[swerex]'"
    )
