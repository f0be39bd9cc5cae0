"""No login profile disturbs the scripts of this package, and the caller's values override the profile.

All operations of all users run side by side under one profile; each test reads the outcome of one of them.
"""

import itertools
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from ags_flows.cloud.data_planes import open_plane
from ags_flows.durable.command import Command, DurableCommand
from ags_flows.emulator.sandbox import isolation
from ags_flows.errors import ConfigurationError, InvalidRequestError
from ags_flows.models.checks import SET_BY_BASH
from ags_flows.ownership import Frame, Holder, Place, Step
from ags_flows.tasks import (
    download_directory,
    download_file,
    download_files,
    exec_command,
    kill_command,
    list_files,
    read_file,
    remove_path,
    run_code,
    start_command,
    start_instance,
    upload_directory,
    upload_file,
    wait_command,
    wait_instance_running,
    write_file,
)
from ags_flows.testing import config_for

SLOW = 1.5
PROFILES = {
    "prints": "echo Welcome to this image; echo warning >&2",
    "changes directory": "cd /tmp",
    "is slow": f"sleep {SLOW}",
    "stops at errors": "set -eu; shopt -s failglob",
    "fails": "false",
    "ends": "exit 3",
    "ends with success": "exit 0",
    "becomes another program": "exec true",
    "becomes another shell": "exec bash",
    "executes nothing more": "set -n",
    "kills its shell": "kill -9 $$",
    "traces": "set -x",
    "exports": "export PATH=/usr/bin:/bin MODE=profile HOME=/tmp LANG=xx_YY LC_ALL=xx_YY TAR_OPTIONS=-v; umask 077; "
    "export IFS=:; IFS=:",
    "has aliases": "shopt -s expand_aliases; alias cd=false ls=false mkdir=false tar=false mv=false; "
    "cd() { false; }; printf() { false; }; exec() { false; }; export -f cd printf exec",
    "has functions with names of builtins": "export() { false; }; eval() { false; }; set() { false; }; "
    "builtin() { false; }; shopt() { false; }; source() { false; }; unset() { false; }; :() { false; }",
    "has aliases of words of the shell": "shopt -s expand_aliases; alias for=false if=false done=false eval=false "
    "unset=false set=false '[['=false",
    "takes assignments anywhere": "set -k",
    "shows what it reads": "set -v",
    "is in POSIX mode": "set -o posix",
    "reads its input": "read -r -t 1 line; cat >/dev/null",
    "replaces arguments, descriptors and attributes": 'set -- touch "$HOME/executed"; declare -u MODE; '
    'declare -i PATH; for number in {3..99} 200 255; do eval "exec $number</dev/null"; done',
    "starts another shell with its arguments": '[ -n "$IN" ] || { export IN=1; exec bash -l "$@"; }',
    "copies the output": 'exec > >(while read -r line; do sleep 0.1; echo "$line"; done)',
    "has a trap on each command": "trap 'export MODE=profile PATH=/profile:/bin; cd /tmp' DEBUG RETURN; set -T; "
    "trap() { false; }",
    "has traps": "trap 'echo trapped' EXIT; trap : TERM; exec 3>&1; set -f; set -o noclobber",
}
# Profiles after which the command is not reached, and the exit codes of the command.
ENDING = {
    "ends": 3,
    "ends with success": 125,
    "becomes another program": 125,
    "becomes another shell": 125,
    "executes nothing more": 125,
    "starts another shell with its arguments": 125,
    "kills its shell": 137,
}
USERS = {"user": "/home/user", **({"root": "/root"} if isolation().root and os.geteuid() == 0 else {})}

# Variables that bash itself sets and reads, as in the chapter "Shell Variables" of its manual.
SPECIAL = """
BASH BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND BASH_ENV BASH_LINENO
BASH_REMATCH BASH_SOURCE BASH_SUBSHELL BASH_VERSINFO BASH_VERSION COLUMNS COMP_WORDBREAKS DIRSTACK EPOCHREALTIME
EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD HOSTNAME HOSTTYPE LINENO LINES MACHTYPE OLDPWD OPTARG OPTERR OPTIND OSTYPE
PIPESTATUS PPID PS4 RANDOM REPLY SECONDS SHELLOPTS SHLVL SRANDOM UID _
""".split()

attempts = itertools.count(1)


def step(name):
    frames = (Frame("flow", "a" * 32, next(attempts)), Frame("call", uuid.uuid4().hex))
    return Step(name, "", "a" * 32, Place(), Holder(frames))


