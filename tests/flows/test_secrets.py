"""A value that a user marks secret is nowhere but in the sandbox, and in its block, encrypted."""

import sqlite3
from contextlib import closing

import pytest
from prefect import flow
from prefect.blocks.system import Secret
from prefect.settings import get_current_settings

from ags_flows import sandbox_session
from ags_flows.errors import CodeFailedError, CommandFailedError
from ags_flows.flows import provision_and_run, run_batch
from ags_flows.models import ToolSpec

PASSWORD = "tr0ub4dor&3-of-the-nightly-job"
SHOUTED = 'echo "out $PASSWORD"; echo "err $PASSWORD" >&2; printf "%s" "$PASSWORD" > told; exit 3'

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def block():
    Secret(value=PASSWORD).save("nightly-password", overwrite=True)
    yield {"PASSWORD": "nightly-password"}
    Secret.delete("nightly-password")


def stored():
    """Return all that the Prefect server has written down."""
    url = get_current_settings().server.database.connection_url.get_secret_value()
    with closing(sqlite3.connect(url.partition("///")[2])) as database:
        return "\n".join(database.iterdump())


def test_a_failing_job_tells_it_to_nobody(block, ags_config, caplog, tmp_path):
    with pytest.raises(CommandFailedError) as failed:
        provision_and_run(
            tool="base", command=SHOUTED, secrets=block, downloads={"told": str(tmp_path / "told")}, config=ags_config
        )
    assert "out ********" in str(failed.value) or "err ********" in str(failed.value)
    for text in (str(failed.value), repr(failed.value.args), caplog.text, stored()):
        assert PASSWORD not in text
    assert "err ********" in caplog.text


def test_a_batch_keeps_it_out_of_its_results(block, ags_config, caplog, tmp_path):
    report = run_batch(
        [1, 2], SHOUTED, tool="base", secrets=block, fail_above=1, results=str(tmp_path), config=ags_config
    )
    assert report.failed == 2
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "********" in kept
    for text in (kept, report.model_dump_json(), caplog.text, stored()):
        assert PASSWORD not in text


def test_code_that_raises_with_it_is_told_without(block, ags_config, caplog):
    tool = ToolSpec(name="telling", type="code-interpreter")

    @flow
    def tells():
        with sandbox_session(tool, config=ags_config) as sandbox:
            sandbox.run_code("import os; raise ValueError(os.environ['PASSWORD'])", secrets=block, check=True)

    with pytest.raises(CodeFailedError) as failed:
        tells()
    for text in (str(failed.value), caplog.text, stored()):
        assert PASSWORD not in text
        assert "********" in text
