"""A clean install of the package brings a Prefect server that starts."""

import os
import socket
import subprocess
import time
import venv
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_clean_install_has_a_prefect_server_that_starts(tmp_path):
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("not a checkout: there is nothing to install from")
    python = tmp_path / "venv" / "bin" / "python"
    venv.create(tmp_path / "venv", with_pip=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-compile", str(ROOT)],
        check=True,
        cwd=tmp_path,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [python, "-m", "prefect", "server", "start", "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    try:
        deadline = time.monotonic() + 240
        while not answers(f"http://127.0.0.1:{port}/api/health"):
            assert server.poll() is None, log.read_text()[-2_000:]
            assert time.monotonic() < deadline, log.read_text()[-2_000:]
            time.sleep(0.5)
        types = httpx.post(f"http://127.0.0.1:{port}/api/block_types/filter", json={}, trust_env=False).json()
        slugs = {block_type["slug"] for block_type in types}
        assert {"ags-config", "tencent-cloud-credentials"} <= slugs
    finally:
        server.terminate()
        server.wait(30)


def answers(url):
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
