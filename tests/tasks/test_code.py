"""Code in the interpreter of a real sandbox, through the task."""

import re

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

from ags_flows.errors import (
    CodeFailedError,
    CodeTimeoutError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    UnsupportedError,
)
from ags_flows.models import ToolSpec
from ags_flows.tasks import (
    create_code_context,
    create_tool,
    exec_command,
    list_code_contexts,
    remove_code_context,
    restart_code_context,
    run_code,
    start_instance,
    wait_instance_running,
    wait_tool_active,
)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="


@pytest.fixture
def instance(ags_config):
    return wait_instance_running.fn(start_instance.fn("code-interpreter-v1", config=ags_config), config=ags_config)


def test_the_exit_code_of_a_bash_cell_is_in_the_error(instance, ags_config):
    pytest.importorskip("bash_kernel")
    failed = run_code.fn(instance, "echo out; (exit 3)", language="bash", config=ags_config)
    assert (failed.stdout, failed.error.name, failed.error.value) == ("out\n", "", "3")
    with pytest.raises(CodeFailedError, match="The code ended with exit code 3"):
        run_code.fn(instance, "(exit 3)", language="bash", check=True, config=ags_config)


def test_values_output_and_errors_come_back_as_values(instance, ags_config):
    run = run_code.fn
    assert run(instance, "x = 20", config=ags_config).text is None
    told = run(instance, "import sys; print('out'); print('err', file=sys.stderr); x + 1", config=ags_config)
    assert (told.text, told.stdout, told.stderr, told.ok) == ("21", "out\n", "err\n", True)
    broken = run(instance, "1 / 0", config=ags_config)
    assert (broken.error.name, broken.error.value) == ("ZeroDivisionError", "division by zero")
    assert "1 / 0" in broken.error.traceback
    with pytest.raises(CodeFailedError, match="ZeroDivisionError") as caught:
        run(instance, "1 / 0", check=True, config=ags_config)
    assert caught.value.result.error.name == "ZeroDivisionError"


def test_what_is_displayed_is_typed(instance, ags_config):
    code = f"""
from IPython.display import HTML, Image, JSON, Markdown, display
import base64
display(HTML("<b>bold</b>"), Markdown("# head"), JSON({{"a": [1]}}), Image(base64.b64decode("{PNG}")))
"last"
"""
    html, markdown, json, image, last = run_code.fn(instance, code, config=ags_config).results
    assert html.html == "<b>bold</b>"
    assert markdown.markdown == "# head"
    assert json.json_value == {"a": [1]}
    assert image.image().startswith(b"\x89PNG")
    assert (last.text, last.is_main, image.is_main) == ("last", True, False)
    assert "png" in image.formats()


@pytest.mark.parametrize(
    "act",
    [
        lambda instance, config: list_code_contexts.fn(instance, config=config),
        lambda instance, config: create_code_context.fn(instance, config=config),
        lambda instance, config: restart_code_context.fn(instance, "some", config=config),
        lambda instance, config: remove_code_context.fn(instance, "some", config=config),
    ],
    ids=["list", "create", "restart", "remove"],
)
def test_a_sandbox_without_code_interpreter_has_no_contexts(ags_config, act):
    plain = wait_instance_running.fn(start_instance.fn("base", config=ags_config), config=ags_config)
    with pytest.raises(UnsupportedError, match="has no code interpreter"):
        act(plain, ags_config)
    with pytest.raises(NotFoundError, match="instance nowhere does not exist"):
        act("nowhere", ags_config)


def test_a_context_begins_in_its_directory_which_must_exist(instance, ags_config):
    with pytest.raises(InvalidRequestError, match="^cwd: there is no directory '/nope'"):
        create_code_context.fn(instance, cwd="/nope", config=ags_config)
    for cwd, path in (("~", "/home/user"), ("~/..", "/home"), ("/tmp/", "/tmp")):
        context = create_code_context.fn(instance, cwd=cwd, step=cwd, config=ags_config)
        assert context.cwd == path
        assert run_code.fn(instance, "import os; os.getcwd()", context=context, config=ags_config).text == path


@pytest.mark.parametrize("limit", [0, 100, 100_000])
def test_a_long_error_is_bounded_by_the_limit(instance, ags_config, caplog, limit):
    result = run_code.fn(instance, "raise ValueError('z ' * 2_500_000)", limit=limit, config=ags_config)
    assert result.error.name == "ValueError" and result.truncated
    for text in (result.error.value, result.error.traceback):
        assert len(re.sub(r"\n\.\.\. [\d,]+ bytes left out \.\.\.\n", "", text)) <= limit
    assert max(len(record.getMessage()) for record in caplog.records) < 10_000


