"""A value that a user marks secret is nowhere but in the sandbox, and in its block, encrypted."""

import json
import sqlite3
from base64 import b64encode
from contextlib import closing

import pytest
from prefect import flow
from prefect.blocks.system import Secret
from prefect.settings import get_current_settings

from ags_flows import sandbox_session
from ags_flows.errors import (
    CodeFailedError,
    CommandFailedError,
    CommandTimeoutError,
    ConfigurationError,
    OutcomeUnknownError,
)
from ags_flows.flows import provision_and_run, run_batch, run_items, run_job
from ags_flows.job import SandboxJob
from ags_flows.models import ToolSpec
from ags_flows.run.secrets import load_secrets
from ags_flows.tasks import start_command, wait_command

PASSWORD = "tr0ub4dor&3-of-the-nightly-job"
SHOUTED = 'echo "out $PASSWORD"; echo "err $PASSWORD" >&2; printf "%s" "$PASSWORD" > copy; exit 3'

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


def test_a_failing_job_reveals_it_nowhere(block, ags_config, caplog, tmp_path):
    with pytest.raises(CommandFailedError) as failed:
        provision_and_run(
            tool="base", command=SHOUTED, secrets=block, downloads={"copy": str(tmp_path / "copy")}, config=ags_config
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


def test_code_that_raises_with_it_is_reported_without_it(block, ags_config, caplog):
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


VALUES = [
    "true",
    "1.10",
    "1e5",
    "007",
    "null",
    ' {"a": 1.10} ',
    '"quoted"',
    "",
    "line\nline",
    {"key": "ß", "list": [1, 2.5, True, None]},
    ["a", "b"],
    42,
    1.5,
    True,
    False,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_of_a_block_arrives_as_it_was_saved_or_as_json(value):
    Secret(value=value).save("odd-value", overwrite=True)
    loaded = load_secrets({"VALUE": "odd-value"})["VALUE"]
    assert loaded == value if isinstance(value, str) else json.loads(loaded) == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [("a\0secret", "zero byte"), ("secret" * 20_000, "120,000 bytes"), ("'" * 60_000, "quotes")],
    ids=["zero byte", "size", "quotes"],
)
@pytest.mark.parametrize("step", ["run", "run_code"])
def test_a_value_that_no_variable_can_have_is_refused_before_anything_runs(ags_config, value, reason, step):
    Secret(value=value).save("odd-value", overwrite=True)
    with sandbox_session("code-interpreter-v1", config=ags_config) as sandbox:
        with pytest.raises(ConfigurationError, match=f"^secrets: VALUE has .*{reason}") as refused:
            getattr(sandbox, step)("1", secrets={"VALUE": "odd-value"})
    assert "secretsecret" not in str(refused.value)


@pytest.mark.parametrize("durable", [True, False])
def test_a_block_that_holds_json_arrives_as_json_and_its_strings_are_masked(ags_config, durable):
    Secret(value={"user": "svc", "private_key": "-----BEGIN-----\nMIIBVgIBADANBg\n"}).save("json-key", overwrite=True)
    with sandbox_session("base", config=ags_config) as sandbox:
        script = "import json, os; print(json.loads(os.environ['KEY'])['private_key'], os.environ['KEY'])"
        result = sandbox.run(["python3", "-c", script], secrets={"KEY": "json-key"}, durable=durable)
    assert result.ok and "MIIB" not in result.stdout and result.stdout.count("********") == 2


@pytest.mark.parametrize("durable", [True, False])
def test_the_result_of_a_command_that_timed_out_is_masked(block, ags_config, durable, caplog):
    command = f'echo "out $PASSWORD"; echo "user:$PASSWORD" | base64 >&2; sleep 30; : {PASSWORD}'
    with sandbox_session("base", config=ags_config) as sandbox:
        with pytest.raises(CommandTimeoutError) as failed:
            sandbox.run(command, secrets=block, timeout=2, durable=durable, stdin="input")
    error = failed.value
    assert error.result.stdout == "out ********\n"
    assert error.result.command.startswith("echo") and "printf" not in str(error)
    for text in (str(error), repr(error.__dict__), repr(error.args), caplog.text):
        assert PASSWORD not in text and b64encode(f"user:{PASSWORD}".encode()).decode()[8:-4] not in text


def test_a_command_in_the_background_that_failed_is_masked(block, ags_config):
    with sandbox_session("base", config=ags_config) as sandbox:
        handle = start_command.fn(
            sandbox.instance, f'echo "$PASSWORD"; sleep 30; : {PASSWORD}', secrets=block, timeout=2, config=ags_config
        )
        assert PASSWORD not in handle.model_dump_json()
        with pytest.raises(CommandTimeoutError) as failed:
            wait_command.fn(handle, config=ags_config)
        assert failed.value.result.stdout == "********\n"
        lost = handle.model_copy(update={"key": "0" * 32, "command": f": {PASSWORD}"})
        with pytest.raises(OutcomeUnknownError) as unknown:
            wait_command.fn(lost, config=ags_config)
    for error in (failed.value, unknown.value):
        assert PASSWORD not in str(error) + repr(error.__dict__)


def test_a_secret_at_the_border_of_a_result_is_left_out(block, ags_config):
    command = "printf '%s' 'a b c d e f '; for i in 1 2 3 4 5 6 7 8; do printf '%s ' \"$PASSWORD\"; done"
    with sandbox_session("base", config=ags_config) as sandbox:
        for limit in range(40, 80, 3):
            result = sandbox.run(command, secrets=block, limit=limit)
            shown = result.stdout.replace("********", "")
            assert not any(PASSWORD[at : at + 4] in shown for at in range(len(PASSWORD) - 3)), (limit, shown)


def test_a_batch_keeps_secrets_of_items_that_timed_out_out_of_its_results(block, ags_config, tmp_path):
    command = 'echo "token is $PASSWORD"; sleep 30'
    report = run_batch(
        [1], command, tool="base", secrets=block, timeout=2, fail_above=1, results=str(tmp_path), config=ags_config
    )
    assert report.failed == 1
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "token is ********" in kept
    assert PASSWORD not in kept + report.model_dump_json() + stored()


def test_what_the_function_of_a_batch_returns_or_raises_is_masked(block, ags_config, tmp_path):
    def work(sandbox, item):
        sandbox.run('printf "%s" "$PASSWORD" | base64 -w0 >copy', secrets=block, check=True)
        shown = {"text": sandbox.read("copy").decode(), "of": [PASSWORD, {PASSWORD: item}]}
        if item == 2:
            raise ValueError(f"not with {PASSWORD}")
        return shown

    report = run_items([1, 2], work, tool="base", sandboxes=1, fail_above=1, results=tmp_path, config=ags_config)
    assert report.failures[0].error == "not with ********"
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert kept.count("********") >= 4
    for hidden in (PASSWORD, b64encode(PASSWORD.encode()).decode()):
        assert hidden not in kept + report.model_dump_json()


def test_tokens_are_in_no_name_of_a_run_and_in_no_step(ags_config):
    token = "sit_" + "a1b2c3d4" * 20
    steps = []

    @flow
    def named():
        with sandbox_session("base", config=ags_config, steps=steps) as sandbox:
            sandbox.run(f"true -H 'X-Access-Token: {token}'")

    named()
    assert "true -H 'X-Access-Token: ********'" in " ".join(step.name for step in steps)
    assert token[:12] not in stored() + repr(steps)


def test_a_value_that_stands_in_the_command_is_in_no_name_of_a_run_and_in_no_step(block, ags_config):
    steps = []

    @flow
    def named():
        with sandbox_session("base", config=ags_config, steps=steps) as sandbox:
            sandbox.run(f"true --password='{PASSWORD}'", secrets=block)

    named()
    assert "true --password='********'" in " ".join(step.name for step in steps)
    assert PASSWORD not in stored() + repr(steps)


def test_a_value_that_stands_in_the_command_is_in_no_name_of_a_flow_run_no_event_and_no_page(block, ags_config):
    command = f"true --password='{PASSWORD}'"
    provision_and_run(tool="base", command=[command, "true"], secrets=block, config=ags_config)
    run_job(SandboxJob(command=command, tool="base", secrets=block, config=ags_config))
    # The parameters of a flow run are what the user has given, as they are.
    url = get_current_settings().server.database.connection_url.get_secret_value()
    with closing(sqlite3.connect(url.partition("///")[2])) as database:
        rows = [
            *database.execute("select name from flow_run"),
            *database.execute("select data, description from artifact"),
            *database.execute("select resource from event_resources"),
        ]
    assert "true --password='********' and 1 more on base" in repr(rows)
    assert PASSWORD not in repr(rows)
