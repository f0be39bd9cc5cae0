"""Interactive shells as steps of flows."""

import pytest
from prefect import flow, task
from prefect.exceptions import TerminationSignal
from swerex.exceptions import BashIncorrectSyntaxError

from ags_flows.errors import (
    CommandFailedError,
    CommandTimeoutError,
    ConfigurationError,
    OutcomeUnknownError,
    ServiceError,
    UnsupportedError,
)
from ags_flows.swerex import SwerexServer, run_in_shell, swerex_session
from ags_flows.swerex.runtime import GatewayRuntime


@pytest.mark.usefixtures("prefect_server")
def test_a_retried_flow_finds_its_shell_and_runs_no_step_twice(configured, sandboxes, ags_config, live):
    seen, steps, unknown = [], [], []

    @task
    def count(server):
        assert SwerexServer.model_validate_json(server.model_dump_json()) == server
        return run_in_shell(server, "echo step >> log; wc -l < log", check=True, config=ags_config).stdout.strip()

    def attempt():
        with swerex_session(configured(), ags_config) as server:
            seen.append(server.instance_id)
            run_in_shell(server, "cd /tmp && export STEP=$((STEP + 1))", config=ags_config)
            steps.append(count(server))
            steps.append(run_in_shell(server, "echo $STEP $PWD", config=ags_config).stdout.strip())
            if len(seen) == 1:
                sandboxes.stream_fault("cut", port=8000, path="run_in_session", after_seconds=1)
            with pytest.raises(OutcomeUnknownError) as lost:
                run_in_shell(server, "echo lost >> lost; sleep 2", config=ags_config)
            unknown.append(str(lost.value))
            lost = run_in_shell(server, "cat lost", step=f"attempt {len(seen)}", config=ags_config)
            assert lost.stdout.strip() == "lost"
            if len(seen) == 1:
                # As from a host that goes down: the sandbox is left to the retry.
                raise TerminationSignal(signal=15)

    @flow(retries=1)
    def agent():
        try:
            attempt()
        except TerminationSignal as error:
            raise RuntimeError("the host went down") from error

    agent()
    assert seen[0] == seen[1]
    assert steps == ["1", "1 /tmp", "1", "1 /tmp"]
    assert "may have been executed" in unknown[0] and "left no result" in unknown[1]
    assert not live()


@pytest.mark.usefixtures("prefect_server")
def test_a_step_that_did_not_arrive_is_sent_again(configured, sandboxes, ags_config):
    @flow
    def agent():
        with swerex_session(configured(), ags_config) as server:
            run_in_shell(server, "cd /tmp", config=ags_config)
            # Refused, also with a new token.
            sandboxes.stream_fault("status", status=401, port=8000, path="run_in_session", times=2)
            return run_in_shell(server, "echo step >> log; wc -l < log", check=True, config=ags_config).stdout.strip()

    assert agent() == "1"


def test_outcomes_of_a_step(configured, ags_config):
    with swerex_session(configured()) as server:

        def run(command, **options):
            return run_in_shell.fn(server, command, config=ags_config, **options)

        failed = run("cd /tmp; echo done; (exit 9)")
        assert (failed.exit_code, failed.stdout.strip(), failed.instance_id) == (9, "done", server.instance_id)
        with pytest.raises(CommandFailedError, match="exit code 3"):
            run("(exit 3)", check=True)
        with pytest.raises(CommandTimeoutError, match="limit of 1 s"):
            run("echo begun; sleep 60", timeout=1)
        assert run("pwd").stdout.strip() == "/tmp"
        assert run("pwd", session="other").stdout.strip() == "/"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"command": " "}, "command is empty"),
        ({"command": "ls", "timeout": 0}, "timeout must be > 0 seconds, got 0"),
        ({"command": "ls", "timeout": float("inf")}, "timeout must be a finite number"),
        ({"command": "ls", "session": ""}, "session must be a text that is not empty"),
    ],
)
def test_a_wrong_argument_is_named_before_any_request(arguments, told, ags_emulator, ags_config):
    before = ags_emulator.overview()["requests"]
    with pytest.raises(ConfigurationError, match=told):
        run_in_shell.fn(SwerexServer(instance_id="x"), **arguments, config=ags_config)
    assert ags_emulator.overview()["requests"] == before


HEREDOC = "cat <<EOF > /tmp/f\nhello $((1 + 1))\nEOF\ncat /tmp/f"