def test_contexts_have_separate_variables(instance, ags_config):
    run_code.fn(instance, "x = 1", config=ags_config)
    context = create_code_context.fn(instance, cwd="/tmp", config=ags_config)
    other = run_code.fn(instance, "import os; ('x' in dir(), os.getcwd())", context=context, config=ags_config)
    assert other.text == "(False, '/tmp')"
    run_code.fn(instance, "y = 1", context=context, config=ags_config)
    restart_code_context.fn(instance, context, config=ags_config)
    assert run_code.fn(instance, "'y' in dir()", context=context.id, config=ags_config).text == "False"
    assert context.id in [one.id for one in list_code_contexts.fn(instance, config=ags_config)]
    remove_code_context.fn(instance, context, config=ags_config)
    assert context.id not in [one.id for one in list_code_contexts.fn(instance, config=ags_config)]


def test_a_language_beside_a_context_of_another_one_is_refused_before_any_request(ags_emulator, instance, ags_config):
    context = create_code_context.fn(instance, config=ags_config)
    before = ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match="^language is 'bash', and the context is for 'python'"):
        run_code.fn(instance, "1", language="bash", context=context, config=ags_config)
    assert ags_emulator.overview()["requests"] == before
    assert run_code.fn(instance, "1", language="python", context=context, config=ags_config).text == "1"


def test_a_cell_that_takes_too_long_is_interrupted(instance, ags_config):
    with pytest.raises(CodeTimeoutError, match="limit of 1 s"):
        run_code.fn(instance, "import time; time.sleep(60)", timeout=1, config=ags_config)
    assert run_code.fn(instance, "1 + 1", timeout=20, config=ags_config).text == "2"


def test_an_unknown_language_is_refused_before_any_request(ags_emulator, ags_config):
    before = ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match="^language must be 'bash', 'java', .* got 'cobol'"):
        run_code.fn("sbi-1", "x", language="cobol", config=ags_config)
    assert ags_emulator.overview()["requests"] == before


def test_a_tool_without_an_interpreter_has_a_clear_error(ags_config):
    tool = wait_tool_active.fn(
        create_tool.fn(ToolSpec(name="plain", image="python:3.11"), config=ags_config), config=ags_config
    )
    instance = wait_instance_running.fn(start_instance.fn(tool, config=ags_config), config=ags_config)
    with pytest.raises(UnsupportedError, match="has no code interpreter .* Use a tool of type code-interpreter"):
        run_code.fn(instance, "1", config=ags_config)


def test_a_repeated_step_gets_the_result_of_the_first_time(instance, ags_config, prefect_server):
    attempts = []

    @flow(retries=1)
    def flaky():
        result = run_code(instance, "open('count', 'a').write('x'); 42", config=ags_config)
        attempts.append(result.text)
        if len(attempts) == 1:
            raise RuntimeError("again")

    flaky()
    assert attempts == ["42", "42"]
    assert exec_command.fn(instance, "cat count", durable=False, config=ags_config).stdout == "x"


def test_a_lost_response_is_an_unknown_outcome_and_nothing_is_repeated(
    instance, ags_config, ags_emulator, prefect_server
):
    code = "import time\nopen('count', 'a').write('x')\nprint('begun' * 1000, flush=True)\ntime.sleep(30)"

    @flow(retries=1)
    def cut():
        ags_emulator.stream_fault("cut", path="/execute", after_bytes=2000)
        run_code(instance, code, config=ags_config)

    with pytest.raises(OutcomeUnknownError, match="It may have run"):
        cut()
    assert exec_command.fn(instance, "cat count", durable=False, config=ags_config).stdout == "x"


def test_pictures_and_tables_are_artifacts_and_secrets_are_masked(instance, ags_config, prefect_server):
    from prefect.blocks.system import Secret

    Secret(value="hunter2-hunter2").save("code-secret", overwrite=True)
    code = f"""
import base64, os
from IPython.display import Image, Markdown, display
display(Image(base64.b64decode("{PNG}")), Markdown("**" + os.environ["KEY"] + "**"))
os.environ["KEY"]
"""
    ids = []

    @flow
    def draw() -> str:
        ids.append(flow_run.id)
        return run_code(instance, code, secrets={"KEY": "code-secret"}, config=ags_config).text

    assert draw() == "********"
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=ids)))
    assert [one.type for one in found] == ["markdown", "markdown"]
    assert "hunter2" not in str(found)
    assert f"data:image/png;base64,{PNG}" in str(found)


TEXT = "a\u2028b\u2029c\x85d\x1ce\x0bf\x0cg\rh"


