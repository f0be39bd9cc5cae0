"""What the SDKs do not ask for today, by the client that their protocol is generated with."""

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from e2b.envd.process.process_connect import ProcessClientSync
from e2b.envd.process.process_pb import PTY as Terminal
from e2b.envd.process.process_pb import (
    ConnectRequest,
    ListRequest,
    ProcessConfig,
    ProcessInput,
    ProcessSelector,
    SendSignalRequest,
    Signal,
    StartRequest,
    StreamInputRequest,
    UpdateRequest,
)
from protobuf import Oneof


@pytest.fixture
def headers(name):
    return {"E2b-Sandbox-Id": name, "X-Access-Token": "token-of-a-test"}


@pytest.fixture
def process(served):
    client = ProcessClientSync(served.url)
    yield client
    client.close()


def _start(process, headers, command, **fields):
    config = ProcessConfig(cmd="/bin/bash", args=["-c", command])
    events = process.start(StartRequest(process=config, **fields), headers=headers)
    return events, next(events).event.event.value.pid


def _selector(kind, value):
    return ProcessSelector(selector=Oneof(kind, value))


def _output(events):
    values = [message.event.event for message in events]
    return b"".join(one.value.output.value for one in values if one.field == "data"), values[-1].value


def test_input_is_streamed_in_order(process, headers):
    events, pid = _start(process, headers, "head -c 6", stdin=True)
    start = StreamInputRequest.StartEvent(process=_selector("pid", pid))

    def messages():
        yield StreamInputRequest(event=Oneof("start", start))
        for word in (b"ab", b"cd", b"ef"):
            data = StreamInputRequest.DataEvent(input=ProcessInput(input=Oneof("stdin", word)))
            yield StreamInputRequest(event=Oneof("data", data))
            yield StreamInputRequest(event=Oneof("keepalive", StreamInputRequest.KeepAlive()))

    process.stream_input(messages(), headers=headers)

    assert _output(events)[0] == b"abcdef"


def test_a_process_is_found_by_its_tag_among_others(process, headers):
    others = [_start(process, headers, "sleep 20", tag=f"other-{number}")[1] for number in range(2)]
    events, pid = _start(process, headers, "sleep 20; :", tag="wanted")
    tags = {one.pid: one.tag for one in process.list(ListRequest(), headers=headers).processes}
    connected = process.connect(ConnectRequest(process=_selector("tag", "wanted")), headers=headers)

    assert tags[pid] == "wanted"
    assert next(connected).event.event.value.pid == pid
    for one in (pid, *others):
        process.send_signal(SendSignalRequest(process=_selector("pid", one), signal=Signal.SIGTERM), headers=headers)
    _, end = _output(events)
    assert (end.exit_code, end.exited, end.status, end.error) == (-1, False, "signal: terminated", "signal: terminated")
    assert _output(connected)[1].status == "signal: terminated"


@pytest.mark.parametrize("selector", [("tag", "nobody"), ("pid", 999_999)])
def test_an_unknown_process_is_not_found(process, headers, selector):
    with pytest.raises(ConnectError) as caught:
        process.send_signal(SendSignalRequest(process=_selector(*selector), signal=Signal.SIGKILL), headers=headers)

    assert caught.value.code is Code.NOT_FOUND


def test_other_signals_and_sizes_for_a_command_without_terminal_are_refused(process, headers):
    events, pid = _start(process, headers, "sleep 20")
    with pytest.raises(ConnectError) as signalled:
        process.send_signal(SendSignalRequest(process=_selector("pid", pid)), headers=headers)
    with pytest.raises(ConnectError) as resized:
        size = Terminal.Size(cols=1, rows=1)
        process.update(UpdateRequest(process=_selector("pid", pid), pty=Terminal(size=size)), headers=headers)
    process.send_signal(SendSignalRequest(process=_selector("pid", pid), signal=Signal.SIGKILL), headers=headers)
    list(events)

    assert (signalled.value.code, resized.value.code) == (Code.UNIMPLEMENTED, Code.INTERNAL)


def test_a_grpc_client_gets_an_error_that_names_the_protocol(http):
    said = {"Content-Type": "application/grpc"}
    answer = http.post("/process.Process/List", content=b"\0\0\0\0\0", headers=said)

    assert answer.status_code == 415
    assert "Connect" in answer.json()["message"]


def test_a_success_has_no_error(process, headers):
    events, _ = _start(process, headers, "echo x")
    output, end = _output(events)

    assert output == b"x\n"
    assert (end.exit_code, end.exited, end.status, end.has_field("error")) == (0, True, "exit status 0", False)
