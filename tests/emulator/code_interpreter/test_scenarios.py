"""The code interpreter as its own SDK sees it."""

import asyncio
import threading
import time

import httpx
import psutil
import pytest
from e2b import NotFoundException, SandboxException, TimeoutException
from e2b_code_interpreter import AsyncSandbox, Sandbox
from e2b_code_interpreter.charts import BarChart, LineChart, PieChart, SuperChart


def test_state_is_kept_between_cells_and_the_last_value_is_the_result(sandbox):
    assert sandbox.run_code("x = 41").results == []
    done = sandbox.run_code("x += 1; x")
    assert (done.text, done.results[0].is_main_result, done.execution_count) == ("42", True, 2)


def test_output_streams_while_the_code_runs(sandbox):
    seen = []
    began = time.monotonic()
    code = "import time, sys\nfor i in range(3):\n  print(i); print('e', file=sys.stderr); time.sleep(0.5)"
    done = sandbox.run_code(
        code,
        on_stdout=lambda message: seen.append(("out", message.line, time.monotonic() - began)),
        on_stderr=lambda message: seen.append(("err", message.line, time.monotonic() - began)),
    )
    assert [line for kind, line, _ in seen if kind == "out"] == ["0\n", "1\n", "2\n"]
    assert seen[-1][2] - seen[0][2] > 0.7
    assert "".join(done.logs.stdout) == "0\n1\n2\n" and "".join(done.logs.stderr) == "e\n" * 3


def test_results_and_errors_are_streamed(sandbox):
    results, errors = [], []
    code = "from IPython.display import display\ndisplay({'a': 1})\nraise KeyError('k')"
    done = sandbox.run_code(code, on_result=results.append, on_error=errors.append)
    assert [one.text for one in results] == ["{'a': 1}"]
    assert (errors[0].name, errors[0].value) == ("KeyError", "'k'") == (done.error.name, done.error.value)
    assert "KeyError" in done.error.traceback


def test_every_format_that_is_displayed_arrives(sandbox):
    code = """
from IPython.display import HTML, JSON, Javascript, Latex, Markdown, SVG, display
display(HTML("<i>x</i>"), JSON({"a": [1]}), Javascript("1"), Latex("$x$"), Markdown("# x"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg'/>"))
"""
    html, json, javascript, latex, markdown, svg = sandbox.run_code(code).results
    assert (html.html, json.json, javascript.javascript, latex.latex, markdown.markdown) == (
        "<i>x</i>",
        {"a": [1]},
        "1",
        "$x$",
        "# x",
    )
    assert "<svg" in svg.svg


def test_charts_are_pictures_and_data(sandbox):
    code = """
import matplotlib.pyplot as plt
plt.plot([1, 2, 3], [4, 5, 6], label="a"); plt.title("Lines"); plt.xlabel("x"); plt.show()
plt.bar(["p", "q"], [3, 4]); plt.title("Bars"); plt.show()
plt.pie([1, 2], labels=["u", "v"]); plt.title("Pie"); plt.show()
figure, (one, two) = plt.subplots(1, 2); one.plot([1, 2]); two.bar(["r"], [1]); plt.show()
"""
    lines, bars, pie, both = sandbox.run_code(code, timeout=90).results
    assert all(one.png for one in (lines, bars, pie, both))
    assert isinstance(lines.chart, LineChart) and lines.chart.title == "Lines" and lines.chart.x_label == "x"
    assert lines.chart.elements[0].points == [(1, 4), (2, 5), (3, 6)]
    assert isinstance(bars.chart, BarChart) and [bar.label for bar in bars.chart.elements] == ["p", "q"]
    assert isinstance(pie.chart, PieChart)
    assert isinstance(both.chart, SuperChart) and len(both.chart.elements) == 2


def test_the_missing_package_for_charts_is_reported_once_for_each_kernel(sandbox):
    sandbox.run_code("import sys; sys.modules['e2b_charts'] = None")
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()"
    first, second = sandbox.run_code(draw, timeout=90), sandbox.run_code(draw)
    assert first.results[0].png and first.results[0].chart is None
    assert "".join(first.logs.stderr).count("e2b-charts") == 1
    assert "e2b-charts" not in "".join(second.logs.stderr)


def test_tables_are_data(sandbox):
    (table,) = sandbox.run_code("import pandas as pd; pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})", timeout=60).results
    assert table.data == {"a": [1, 2], "b": ["x", "y"]}
    assert "<table" in table.html


def test_contexts_are_apart_and_can_be_listed_restarted_and_removed(sandbox):
    sandbox.run_code("x = 1")
    context = sandbox.create_code_context(cwd="/tmp", language="python")
    assert (context.cwd, context.language) == ("/tmp", "python")
    told = sandbox.run_code("import os; print('x' in dir(), os.getcwd()); y = 2", context=context)
    assert told.logs.stdout == ["False /tmp\n"]
    sandbox.restart_code_context(context)
    assert sandbox.run_code("'y' in dir()", context=context).text == "False"
    assert context.id in {one.id for one in sandbox.list_code_contexts()}
    sandbox.remove_code_context(context)
    with pytest.raises(NotFoundException):
        sandbox.run_code("1", context=context)
    assert sandbox.run_code("x").text == "1"


