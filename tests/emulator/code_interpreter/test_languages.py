"""The same in every language, by every way to run code; `make languages` installs all six."""

import os
from dataclasses import dataclass

import pytest
from e2b import TimeoutException
from e2b_code_interpreter import Sandbox

from ags_flows.emulator.code_interpreter.languages import NoKernel, recipe_for
from ags_flows.emulator.code_interpreter.places import host_places
from ags_flows.errors import CodeTimeoutError
from ags_flows.runtime import AGSRuntime
from ags_flows.tasks import create_code_context, remove_code_context, run_code
from ags_flows.testing import config_for

ALL = bool(os.environ.get("LANGUAGES"))
LINES = 100_000 if ALL else 2_000
COUNT = {
    "python": "for i in range({n}): print(i)",
    "javascript": "for (let i = 0; i < {n}; i++) console.log(i)",
    "typescript": "for (let i: number = 0; i < {n}; i++) console.log(i)",
    "bash": "for ((i = 0; i < {n}; i++)); do echo $i; done",
    "r": "for (i in 0:({n} - 1)) cat(sprintf('%d\\n', i))",
    "java": "for (int i = 0; i < {n}; i++) System.out.println(i);",
}
KEPT = {
    "python": ("kept = 41", "print(kept + 1)"),
    "javascript": ("let kept = 41", "console.log(kept + 1)"),
    "typescript": ("let kept: number = 41", "console.log(kept + 1)"),
    "bash": ("kept=41", "echo $((kept + 1))"),
    "r": ("kept <- 41", "cat(kept + 1, '\\n', sep='')"),
    "java": ("int kept = 41;", "System.out.println(kept + 1);"),
}
VALUE = {
    "python": ("6 * 7", "42"),
    "javascript": ("const a = 6; a * 7", "42"),
    "typescript": ("const b: number = 6; b * 7", "42"),
    "bash": ("true", None),
    "r": ("6 * 7", "[1] 42"),
    "java": ("6 * 7", "42"),
}
"""An expression and its text; Bash has no values."""

GREETING = "Grüße, 世界 🎈\n"
TEXT = {
    "python": "print('Grüße, 世界 🎈')",
    "javascript": "console.log('Grüße, 世界 🎈')",
    "typescript": "console.log('Grüße, 世界 🎈')",
    "bash": "echo 'Grüße, 世界 🎈'",
    "r": "cat('Grüße, 世界 🎈\\n')",
    "java": 'System.out.println("Grüße, 世界 🎈");',
}
ERROR = {
    "python": "print('before'); raise ValueError('bad')",
    "javascript": "console.log('before'); throw new Error('bad')",
    "typescript": "console.log('before'); throw new Error('bad')",
    "bash": "echo before; (exit 3)",
    "r": "cat('before\\n'); stop('bad')",
    "java": 'System.out.println("before"); throw new RuntimeException("bad");',
}
VARIABLE = {
    "python": "import os; print(os.environ.get('ONCE', 'gone'))",
    "javascript": "console.log(Deno.env.get('ONCE') ?? 'gone')",
    "typescript": "console.log(Deno.env.get('ONCE') ?? 'gone')",
    "bash": "echo ${ONCE:-gone}",
    "r": "cat(Sys.getenv('ONCE', 'gone'), '\\n', sep='')",
    "java": 'System.out.println(System.getProperty("ONCE", "gone"));',
}
FILE = {
    "python": "print(open('greeting.txt').read(), end='')",
    "javascript": "console.log(Deno.readTextFileSync('greeting.txt').trim())",
    "typescript": "console.log(Deno.readTextFileSync('greeting.txt').trim())",
    "bash": "cat greeting.txt",
    "r": "cat(readLines('greeting.txt', encoding='UTF-8'), sep='\\n')",
    "java": 'System.out.print(java.nio.file.Files.readString(java.nio.file.Path.of("greeting.txt")));',
}
WAIT = {
    "python": "import time; time.sleep(60)",
    "javascript": "await new Promise(done => setTimeout(done, 60000))",
    "typescript": "await new Promise(done => setTimeout(done, 60000))",
    "bash": "sleep 60",
    "r": "Sys.sleep(60)",
    "java": "Thread.sleep(60000);",
}


@dataclass
class Ran:
    """What every way returns of a cell."""

    out: str
    text: str | None
    error: str


def missing(language):
    try:
        recipe_for(language, host_places())
    except NoKernel as error:
        return str(error)
    return None


@pytest.fixture(scope="module", params=COUNT)
def language(request):
    reason = missing(request.param)
    if reason and not ALL:
        pytest.skip(reason)
    assert reason is None
    return request.param


