"""The process in a sandbox that executes calls in forks of itself: each call is as if it were alone."""

import threading

import pytest
from prefect.blocks.system import Secret

from ags_flows import in_sandbox
from ags_flows.errors import CommandTimeoutError, FunctionError, OutcomeUnknownError

RUNNER = "What runs in a sandbox beside many calls"


def processes():
    import os

    return os.getpid(), os.getppid()


def test_calls_are_executed_by_one_process_each_in_a_fork_of_it(session):
    (first, runner), (second, again) = session.call(processes), session.call(processes)
    assert runner == again and first != second
    # Another environment has another runner.
    other = session.call(in_sandbox(env={"A": "1"})(processes))
    assert other[1] != runner


@pytest.mark.usefixtures("prefect_server")
def test_a_secret_that_was_rotated_reaches_the_next_call(session):
    @in_sandbox(secrets={"LOGIN": "rotated-login"})
    def length():
        import os

        return len(os.environ["LOGIN"])

    for value in ("first value", "the second one"):
        Secret(value=value).save("rotated-login", overwrite=True)
        assert session.call(length) == len(value)


def change_everything():
    import builtins
    import os
    import sys

    seen = [os.getcwd(), "MARK" in os.environ, hasattr(builtins, "mark"), list(sys.argv)]
    os.chdir("/")
    os.environ["MARK"] = builtins.mark = "1"
    sys.argv.append("x")
    return seen


def test_a_call_sees_nothing_of_the_one_before(session):
    assert session.call(change_everything) == session.call(change_everything) == ["/home/user", False, False, ["-c"]]


def leave_behind():
    import atexit
    import threading
    import time

    global kept
    kept = open("kept.txt", "w")
    kept.write("kept")
    atexit.register(lambda: open("ended.txt", "w").write("ended"))
    threading.Thread(target=lambda: (time.sleep(0.5), open("thread.txt", "w").write("thread"))).start()


def test_what_a_function_leaves_is_ended_as_by_a_separate_python(session):
    session.call(leave_behind)
    for name in ("kept", "ended", "thread"):
        assert session.read(f"{name}.txt").decode() == name


def stop_self(number):
    import os

    os.kill(os.getpid(), number)


def test_a_call_that_is_killed_ends_alone(session):
    _, runner = session.call(processes)
    with pytest.raises(FunctionError, match="exit code 137"):
        session.call(stop_self, 9)
    assert session.call(processes)[1] == runner


def sleep_and_stray():
    import subprocess
    import time

    subprocess.Popen(["setsid", "sleep", "4321"])
    time.sleep(60)


def test_a_time_limit_ends_a_call_and_what_it_has_started(session):
    with pytest.raises(CommandTimeoutError):
        session.call(in_sandbox(timeout=1)(sleep_and_stray))
    assert session.run("pgrep -xf 'sleep 4321'").exit_code == 1


@pytest.mark.parametrize("text", ["", "x" * 100_000], ids=["runner", "supervisor"])
def test_a_time_limit_can_have_parts_of_a_second(session, text):
    def noting(text):
        import os
        import time

        # Since the start of the process: that of Python takes long on a machine with other work.
        ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
        began = ticks / os.sysconf("SC_CLK_TCK")
        while True:
            with open("spent.new", "w") as spent:
                spent.write(str(time.clock_gettime(time.CLOCK_BOOTTIME) - began))
            os.replace("spent.new", "spent")
            time.sleep(0.02)

    with pytest.raises(CommandTimeoutError, match=r"limit of 1.4 s"):
        session.call(in_sandbox(timeout=1.4)(noting), text)
    assert 1.2 < float(session.read("spent")) < 1.9


def test_another_runner_follows_one_that_was_killed(session):
    _, runner = session.call(processes)
    session.run(f"pkill -9 -f '^/usr/bin/python3.*{RUNNER}'")
    assert session.call(processes)[1] != runner


def wait_long():
    import time

    time.sleep(60)


def test_a_call_whose_runner_is_killed_is_not_made_again(session):
    session.call(processes)
    caught = []

    def wait():
        try:
            session.call(wait_long)
        except OutcomeUnknownError as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    journals = "grep -ls wait_long ~/.ags_flows/*/journal/*/cmd | xargs dirname"
    begun = f"while ! {journals} | xargs -I D test -s D/child; do :; done"
    session.run(begun, timeout=30)
    session.run(f"pkill -9 -f '{RUNNER}'")
    waiting.join(60)
    assert caught


def test_concurrent_calls_have_one_runner_at_most(session):
    session.run("rm -rf .ags_flows/*/runner")
    found = []
    threads = [threading.Thread(target=lambda: found.append(session.call(processes))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({pid for pid, _ in found}) == 6
    _, runner = session.call(processes)
    assert session.call(processes)[1] == runner
