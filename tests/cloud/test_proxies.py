"""Proxies of the environment: one rule for both planes, and never for this machine."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import httpx
import pytest

from ags_flows import tasks
from ags_flows.cli.doctor import examine
from ags_flows.cloud.error_mapping import map_error
from ags_flows.cloud.proxies import SOCKS_MODULES, proxy_for
from ags_flows.errors import ConfigurationError
from ags_flows.testing import config_for

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_variable_applies_to_http_urls(monkeypatch, name):
    monkeypatch.setenv(name, "proxy.example:3128")
    assert proxy_for("http://cloud.example") == "http://proxy.example:3128"
    assert (proxy_for("https://cloud.example") is None) == (name.lower() == "http_proxy")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8600",
        "localhost",
        "[::1]:8600",
        "127.3.2.1",
        "sandbox.localhost",
        "LOCALHOST.",
        "127.1",
        "0.0.0.0:80",
        "[::ffff:127.0.0.1]",
    ],
)
def test_this_machine_has_no_proxy(monkeypatch, host):
    for name in NAMES[:3]:
        monkeypatch.setenv(name, DEAD)
    assert proxy_for(f"http://{host}/x") is None


@pytest.mark.parametrize(
    ("entries", "host", "excluded"),
    [
        ("*", "a.example", True),
        ("example", "a.example", True),
        (".example", "a.example", True),
        ("*.example", "a.example", True),
        ("a.example", "A.Example.", True),
        ("ample", "a.example", False),
        ("x.example, a.example", "a.example", True),
        ("a.example:443", "a.example", True),
        ("a.example:444", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.30", False),
        ("fd00::/8", "[fd00::1]", True),
        ("", "a.example", False),
        ("a.example:x", "a.example", False),
    ],
)
def test_no_proxy_excludes_hosts(monkeypatch, entries, host, excluded):
    monkeypatch.setenv("HTTPS_PROXY", DEAD)
    monkeypatch.setenv("NO_PROXY", entries)
    assert (proxy_for(f"https://{host}") is None) == excluded


def test_lower_case_takes_precedence(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", DEAD)
    monkeypatch.setenv("ALL_PROXY", "socks5://c:1")
    monkeypatch.setenv("https_proxy", "http://b:1")
    assert proxy_for("https://a.example") == "http://b:1"


@pytest.mark.parametrize("value", ["ftp://a", "http://", "http://a:x", "socks4://a:1"])
def test_a_value_that_is_not_a_proxy_is_refused_by_name(monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(ConfigurationError, match="ALL_PROXY is not the URL of a proxy"):
        proxy_for("https://a.example")


@pytest.mark.parametrize("value", ["socks5://a:1", "SOCKS5H://a:1"])
def test_a_socks_proxy_without_its_packages_is_refused_by_name(monkeypatch, value):
    monkeypatch.setenv("ALL_PROXY", value)
    if all(map(find_spec, SOCKS_MODULES)):
        assert proxy_for("https://a.example") == value
        return
    with pytest.raises(ConfigurationError, match=r"ALL_PROXY is a SOCKS proxy, .* missing: socks.* pip install "):
        proxy_for("https://a.example")


def use_both_planes(config, tmp_path, tool="code-interpreter-v1"):
    started = tasks.start_instance.fn(tool, config=config)
    instance = tasks.wait_instance_running.fn(started, config=config)
    (tmp_path / "up").write_text("data")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_text("inner")
    tasks.upload_file.fn(instance, tmp_path / "up", "up", config=config)
    tasks.upload_directory.fn(instance, tmp_path / "directory", "directory", config=config)
    assert tasks.exec_command.fn(instance, "cat up directory/file", config=config).stdout == "datainner"
    assert tasks.exec_command.fn(instance, "cat up", durable=False, config=config).stdout == "data"
    tasks.download_file.fn(instance, "up", tmp_path / "down", config=config)
    assert (tmp_path / "down").read_text() == "data"
    assert tasks.run_code.fn(instance, "1 + 1", config=config).text == "2"
    assert tasks.list_code_contexts.fn(instance, config=config)
    tasks.stop_instance.fn(instance, config=config)


def test_an_emulator_on_this_machine_is_used_without_a_proxy(ags_emulator, monkeypatch, tmp_path):
    for name in NAMES[:3]:
        monkeypatch.setenv(name, DEAD)
        monkeypatch.setenv(name.upper(), DEAD)
    config = config_for(ags_emulator)
    found = {one.check: one for one in examine(config)}
    assert found["data plane"].verdict == found["clock"].verdict == found["credentials"].verdict == "ok"
    use_both_planes(config, tmp_path)


@pytest.fixture
def proxy(ags_emulator):
    """A proxy that resolves every name to the emulator, and records the URLs of requests."""
    urls = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def forward(self):
            urls.append(self.path)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.split("/", 3)[3]
            dropped = ("transfer-encoding", "content-length", "connection", "proxy-connection")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            url = f"{ags_emulator.url}/{path}"
            with httpx.stream(self.command, url, headers=headers, content=body, trust_env=False, timeout=60) as got:
                self.send_response_only(got.status_code)
                for name, value in got.headers.items():
                    if name.lower() not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.end_headers()
                for piece in got.iter_raw():
                    self.wfile.write(piece)
                    self.wfile.flush()

        do_GET = do_POST = do_HEAD = do_DELETE = forward

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", urls
        server.shutdown()


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_both_planes_use_the_proxy_for_other_names(ags_emulator, proxy, monkeypatch, tmp_path, name):
    url, urls = proxy
    monkeypatch.setenv(name, url)
    # A Prefect server of other tests, which Prefect's own client talks to.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    config = config_for(ags_emulator, http_endpoint="http://cloud.test:8600", domain="http://cloud.test:8600")
    found = {one.check: one for one in examine(config)}
    assert found["data plane"].verdict == found["clock"].verdict == found["credentials"].verdict == "ok"
    use_both_planes(config, tmp_path)
    assert {one.split("/", 3)[2] for one in urls} == {"cloud.test:8600"}
    assert any("/process.Process/Start" in one for one in urls) and any(one.endswith("/execute") for one in urls)


def test_a_proxy_that_does_not_respond_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://me:secret@127.0.0.1:9")
    error = map_error("list instances", "ClientNetworkError", "Connection refused", None, "http://cloud.example")
    assert "from http://cloud.example through the proxy http://127.0.0.1:9 (Connection refused)." in str(error)
    assert "secret" not in str(error) and "emulator" not in str(error)


def test_doctor_reports_a_data_plane_that_does_not_respond(ags_emulator, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", DEAD)
    found = {one.check: one for one in examine(config_for(ags_emulator, domain="ap-guangzhou.tencentags.com"))}
    assert found["credentials"].verdict == "ok"
    assert found["data plane"].verdict == "wrong"
    assert "through the proxy 127.0.0.1" in found["data plane"].finding
