"""A Cloud API that answers what a test says and counts what reaches it, and control planes: of it, of the emulator."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane


class CloudStub:
    """`stub.answer(action, parameters)` returns the fields of Response, or (status, headers, body) as they are."""

    def __init__(self):
        self.connections = 0
        self.requests = []
        self.headers = []
        self.answer = lambda action, parameters: {}
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self):
                stub.connections += 1
                super().setup()

            def do_POST(self):
                parameters = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                action = self.headers["X-TC-Action"]
                stub.requests.append((action, parameters))
                stub.headers.append(dict(self.headers))
                answer = stub.answer(action, parameters)
                if answer is None:
                    self.close_connection = True
                    return
                if isinstance(answer, dict):
                    response = {"Response": {"RequestId": "req-1", **answer}}
                    answer = 200, {"Content-Type": "application/json"}, json.dumps(response).encode()
                status, headers, body = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def control(self, **fields):
        keys = {"secret_id": SecretStr("AKIDtest"), "secret_key": SecretStr("the-secret-key")}
        return ControlPlane(Connection(**{"endpoint": self.url, "domain": self.url, **keys, **fields}))

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def stub():
    stub = CloudStub()
    yield stub
    stub.close()


@pytest.fixture
def stubbed(stub):
    control = stub.control()
    yield control
    control.close()


@pytest.fixture
def control(ags_config):
    control = ControlPlane(ags_config.connection())
    yield control
    control.close()
