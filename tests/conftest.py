"""What all tests share. Fixtures for the emulator come with the package itself (`ags_flows.testing`)."""

import json
import os
import threading
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import hypothesis
import pytest
import trustme
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness
from pydantic import SecretStr

from ags_flows.cloud.connection import Connection
from ags_flows.cloud.control_plane import ControlPlane
from ags_flows.cloud.data_planes import open_plane
from ags_flows.lifecycle.waiting import wait_instance_running
from ags_flows.testing import config_for

# A busy machine takes any time for an example, and to generate one. Each run has other examples.
hypothesis.settings.register_profile(
    "any_machine",
    deadline=None,
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any_machine")

FOREIGN = ("AGS_", "TENCENTCLOUD_", "E2B_")


def pytest_collection_modifyitems(items):
    if os.environ.get("DEPLOYED"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: make deployed runs it"))


@pytest.fixture(scope="session", autouse=True)
def no_foreign_environment():
    """Keep tests away from real accounts, whatever the shell that started them exports."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_certificate(tmp_path_factory):
    """Each client of Prefect reads all certificates of its authorities, which takes longer than its requests."""
    path = tmp_path_factory.mktemp("certificates") / "authority.pem"
    trustme.CA().cert_pem.write_to_path(path)
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_SSL_CERT_FILE: str(path)}):
        patch.setenv("PREFECT_API_SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(scope="session")
def trusting():
    """A context manager in which clients of this process trust the certificates of an emulator.

    The E2B SDK reads what it trusts once in a process, with its first connections.
    """
    from contextlib import contextmanager

    from e2b.api import client_async, client_sync

    @contextmanager
    def trusting(emulator):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in emulator.trust.items():
                patch.setenv(name, value)
            for module in (client_sync, client_async):
                for name in ("_transports", "_pools", "_httpx_transports"):
                    patch.setattr(module, name, {})
            yield emulator

    return trusting


@pytest.fixture(scope="session")
def prefect_server():
    """One Prefect server with its own database for each worker of the test run."""
    with ExitStack() as stack:
        stack.enter_context(temporary_settings({PREFECT_SERVER_ANALYTICS_ENABLED: False}))
        with pytest.MonkeyPatch.context() as patch:
            # Prefect waits five seconds for the first response of its server: too short on a busy machine.
            patch.setattr(httpx, "Client", partial(httpx.Client, timeout=60))
            stack.enter_context(prefect_test_harness(server_startup_timeout=180))
        # A flow run waits up to a second for the thread of its heartbeats: off, where they are not the point.
        stack.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
        yield


@pytest.fixture
def clean_server(prefect_server):
    """A client of the worker's Prefect server, without what other tests saved there."""
    with get_client(sync_client=True) as client:
        for automation in client.read_automations():
            client.delete_automation(automation.id)
        for document in client.read_block_documents(include_secrets=False):
            client.delete_block_document(document.id)
        yield client


@pytest.fixture
def evaluation_files(tmp_path):
    """Write a data set of one instance, and a prediction without a patch for it."""
    prediction = {"instance_id": "demo__demo-1", "model_patch": "", "model_name_or_path": "model"}
    names = ("image", "repo", "version", "eval_script", "FAIL_TO_PASS", "PASS_TO_PASS")
    instance = {**dict.fromkeys(names, "[]"), "log_parser": "parse_log_pytest", "eval_type": "pass_and_fail"}
    (tmp_path / "predictions.jsonl").write_text(json.dumps(prediction))
    (tmp_path / "dataset.jsonl").write_text(json.dumps({**instance, "instance_id": "demo__demo-1", "image": "demo:1"}))


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


@pytest.fixture(scope="module")
def sandbox(ags_emulator_process):
    """Configuration and instance of a running sandbox."""
    ags_emulator_process.reset()
    config = config_for(ags_emulator_process)
    control = config.control_plane()
    instance = control.start_instance(tool="base", timeout="1h")
    wait_instance_running(control, instance.id, timeout=30)
    yield config, instance
    ags_emulator_process.reset()


@pytest.fixture
def plane(sandbox):
    config, instance = sandbox
    return open_plane(config.connection(), instance.id).plane