@pytest.fixture(scope="module")
def sandbox(ags_emulator_process):
    ags_emulator_process.reset()
    url = ags_emulator_process.url
    sandbox = Sandbox.create(api_key=ags_emulator_process.api_key, api_url=url, sandbox_url=url, timeout=3600)
    yield sandbox
    sandbox.kill()


@pytest.fixture(params=["run_code", "AGSRuntime", "e2b"])
def run(request, ags_emulator_process, sandbox, language):
    """Run code by the task, by the facade, or by the SDK alone."""
    config = config_for(ags_emulator_process)

    def run(code, timeout=120, **options):
        if request.param == "run_code":
            done = run_code.fn(
                sandbox.sandbox_id, code, language=language, timeout=timeout, limit=10**7, config=config, **options
            )
            return Ran(done.stdout, _last(done), str(done.error or ""))
        if request.param == "AGSRuntime":
            runtime = AGSRuntime(config)
            done = runtime.execute_code_in_sandbox(sandbox, code, language=language, timeout=timeout, **options)
        else:
            done = sandbox.run_code(code, language=language, timeout=timeout, **options)
        error = done.error
        told = f"{error.name} {error.value} {error.traceback}" if error else ""
        return Ran("".join(done.logs.stdout), _last(done), told)

    return run


def _last(done):
    return done.results[-1].text if done.results else None


@pytest.mark.timeout(900)
def test_a_flood_of_lines_arrives_whole_and_in_order(run, language):
    done = run(COUNT[language].format(n=LINES), timeout=800)
    assert done.out == "".join(f"{number}\n" for number in range(LINES))
    assert not done.error


def test_output_stays_with_its_cell(run, language):
    for number in range(3):
        assert run(COUNT[language].format(n=number + 1)).out == "".join(f"{each}\n" for each in range(number + 1))


def test_state_is_kept_between_cells(run, language):
    first, second = KEPT[language]
    assert not run(first).error
    assert run(second).out == "42\n"


def test_the_last_value_is_the_result(run, language):
    code, text = VALUE[language]
    assert run(code).text == text


def test_text_of_all_the_world_arrives(run, language):
    assert run(TEXT[language]).out == GREETING


def test_an_error_is_a_value_and_follows_the_output(run, language):
    done = run(ERROR[language])
    assert done.out == "before\n"
    assert ("3" if language == "bash" else "bad") in done.error
    assert run(KEPT[language][0]).out == ""


def test_cells_read_the_files_of_the_sandbox(run, language, sandbox):
    sandbox.files.write("greeting.txt", GREETING)
    assert run(FILE[language]).out == GREETING


def test_a_cell_that_takes_too_long_is_interrupted_and_the_next_one_runs(run, language):
    run(TEXT[language])
    with pytest.raises((CodeTimeoutError, TimeoutException)):
        run(WAIT[language], timeout=1)
    assert run(TEXT[language], timeout=30).out == GREETING


@pytest.mark.parametrize("way", ["run_code", "e2b"])
def test_variables_of_one_execution_do_not_stay(ags_emulator_process, sandbox, language, way):
    code = VARIABLE[language]
    if way == "run_code":
        config = config_for(ags_emulator_process)
        seen = [
            run_code.fn(sandbox.sandbox_id, code, language=language, config=config, **options).stdout
            for options in ({"env": {"ONCE": "here"}}, {})
        ]
    else:
        seen = [
            "".join(sandbox.run_code(code, language=language, **options).logs.stdout)
            for options in ({"envs": {"ONCE": "here"}}, {})
        ]
    assert seen == ["here\n", "gone\n"]


def test_variables_of_an_execution_that_fails_do_not_stay(sandbox, language):
    assert sandbox.run_code(ERROR[language], language=language, envs={"ONCE": "here"}).error
    assert "".join(sandbox.run_code(VARIABLE[language], language=language).logs.stdout) == "gone\n"


def test_contexts_have_separate_variables(ags_emulator_process, sandbox, language):
    config = config_for(ags_emulator_process)
    first, second = KEPT[language]
    sandbox.run_code(first, language=language)
    context = create_code_context.fn(sandbox.sandbox_id, language=language, cwd="/tmp", config=config)
    assert (context.language, context.cwd) == (language, "/tmp")
    other = run_code.fn(sandbox.sandbox_id, second, context=context, config=config)
    assert "42" not in other.stdout
    remove_code_context.fn(sandbox.sandbox_id, context, config=config)
    assert "".join(sandbox.run_code(second, language=language).logs.stdout) == "42\n"
