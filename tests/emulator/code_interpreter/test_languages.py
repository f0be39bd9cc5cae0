"""The same in every language: what is printed, kept, raised; `make languages` installs all six."""

import os

import pytest
from e2b_code_interpreter import Sandbox

from ags_flows.emulator.code_interpreter.languages import NoKernel, recipe_for
from ags_flows.emulator.code_interpreter.places import host_places
from ags_flows.runtime import AGSRuntime
from ags_flows.tasks import run_code
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


@pytest.fixture
def run(sandbox, language):
    def run(code):
        return sandbox.run_code(code, language=language, timeout=290)

    return run


def out(done):
    return "".join(done.logs.stdout)


@pytest.mark.timeout(300)
def test_a_flood_of_lines_arrives_whole_and_in_order(run, language):
    done = run(COUNT[language].format(n=LINES))
    assert out(done) == "".join(f"{number}\n" for number in range(LINES))
    assert done.error is None


def test_output_stays_with_its_cell(run, language):
    for number in range(3):
        assert out(run(COUNT[language].format(n=number + 1))) == "".join(f"{each}\n" for each in range(number + 1))


def test_state_is_kept_between_cells(run, language):
    first, second = KEPT[language]
    assert run(first).error is None
    assert out(run(second)) == "42\n"


def test_text_of_all_the_world_arrives(run, language):
    assert out(run(TEXT[language])) == GREETING


def test_an_error_is_a_value_and_follows_the_output(run, language):
    done = run(ERROR[language])
    assert out(done) == "before\n"
    assert ("3" if language == "bash" else "bad") in f"{done.error.name} {done.error.value} {done.error.traceback}"
    assert out(run(KEPT[language][0])) == ""


@pytest.mark.parametrize("door", ["task", "runtime"])
def test_our_own_doors_give_the_same(ags_emulator_process, sandbox, language, door):
    config = config_for(ags_emulator_process)
    if door == "runtime":
        done = AGSRuntime(config).execute_code_in_sandbox(sandbox, TEXT[language], language=language)
        assert out(done) == GREETING
    else:
        assert run_code.fn(sandbox.sandbox_id, TEXT[language], language=language, config=config).stdout == GREETING