def test_any_command_has_its_outcome_and_the_next_step_works(configured, ags_config):
    with swerex_session(configured()) as server:

        def run(command, **options):
            return run_in_shell.fn(server, command, config=ags_config, timeout=options.pop("timeout", 20), **options)

        def outcome(command):
            got = run(command)
            assert run("echo next").stdout == "next\n"
            return got.exit_code, got.stdout

        assert outcome(HEREDOC) == (0, "hello 2\n")
        assert outcome("echo done; exit 3") == (3, "done\n")
        assert outcome("set -e\necho done\nfalse\necho never") == (1, "done\n")
        assert outcome("set -u; echo $unset_variable; echo never")[0] != 0
        assert outcome('cat; read line; echo "read: $line"') == (0, "read: \n")
        assert outcome("python3 -i")[0] == 0
        assert outcome("printf 'no end of line'") == (0, "no end of line")
        assert outcome("echo 'a\tb'; echo \"it's\"") == (0, "a\tb\nit's\n")
        assert outcome("for i in 1 2; do\n  echo $i\ndone # comment") == (0, "1\n2\n")
        assert outcome("echo x; (exit 7)") == (7, "x\n")
        run("cd /tmp; f() { echo called; }; export A=1; alias two='echo 2'")
        assert run("pwd; f; echo $A\ntwo").stdout == "/tmp\ncalled\n1\n2\n"
        assert outcome("set -x; echo traced; set +x") == (0, "+++ echo traced\ntraced\n+++ set +x\n")
        assert run("set -x").stdout == ""
        for _ in range(2):
            assert run("echo traced").stdout == "+++ echo traced\ntraced\n"
        run("set +x; trap 'echo before' DEBUG")
        for _ in range(2):
            assert run("echo trapped").stdout == "before\ntrapped\n"
        run("trap - DEBUG")
        assert outcome("trap 'echo failed' ERR; false; trap - ERR") == (0, "failed\n")
        assert outcome("trap 'echo bye' EXIT; trap - EXIT; echo kept") == (0, "kept\n")
        run("printf '%s\\n' 'PS1=mine' 'PS2=more' >/tmp/prompt")
        assert outcome("source /tmp/prompt; echo sourced") == (0, "sourced\n")
        for name in ("echo", "printf", "eval", "set", "unset", "trap", "base64"):
            run(f"alias {name}=true")
            assert run("command printf 'kept\\n'; (exit 5)").exit_code == 5
            run(f"\\unalias {name}; function {name} {{ return 9; }}")
            assert run("command printf 'kept\\n'; (exit 5)").stdout == "kept\n"
            run(f"\\builtin unset -f {name}")
        run("trap 'echo bye $?' EXIT")
        assert run("trap -p EXIT | grep -c bye").stdout == "1\n"
        assert outcome("echo leaving; exit 6") == (6, "leaving\nexit\nbye 6\n")
        with pytest.raises(OutcomeUnknownError, match="not end it in the step in which it sets a trap on EXIT"):
            run("trap 'echo bye' EXIT; exit 0")
        markers = "EXITCODESTART5EXITCODEEND UNIQUESTRING29234"
        assert outcome(f"echo {markers}") == (0, f"{markers}\n")
        with pytest.raises(CommandFailedError, match="exit code 4"):
            run("exit 4", check=True)
        for command in ("exec true", "kill -9 $$", "echo SHELLPS1PREFIX", "echo aSHELLPS1PREFIXb; sleep 2"):
            with pytest.raises(OutcomeUnknownError, match="The outcome of a command") as lost:
                run(command)
            assert "pexpect" not in str(lost.value)
            assert run("echo next").stdout == "next\n"
        with pytest.raises(BashIncorrectSyntaxError, match="unexpected"):
            run("echo (")
        with pytest.raises(CommandTimeoutError, match="limit of 2 s"):
            run("read line </dev/tty", timeout=2)
        assert run("echo next").stdout == "next\n"


# Commands after which the same shell runs the next step.
KEPT = [
    "exec 2>/tmp/errors",
    "exec 2>/dev/null",
    "exec 2>&-",
    "export PATH=/nope",
    "builtin() { echo mine; }",
    "eval() { false; }; printf() { false; }; command() { false; }; base64() { false; }",
    "unset BASH",
    "set -o posix",
    "alias builtin=false",
]
# Commands after which a new shell runs it.
LOST = ["readonly ags_mark", "readonly ags_mark=x", "readonly PS1=mine"]
# Commands whose outcome is unknown.
UNKNOWN = ["kill -INT $$", "readonly ags_code"]