class Case:
    """One sandbox under one profile, as one user uses it."""

    def __init__(self, config, instance, profile, user, directory):
        self.config, self.instance, self.profile, self.user = config, instance, profile, user
        self.home = USERS[user]
        self.plane = open_plane(config.connection(), instance.id).plane
        self.name = f"p-{uuid.uuid4().hex}"
        self.local = directory / self.name
        self.local.mkdir()

    def do(self, task, *arguments, **options):
        return task.fn(self.instance, *arguments, **options, user=self.user, config=self.config)

    def shown(self, result, code=0):
        """Return the last line that a command printed, after a look at its exit code."""
        if self.profile in ENDING:
            assert result.exit_code == ENDING[self.profile]
            assert "The shell ended in the login profile" in result.stderr
            return None
        assert result.exit_code == code, result
        lines = [line for line in result.stdout.splitlines() if line != "trapped"]
        return lines[-1] if lines else ""


def check_given(case, durable):
    """Environment, directory and input that were given."""
    result = case.do(
        exec_command,
        'read -r line; builtin printf "%s\\n" "$line $MODE $PWD ${PATH%%:*}"',
        cwd="/usr",
        env={"MODE": "given", "PATH": "/opt/x:/usr/bin:/bin", "it's": "odd", "HIDDEN": "kept private"},
        stdin="from stdin\n",
        durable=durable,
    )
    assert case.shown(result) in ("from stdin given /usr /opt/x", None)
    assert "kept private" not in result.stderr


def check_directories(case, durable):
    write_file.fn(case.instance, f"{case.name}/file", "x", user=case.user, config=case.config)
    result = case.do(exec_command, "builtin pwd", cwd=case.name, durable=durable)
    assert case.shown(result) in (f"{case.home}/{case.name}", None)
    with pytest.raises(InvalidRequestError, match="no directory '/no such place'"):
        case.do(exec_command, "builtin pwd", cwd="/no such place", durable=durable)


def check_found_again(case):
    mark = f"/tmp/{case.name}-mark"
    command = Command(f"builtin echo x >> {mark}; exit 7", user=case.user)
    for _ in range(2):
        done = DurableCommand(case.plane, command).start(step(case.name)).wait()
        case.shown(done, 7)
    if case.profile not in ENDING:
        assert case.plane.read(mark, user=case.user) == b"x\n"


def check_background(case):
    handle = case.do(start_command, "builtin echo ready; builtin exec sleep 300")
    kill_command.fn(handle, config=case.config)
    killed = wait_command.fn(handle, config=case.config, log_output=False)
    assert killed.exit_code in (143, 137) or case.profile in ENDING


def check_files(case):
    (case.local / "a").write_bytes(b"content\n")
    case.do(upload_file, case.local / "a", f"{case.name}/up/a")
    case.do(write_file, f"{case.name}/up/b", "b")
    assert case.plane.read(f"{case.home}/{case.name}/up/a", user=case.user) == b"content\n"
    assert case.plane.stat(f"{case.home}/{case.name}/up/b", user=case.user).mode == 0o644
    case.do(download_file, f"{case.name}/up/a", case.local / "back")
    assert (case.local / "back").read_bytes() == case.do(read_file, f"{case.name}/up/a") == b"content\n"
    assert [one.name for one in case.do(list_files, f"{case.name}/up")] == ["a", "b"]
    case.do(remove_path, f"{case.name}/up")
    assert not case.plane.exists(f"{case.home}/{case.name}/up", user=case.user)


def check_directory(case):
    tree = case.local / "tree"
    tree.mkdir()
    for name in ("a.csv", "b.csv"):
        (tree / name).write_text(name)
    assert case.do(upload_directory, tree, f"{case.name}/tree").unchanged == 0
    assert case.do(upload_directory, tree, f"{case.name}/tree").unchanged == 2
    assert case.plane.stat(f"{case.home}/{case.name}/tree/b.csv", user=case.user).mode == 0o644
    case.do(download_directory, f"{case.name}/tree", case.local / "back-tree")
    case.do(download_files, f"{case.name}/t*/*.csv", case.local / "matching")
    for back in (case.local / "back-tree", case.local / "matching" / "tree"):
        assert {path.name: path.read_text() for path in back.iterdir()} == {"a.csv": "a.csv", "b.csv": "b.csv"}


def check_cell(case):
    result = run_code.fn(case.instance, "import os; print('out'); os.getcwd()", config=case.config, artifacts=False)
    assert (result.stdout, result.text) == ("out\n", "/home/user")


CHECKS = {
    "environment, durable": lambda case: check_given(case, True),
    "environment, direct": lambda case: check_given(case, False),
    "directories, durable": lambda case: check_directories(case, True),
    "directories, direct": lambda case: check_directories(case, False),
    "found again": check_found_again,
    "background": check_background,
    "files": check_files,
    "directory": check_directory,
    "cell": check_cell,
}


