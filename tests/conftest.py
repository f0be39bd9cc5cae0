"""What all tests share. Fixtures for the emulator come with the package itself (`ags_flows.testing`)."""

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings
from prefect.testing.utilities import prefect_test_harness

FOREIGN = ("AGS_", "TENCENTCLOUD_", "E2B_")


@pytest.fixture(scope="session", autouse=True)
def no_foreign_environment():
    """Keep tests away from real accounts, whatever the shell that started them exports."""
    import os

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def prefect_server():
    """One Prefect server with a database of its own for each worker of the test run."""
    # A flow run waits up to a second for the thread of its heartbeats: off, where they are not the point.
    with temporary_settings({PREFECT_SERVER_ANALYTICS_ENABLED: False}):
        with prefect_test_harness(server_startup_timeout=180):
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                yield