def test_no_command_takes_the_outcome_of_the_next_step(configured, ags_config, caplog):
    with swerex_session(configured()) as server:

        def run(command, session):
            return run_in_shell.fn(server, command, session=session, config=ags_config, timeout=20)

        for command in (*KEPT, *LOST):
            session = str((*KEPT, *LOST).index(command))
            done = run(f"STATE=kept; {command}", session)
            assert (done.exit_code, done.stdout) == (0, ""), command
            assert run("echo next $STATE", session).stdout.split() == (
                ["next", "kept"] if command in KEPT else ["next"]
            ), command
        assert caplog.text.count("made its variables PS1 or ags_* read-only") == len(LOST)
        for command in UNKNOWN:
            with pytest.raises(OutcomeUnknownError, match="was interrupted, or cannot report the end"):
                run(command, "unknown")
            assert run("echo next", "unknown").stdout == "next\n"
        run("set -kv", "options")
        assert run("echo next", "options").stdout == "echo next\nnext\n"


# Steps after which the same shell, and those after which a new one, runs the next step.
ODD = [
    ["ls -d / \\", "/\n"],
    ["ls -d / \\\n", "/\n"],
    ["ls -d / \\\n\n", "/\n"],
    [": \\\\", ""],
    ["a=$(cat <<X\nhey\nX\n); echo $a", "hey\n"],
    [": <<'EOF'\n" + "line\n" * 200_000 + "EOF", ""],
    ["set -a; X='" + "x" * 200_000 + "'; echo ${#X}; unset X; set +a", "200000\n"],
    ["set -a; echo " + "x" * 200_000 + " | wc -c", "200001\n"],
    ['echo "don\'t!"; !!; echo !$', "don't!\nbash: !!: command not found\n!$\n"],
    ["shopt -s extglob; IFS=/; GLOBIGNORE='*'", ""],
    ["echo !(/*) +(a)", "!(/*) +(a)\n"],
    ["set -n", ""],
    ["enable -n echo test", ""],
    ["set -efuC; umask 777; ulimit -n 20; true", ""],
    ["set +efuC; umask 022; set -o posix; set -m; shopt -u expand_aliases", ""],
    ["set +o posix; set +m", ""],
    ["rm() { echo mine; }; source() { echo mine; }; .() { echo mine; }", ""],
]
DISABLED = ["builtin", "eval", "printf", "set", "trap", "unset", "declare", "[", "builtin printf eval"]


@pytest.mark.long
def test_whatever_a_command_is_the_next_step_works(configured, ags_config, caplog):
    with swerex_session(configured()) as server:

        def run(command, session="default"):
            return run_in_shell.fn(server, command, session=session, config=ags_config, timeout=20)

        run("KEPT=kept")
        for command, output in ODD:
            done = run(command)
            assert done.exit_code == 0 and done.stdout.startswith(output), command[:80]
            assert run("/bin/echo next $KEPT").stdout.split() == ["next", "kept"], command[:80]
        assert "new shell" not in caplog.text
        for names in DISABLED:
            assert run(f"(exit 0); enable -n {names}", names).exit_code == 0, names
            assert run("echo next", names).stdout == "next\n", names
        assert caplog.text.count("disabled builtins of the shell") == len(DISABLED)
        with pytest.raises(BashIncorrectSyntaxError, match="\nbash: line 3: syntax error"):
            run("echo a\n(echo")
        assert run("ls -A /tmp | grep ags-step").stdout == ""
        run("ulimit -v 1", "limited")
        assert run("echo next", "limited").stdout == "next\n"


def test_a_shell_that_does_not_take_a_step_is_replaced(configured, ags_config, caplog, monkeypatch):
    async def full(*_):
        raise OSError(28, "No space left on device")

    with swerex_session(configured()) as server:

        def run(command, **options):
            return run_in_shell.fn(server, command, config=ags_config, timeout=10, **options)

        run("STATE=kept; alias '{=false'")
        assert run("echo next $STATE").stdout == "next\n"
        run("(until [ -e /tmp/go ]; do sleep 0.1; done; kill -9 $$; touch /tmp/gone) &")
        run("touch /tmp/go; until [ -e /tmp/gone ]; do sleep 0.1; done", session="other")
        assert run("echo next >>/tmp/next; wc -l </tmp/next").stdout == "1\n"
        assert caplog.text.count("did not take the command: it runs in a new shell") == 2
        run("echo 'enable -n eval' >~/.bashrc")
        with pytest.raises(UnsupportedError, match="A new shell in .* did not take the command"):
            run("echo next", session="none")
        with pytest.raises(ServiceError, match="cannot be written to /tmp/.*No space left"):
            monkeypatch.setattr(GatewayRuntime, "write_file", full)
            run("echo next")