@pytest.fixture(scope="module")
def interpreter(ags_emulator_process):
    ags_emulator_process.reset()
    config = config_for(ags_emulator_process)
    yield config, wait_instance_running.fn(start_instance.fn("code-interpreter-v1", config=config), config=config)
    ags_emulator_process.reset()


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in PROFILES], scope="module")
def outcomes(request, interpreter, tmp_path_factory):
    """The result of each check of each user under one profile, and how long the longest one took."""
    config, instance = interpreter
    plane = open_plane(config.connection(), instance.id).plane
    for user, home in USERS.items():
        plane.write(f"{home}/.bash_profile", PROFILES[request.param] + "\n", user=user)
        plane.write(f"{home}/.bashrc", PROFILES[request.param] + "\n", user=user)
    directory = tmp_path_factory.mktemp("profile")
    pairs = [(user, check) for user in USERS for check in CHECKS]
    with ThreadPoolExecutor(len(pairs)) as pool:
        done = {
            (user, check): pool.submit(CHECKS[check], Case(config, instance, request.param, user, directory))
            for user, check in pairs
        }
    for user, home in USERS.items():
        plane.remove(f"{home}/.bash_profile", user=user)
        plane.remove(f"{home}/.bashrc", user=user)
    return done


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("user", USERS)
def test_no_login_profile_disturbs(outcomes, user, check):
    outcomes[user, check].result()


@pytest.fixture
def with_profile(interpreter):
    """A function that sets the profile of the user, and one that runs a command under it."""
    config, instance = interpreter
    plane = open_plane(config.connection(), instance.id).plane

    def run(profile, command, **options):
        plane.write("/home/user/.bash_profile", profile + "\n")
        return exec_command.fn(instance, command, config=config, **options)

    yield run
    plane.remove("/home/user/.bash_profile")


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize(
    "profile",
    [
        "readonly MODE=slow",
        *(f"readonly AGS_FLOWS_{name}" for name in ("NAME", "OPTIONS", "MORE", "TEXT", "FORMAT", "PIECE")),
        *(f"readonly AGS_FLOWS_{name}=x" for name in ("NAME", "OPTIONS", "TEXT", "ENV_0", "ENV_7", "SANDBOX")),
    ],
)
def test_a_variable_that_the_profile_has_made_read_only_is_not_ignored(with_profile, profile, durable):
    result = with_profile(profile, "echo started", env={"MODE": "fast"}, stdin="input", durable=durable)
    assert (result.exit_code, result.stdout) == (125, "")
    assert "env: the login profile does not allow to set " in result.stderr
    assert result.stderr.endswith("The command was not started.\n")


@pytest.mark.parametrize("durable", [True, False])
def test_a_profile_that_makes_the_directory_read_only_is_the_reason(with_profile, durable):
    result = with_profile("readonly PWD OLDPWD", "echo started", cwd="/usr", durable=durable)
    assert (result.exit_code, result.stdout) == (125, "")
    assert "cwd: the login profile does not allow to enter /usr. The command was not started." in result.stderr


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("name", ["SEEN", "seen", *SPECIAL])
def test_a_variable_is_refused_by_name_or_arrives(with_profile, name, durable):
    profile = "declare -u SEEN; declare -i seen"
    try:
        result = with_profile(profile, ["printenv", name], env={name: "a,b"}, durable=durable)
    except ConfigurationError as error:
        assert name in SET_BY_BASH and f"the variable '{name}' is set by bash" in str(error)
    else:
        assert (result.exit_code, result.stdout, result.stderr) == (0, "a,b\n", "")


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_command_that_is_killed_has_the_output_of_the_command_alone(with_profile, durable, signal):
    result = with_profile("true", f"echo begun >&2; kill -{signal} $$", durable=durable)
    assert (result.exit_code, result.stderr) == ({"TERM": 143, "KILL": 137}[signal], "begun\n")


@pytest.mark.parametrize("durable", [True, False])
def test_options_and_aliases_of_the_profile_apply_to_the_command(with_profile, durable):
    profile = "shopt -s expand_aliases; alias greet='echo hello'; set -vk"
    result = with_profile(profile, 'greet; echo "$-"', env={"HIDDEN": "kept private"}, durable=durable)
    greeting, options = result.stdout.splitlines()
    assert greeting == "hello" and {"v", "k"} <= set(options)
    shown = [line for line in result.stderr.splitlines() if "AGS_FLOWS" in line]
    assert len(shown) <= 1 and "kept private" not in result.stderr


def test_transfers_do_not_wait_for_a_slow_profile(interpreter, tmp_path):
    config, instance = interpreter
    plane = open_plane(config.connection(), instance.id).plane
    plane.write("/home/user/.bash_profile", "sleep 60\n")
    (tmp_path / "a").write_text("a")
    started = time.monotonic()
    upload_file.fn(instance, tmp_path / "a", "a", config=config)
    upload_directory.fn(instance, tmp_path, "tree", config=config)
    download_directory.fn(instance, "tree", tmp_path / "back", config=config)
    plane.remove("/home/user/.bash_profile")
    assert time.monotonic() - started < 60