def test_variables_of_one_execution_do_not_stay(sandbox):
    assert sandbox.run_code("import os; os.environ['ONCE']", envs={"ONCE": "here"}).text == "here"
    assert sandbox.run_code("os.environ.get('ONCE', 'gone')").text == "gone"


def test_code_and_commands_see_the_same_files_and_user(sandbox):
    sandbox.run_code("open('from_code', 'w').write('c')")
    assert sandbox.files.read("from_code") == "c"
    sandbox.files.write("from_files", "f")
    assert sandbox.run_code("open('from_files').read()").text == "f"
    assert sandbox.run_code("import getpass; getpass.getuser()").text == sandbox.commands.run("whoami").stdout.strip()


def test_code_that_takes_too_long_is_interrupted_and_the_next_runs(sandbox):
    with pytest.raises(TimeoutException):
        sandbox.run_code("import time\nwhile True: time.sleep(0.1)", timeout=1)
    assert sandbox.run_code("'free'", timeout=20).text == "free"


def test_a_client_that_goes_away_interrupts_the_code(sandbox, ags_emulator):
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49999"}
    headers["X-Access-Token"] = sandbox._envd_access_token
    code = "import time\nopen('begun', 'w').close()\nfor _ in range(300): time.sleep(0.1)\nopen('ended', 'w').close()"
    with httpx.stream(
        "POST", f"{ags_emulator.url}/execute", json={"code": code}, headers=headers, timeout=20
    ) as answer:
        assert answer.status_code == 200
        while not sandbox.files.exists("begun"):
            time.sleep(0.05)
    assert sandbox.run_code("'free'", timeout=20).text == "free"
    assert not sandbox.files.exists("ended")


@pytest.mark.parametrize(("language", "kernel"), [("r", "IRkernel"), ("java", "Java kernel")])
def test_a_missing_kernel_is_named_with_how_to_install_it(sandbox, language, kernel, monkeypatch):
    monkeypatch.setattr("ags_flows.emulator.code_interpreter.languages._installed", lambda language, places: None)
    with pytest.raises(SandboxException, match=f"needs .*{kernel}.* install"):
        sandbox.run_code("1", language=language)


def test_an_unknown_language_is_refused(sandbox):
    with pytest.raises(SandboxException, match="cobol"):
        sandbox.run_code("1", language="cobol")


def test_a_sandbox_that_is_killed_ends_the_execution_as_the_sdk_expects(options):
    sandbox = Sandbox.create(**options)
    threading.Timer(2.0, sandbox.kill).start()
    began = time.monotonic()
    with pytest.raises((TimeoutException, SandboxException)):
        sandbox.run_code("import time\ntime.sleep(60)", timeout=50)
    assert time.monotonic() - began < 20


def test_a_paused_sandbox_goes_on_with_its_variables(options):
    sandbox = Sandbox.create(**options)
    sandbox.run_code("x = 'kept'")
    sandbox.pause()
    again = Sandbox.connect(sandbox.sandbox_id, **options)
    assert again.run_code("x").text == "kept"
    again.kill()


def test_several_cells_of_several_contexts_run_side_by_side(options):
    async def together():
        sandbox = await AsyncSandbox.create(**options)
        contexts = [await sandbox.create_code_context() for _ in range(3)]
        began = time.monotonic()
        code = "import time; time.sleep(1.5); x = {0}; x"
        done = await asyncio.gather(
            *(sandbox.run_code(code.format(number), context=one) for number, one in enumerate(contexts))
        )
        seconds = time.monotonic() - began
        await sandbox.kill()
        return [one.text for one in done], seconds

    texts, seconds = asyncio.run(together())
    assert texts == ["0", "1", "2"]
    assert seconds < 4.4


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"code": 1}', b'{"code": "1", "env_vars": 3}', b"\x00\xff"]
)
def test_a_damaged_request_is_refused_and_harms_nothing(sandbox, ags_emulator, body):
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49999"}
    headers |= {"X-Access-Token": sandbox._envd_access_token, "Content-Type": "application/json"}
    for path in ("/execute", "/contexts"):
        answer = httpx.post(f"{ags_emulator.url}{path}", content=body, headers=headers, timeout=20)
        assert answer.status_code < 600
        if path == "/execute":
            assert 400 <= answer.status_code < 500, answer.text


def test_nothing_is_left_of_killed_interpreters(options, ags_emulator):
    def kernels():
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if "ipykernel" in " ".join(process.cmdline()) or "launch.py" in " ".join(process.cmdline()):
                    found.append(process.pid)
            except psutil.Error:
                continue
        return set(found)

    before = kernels()
    for _ in range(3):
        sandbox = Sandbox.create(**options)
        assert sandbox.run_code("1").text == "1"
        assert kernels() - before
        sandbox.kill()
    deadline = time.monotonic() + 10
    while kernels() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not kernels() - before


def test_a_wrong_method_is_refused_with_the_right_ones(sandbox, ags_emulator):
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49999"}
    response = httpx.put(f"{ags_emulator.url}/execute", headers=headers)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert httpx.get(f"{ags_emulator.url}/execute/x", headers=headers).status_code == 404
