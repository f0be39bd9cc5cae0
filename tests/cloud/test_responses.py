"""Responses of a sandbox that is not trusted: without end, damaged, or nested too deeply."""

import itertools
from http.server import BaseHTTPRequestHandler

import pytest
from pydantic import SecretStr

from ags_flows.cloud.code_interpreter import CodeInterpreter
from ags_flows.cloud.connection import Connection
from ags_flows.cloud.data_plane import DataPlane
from ags_flows.cloud.responses import LARGEST_RESPONSE
from ags_flows.errors import OutcomeUnknownError, OutputTooLargeError, ServiceError, UnreachableError
from ags_flows.models import AccessToken
from tests.servers import serving

PIECE = b" " * (1 << 20)
MOST = LARGEST_RESPONSE // len(PIECE)
DEEP = b"[" * 100_000


class Untrusted(BaseHTTPRequestHandler):
    """Responds to each request with the pieces of the server."""

    protocol_version = "HTTP/1.1"

    def respond(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in itertools.chain(self.server.pieces(), [b""]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_DELETE = respond

    def log_message(self, *args):
        pass


@pytest.fixture
def untrusted():
    with serving(Untrusted, status=200, pieces=lambda: []) as server:
        yield server


@pytest.fixture
def plane(untrusted):
    url = f"http://127.0.0.1:{untrusted.server_port}"
    token = AccessToken(instance_id="sbi-untrusted", token=SecretStr("token"))
    return DataPlane(Connection(endpoint=url, domain=url), "sbi-untrusted", lambda: token)


CALLS = {
    "list": lambda plane: plane.list("d"),
    "stat": lambda plane: plane.stat("d"),
    "list contexts": lambda plane: CodeInterpreter(plane).list_contexts(),
    "create a context": lambda plane: CodeInterpreter(plane).create_context(),
    "remove a context": lambda plane: CodeInterpreter(plane).remove_context("c"),
}


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("call", CALLS)
def test_what_is_longer_than_the_limit_is_refused(plane, untrusted, call, status):
    untrusted.status, untrusted.pieces = status, lambda: [PIECE] * (MOST + 1)
    with pytest.raises(
        OutputTooLargeError, match=f"^{call}.* in sbi-untrusted: The response has more than 33,554,432 b"
    ):
        CALLS[call](plane)


@pytest.mark.parametrize(
    "body", [b"nonsense", b"", DEEP, b"[1]", b'[{"id": 1}]', b'{"id": 5, "language": [], "cwd": 1}']
)
@pytest.mark.parametrize("call", ["list contexts", "create a context"])
def test_contexts_that_are_damaged_are_an_error(plane, untrusted, call, body):
    untrusted.pieces = lambda: [body] if body else []
    with pytest.raises(
        ServiceError, match=f"{call} in sbi-untrusted: the response is not JSON of the code interpreter"
    ):
        CALLS[call](plane)


@pytest.mark.parametrize("body", [b"nonsense", b"[1]", b'{"entries": ' + DEEP], ids=["text", "number", "deep"])
def test_a_list_that_is_damaged_is_an_error(plane, untrusted, body):
    untrusted.pieces = lambda: [body]
    with pytest.raises(ServiceError, match="list d in sbi-untrusted"):
        plane.list("d")


@pytest.mark.parametrize(
    "call",
    [
        lambda plane: plane.list("d"),
        lambda plane: plane.stat("d"),
        lambda plane: plane.exists("d"),
        lambda plane: plane.make_dir("d"),
        lambda plane: plane.move("d", "e"),
    ],
)
def test_an_object_of_another_program_is_an_error(plane, untrusted, call):
    untrusted.pieces = lambda: [b'{"message": "OK"}']
    with pytest.raises(ServiceError, match="JSON of another program"):
        call(plane)


@pytest.mark.parametrize("body", [b"{}", b'{"entries": []}', b'{"entries": [], "total": 0}'])
def test_an_empty_directory_is_listed(plane, untrusted, body):
    untrusted.pieces = lambda: [body]
    assert plane.list("d") == []


def test_a_cell_that_a_gateway_does_not_deliver_may_be_sent_again(plane, untrusted):
    untrusted.status, untrusted.pieces = 404, lambda: [b"instance sbi-untrusted not found"]
    with pytest.raises(UnreachableError) as caught:
        CodeInterpreter(plane).run("1", timeout=30)
    assert caught.value.retryable


def test_an_error_without_end_in_the_place_of_a_cell_is_read_in_part(plane, untrusted):
    sent = []

    def pieces():
        for _ in range(100):
            sent.append(PIECE)
            yield b"e" * len(PIECE)

    untrusted.status, untrusted.pieces = 500, pieces
    with pytest.raises(OutcomeUnknownError) as caught:
        CodeInterpreter(plane).run("1", timeout=30)
    assert len(str(caught.value)) < 10_000
    assert len(sent) < 30


@pytest.mark.parametrize(
    "line", [DEEP, b'{"x": "' + rb"\ud800" + b'", "y": ' + DEEP, b'{"type"'], ids=["deep", "surrogate", "cut"]
)
def test_a_cell_with_a_damaged_line_has_an_unknown_outcome(plane, untrusted, line):
    untrusted.pieces = lambda: [line + b"\n"]
    with pytest.raises(OutcomeUnknownError, match="has a line that is not of the code interpreter"):
        CodeInterpreter(plane).run("1", timeout=30)
