"""Cells of Bash: nothing that a cell prints, sets or reads ends its kernel or hides its output."""

import time

import pytest
from e2b_code_interpreter import Sandbox


@pytest.fixture(scope="module")
def sandbox(ags_emulator_process):
    pytest.importorskip("bash_kernel")
    ags_emulator_process.reset()
    url = ags_emulator_process.url
    sandbox = Sandbox.create(api_key=ags_emulator_process.api_key, api_url=url, sandbox_url=url, timeout=3600)
    yield sandbox
    sandbox.kill()


@pytest.fixture(scope="module")
def run(sandbox):
    def run(code, **options):
        """Return what a cell prints, and its exit code."""
        done = sandbox.run_code(code, language="bash", timeout=60, **options)
        return "".join(done.logs.stdout), int(done.error.value) if done.error else 0

    return run


@pytest.mark.parametrize("size", [1 << 20, 5 << 20])
def test_one_long_line_arrives_whole_and_in_time(run, size):
    run("true")
    began = time.monotonic()
    out, code = run(f"head -c {size} /dev/zero | tr '\\0' x")
    assert (out.count("x"), len(out), code) == (size, size, 0)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "code",
    [
        "PS1='> ' PS2= PROMPT_COMMAND='echo prompt'",
        "trap 'echo debug' DEBUG; trap 'echo err' ERR; trap 'echo exit' EXIT; trap - DEBUG ERR EXIT",
        "set -u; echo ${nothing:-}; set +u",
        "set -x; set +x",
        "exec >/tmp/elsewhere; echo hidden",
        "set -n",
        "sleep 60 &",
        "alias echo='printf other'; unalias echo",
        "echo() { printf other; }; unset -f echo",
        "echo 'bash_kernel: saved html data to: /nowhere'",
    ],
)
def test_settings_of_the_shell_stay_with_the_cells(run, code):
    run("kept=41")
    run(code)
    assert run("echo $((kept + 1))") == ("42\n", 0)


@pytest.mark.parametrize("code", ["read line", "cat", "python3 -c 'print(input())'", "cat /dev/tty"])
def test_a_cell_that_reads_finds_nothing_to_read(run, code):
    run("kept=41")
    out, _ = run(code + "; echo $((kept + 1))")
    assert out.endswith("42\n")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("exit 3", 3),
        ("set -e; false; echo never", 1),
        ("exec sh -c 'exit 4'", 4),
        ("exec true", 0),
        ("kill -9 $$", 137),
    ],
)
def test_a_cell_that_ends_the_shell_has_its_exit_code_and_the_next_one_a_new_shell(run, code, status):
    run("kept=41")
    out, seen = run(code)
    assert seen == status and out.endswith("Restarting Bash\n")
    assert run("echo ${kept:-lost}") == ("lost\n", 0)


@pytest.mark.parametrize("code", ["echo 'open", 'echo "open', "if true; then", "echo $(", "for"])
def test_an_unfinished_cell_is_an_error(run, code):
    out, status = run(code)
    assert status and "unexpected" in out or "syntax error" in out
    assert run("echo after") == ("after\n", 0)


def test_output_is_unchanged_and_a_terminals(run):
    assert run("printf 'no end'") == ("no end", 0)
    assert run("printf 'a\\rb\\r\\nc\\n'") == ("a\rb\r\nc\n", 0)
    assert run("test -t 1 && stty size <&1") == ("24 80\n", 0)
    assert run("echo 'hi! !x'; echo \\\\") == ("hi! !x\n\\\n", 0)
    assert run("cat <<END\nKÄSE\nEND") == ("KÄSE\n", 0)


def test_output_comes_while_the_cell_runs(sandbox):
    pieces = []
    sandbox.run_code(
        "printf first; sleep 1; echo second",
        language="bash",
        on_stdout=lambda message: pieces.append((time.monotonic(), message.line)),
    )
    assert [text for _, text in pieces] == ["first", "second\n"] and pieces[1][0] - pieces[0][0] > 0.5


def test_pages_are_shown(sandbox):
    done = sandbox.run_code("echo before; echo '<b>page</b>' | displayHTML; echo after", language="bash")
    assert [one.html for one in done.results] == ["<b>page</b>\n"]
    assert "".join(done.logs.stdout) == "before\nafter\n"