def test_every_separator_of_unicode_is_text(instance, ags_config):
    run = run_code.fn
    code = f"import sys\nprint({TEXT!r})\nprint({TEXT!r}, file=sys.stderr)\n{TEXT!r}"
    got = run(instance, code, config=ags_config)
    assert (got.stdout, got.stderr) == (f"{TEXT}\n", f"{TEXT}\n")
    assert got.text == repr(TEXT)[1:-1]
    shown = run(instance, f"from IPython.display import HTML\nHTML({TEXT!r})", config=ags_config)
    assert shown.results[0].html == TEXT
    assert run(instance, f"raise ValueError({TEXT!r})", config=ags_config).error.value == TEXT


def test_half_a_pair_of_surrogates_is_replaced(instance, ags_config):
    got = run_code.fn(instance, "from IPython.display import JSON\nJSON({'a': '\\ud800'})", config=ags_config)
    assert got.model_dump_json()


def test_tables_have_all_columns_and_null_for_missing_values(instance, ags_config):
    code = """
import pandas
frame = pandas.DataFrame([[1, pandas.NaT, pandas.NA], [2, pandas.Timestamp("2026-01-02"), 3]], columns=["a", "a", "b"])
frame.columns = ["a", "a", "a.1"]
frame
"""
    (shown,) = run_code.fn(instance, code, config=ags_config).results
    assert shown.table == {"a": [1, 2], "a.1": [None, "2026-01-02T00:00:00"], "a.1.1": [None, 3]}


def test_a_large_table_and_a_large_text_arrive_whole(instance, ags_config):
    code = "import pandas\npandas.DataFrame({'a': range(300_000)})"
    assert len(run_code.fn(instance, code, config=ags_config).results[0].table["a"]) == 300_000
    text = run_code.fn(
        instance, "class Long:\n    def __repr__(self): return 'x' * 20_000_000\nLong()", config=ags_config
    )
    assert len(text.text) == 20_000_000


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_after_the_code_was_sent_is_an_unknown_outcome(
    instance, ags_config, ags_emulator, prefect_server, status
):
    @flow(retries=1)
    def lost():
        run_code(instance, "open('count', 'a').write('x')", config=ags_config)

    ags_emulator.stream_fault("status", port=49999, path="/execute", status=status, executed=True)
    with pytest.raises(OutcomeUnknownError):
        lost()
    assert exec_command.fn(instance, "cat count", durable=False, config=ags_config).stdout == "x"


@pytest.mark.parametrize("status", [200, 204, 206, 299])
def test_a_response_of_another_program_is_not_the_result_of_a_cell(
    instance, ags_config, ags_emulator, prefect_server, status
):
    @flow(retries=1)
    def foreign():
        run_code(instance, "open('count', 'a').write('x')", config=ags_config)

    ags_emulator.stream_fault("status", port=49999, path="/execute", status=status)
    with pytest.raises(OutcomeUnknownError):
        foreign()
    assert run_code.fn(instance, "", config=ags_config).ok


@pytest.mark.parametrize("status", [401, 404, 429])
def test_what_was_refused_before_it_ran_is_sent_again(instance, ags_config, ags_emulator, prefect_server, status):
    @flow
    def again():
        return run_code.with_options(retry_delay_seconds=0)(
            instance, "open('count', 'a').write('x')", config=ags_config
        ).ok

    ags_emulator.stream_fault("status", port=49999, path="/execute", status=status, times=1)
    assert again()
    assert exec_command.fn(instance, "cat count", durable=False, config=ags_config).stdout == "x"


@pytest.mark.slow
def test_a_cell_that_prints_without_end_costs_bounded_memory(instance, ags_config):
    """The emulator runs in this process: what both sides need is measured together."""
    import psutil

    run_code.fn(instance, "1", config=ags_config)
    before = psutil.Process().memory_info().rss
    with pytest.raises(CodeTimeoutError):
        run_code.fn(instance, "while True: print('x' * 1000)", timeout=8, config=ags_config)
    assert psutil.Process().memory_info().rss - before < 400 << 20
    assert run_code.fn(instance, "'alive'", config=ags_config).text == "alive"


def test_long_output_keeps_head_and_tail(instance, ags_config):
    code = "print('begin')\nfor _ in range(100): print('x' * 1_000_000)\nprint('end')"
    got = run_code.fn(instance, code, limit=1000, config=ags_config)
    assert got.truncated and got.stdout.startswith("begin\n") and got.stdout.endswith("\nend\n")


def test_a_language_without_a_kernel_is_unsupported_and_was_not_executed(instance, ags_config, monkeypatch):
    monkeypatch.setattr("ags_flows.emulator.code_interpreter.languages._installed", lambda language, places: None)
    with pytest.raises(UnsupportedError, match="no kernel for the language 'java'"):
        run_code.fn(instance, "1", language="java", config=ags_config)
