"""The queue in a sandbox: many items in one request, each of which runs once."""

import contextlib
import random
import threading
import time
import uuid

import pytest

from ags_flows.cloud.data_planes import Cancellation, open_plane
from ags_flows.durable import queue as queues
from ags_flows.durable.claims import claim_instance
from ags_flows.durable.command import Command
from ags_flows.durable.queue import QueuedItem, SandboxQueue, fits
from ags_flows.errors import InstanceGoneError, OutcomeUnknownError, SupersededError
from ags_flows.ownership import Frame, Holder


@pytest.fixture
def family():
    return uuid.uuid4().hex


@pytest.fixture
def plane(sandbox):
    config, instance = sandbox
    return open_plane(config.connection(), instance.id).plane


@pytest.fixture
def queue(plane, family):
    """Return a function that gives a queue for a command, in an attempt of one run."""

    def make(text, attempt=1, limit=16_000, cancelled=None, **more):
        holder = Holder((Frame("flow", family, attempt), Frame("call", uuid.uuid4().hex)))
        return SandboxQueue(plane, cancelled or Cancellation(), Command(text, **more), family, holder, limit)

    return make


def items(*values):
    return [QueuedItem(f"item{position}", {"ITEM": value}) for position, value in enumerate(values)]


def outcomes(queue, given):
    return {outcome.name: outcome for found in queue.run(given) for outcome in found}


def test_many_items_run_in_one_request_in_their_order(queue, plane, monkeypatch):
    requests, run = [], plane.run
    monkeypatch.setattr(plane, "run", lambda *given, **more: requests.append(given) or run(*given, **more))
    found = outcomes(queue('echo "$ITEM" | tee -a order; echo e >&2; exit "$ITEM"'), items("0", "3", "7"))
    assert [(one.result.exit_code, one.result.stdout, one.result.stderr) for one in found.values()] == [
        (0, "0\n", "e\n"),
        (3, "3\n", "e\n"),
        (7, "7\n", "e\n"),
    ]
    assert plane.read("order") == b"0\n3\n7\n"
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("printf '\\377\\n@item x done\\n'", "\ufffd\n@item x done\n"),
        ("printf 'a\\0b'", "a\0b"),
        ("printf 'no end'", "no end"),
        ("true", ""),
        ("printf '@end whole\\n'", "@end whole\n"),
        ("cat", ""),
        ("printf '\\303\\251'", "\u00e9"),
        ("exec > >(sleep 0.3; cat); echo copied", "copied\n"),
    ],
)
def test_output_of_any_kind_comes_back(queue, command, expected):
    assert [one.result.stdout for one in outcomes(queue(command), items("a", "b")).values()] == [expected] * 2


def test_long_output_is_cut_in_the_middle(queue):
    [one] = outcomes(queue("seq 100000; echo done >&2"), items("a")).values()
    assert one.result.stdout_size == 588_895 and one.result.truncated
    assert one.result.stdout.startswith("1\n2\n") and one.result.stdout.endswith("99999\n100000\n")
    assert one.result.stderr == "done\n"


def test_the_environment_of_an_item_beats_the_profile_and_the_command(queue, plane):
    plane.write("/home/user/.bash_profile", "export ITEM=profile PATH=/nowhere MODE=profile\n")
    try:
        command = queue('echo "$ITEM $MODE ${PATH%%:*}"', env={"ITEM": "command", "MODE": "command"})
        given = [QueuedItem("one", {"ITEM": "item", "PATH": "/opt/x:/usr/bin:/bin"}), QueuedItem("two", {})]
        assert [one.result.stdout for one in outcomes(command, given).values()] == [
            "item command /opt/x\n",
            "command command /nowhere\n",
        ]
        plane.write("/home/user/.bash_profile", "readonly ITEM=profile\n")
        [one] = outcomes(queue("echo started"), [QueuedItem("three", {"ITEM": "item"})]).values()
        assert (one.result.exit_code, one.result.stdout) == (125, "")
        assert "env: the login profile does not allow to set ITEM" in one.result.stderr
    finally:
        plane.remove("/home/user/.bash_profile")


def test_environment_and_directory_are_those_of_the_item(queue):
    command = queue(
        'echo "$ITEM|$PLAIN|$PWD|${!AGS_FLOWS_ENV_@}${!AGS_FLOWS_ITEM_@}"', env={"PLAIN": "p q"}, cwd="/tmp"
    )
    values = ["it's", 'a "b" $c `d`', "two\nlines", "\u00e9"]
    found = [one.result.stdout for one in outcomes(command, items(*values)).values()]
    assert found == [f"{value}|p q|/tmp|\n" for value in values]


def test_an_item_has_nothing_of_the_items_before_it(queue):
    given = [QueuedItem("a", {"ITEM_X": "1"}), QueuedItem("b", {"ITEM_Y": "2"})]
    found = [one.result.stdout for one in outcomes(queue('echo "$ITEM_X-$ITEM_Y"'), given).values()]
    assert found == ["1-\n", "-2\n"]


def test_an_item_that_has_run_is_reported_and_not_run_again(queue, plane):
    given = items("a", "b", "c")
    first = outcomes(queue('echo "$ITEM" >> ran; echo "$RANDOM$RANDOM"'), given[:2])
    again = outcomes(queue('echo "$ITEM" >> ran; echo "$RANDOM$RANDOM"', attempt=2), given)
    assert plane.read("ran") == b"a\nb\nc\n"
    assert [again[name].result.stdout for name in first] == [one.result.stdout for one in first.values()]


def test_a_later_attempt_goes_on_with_what_was_handed_over(queue, plane):
    command = 'echo "$ITEM" >> went; sleep 0.7; cat went'
    cancelled = Cancellation()

    def follow():
        # On a slow machine all may have run before the end of the wait.
        with contextlib.suppress(InstanceGoneError):
            outcomes(queue(command, cancelled=cancelled), items(*"abcd"))

    follower = threading.Thread(target=follow)
    follower.start()
    while not plane.exists("went"):
        time.sleep(0.05)
    cancelled.set()
    found = outcomes(queue(command, attempt=2), items(*"abcd"))
    follower.join()
    # One after the other, each once.
    assert plane.read("went").split() == [b"a", b"b", b"c", b"d"]
    assert found["item3"].result.stdout.split() == list("abcd")


def test_items_behind_a_slow_one_are_taken_back_and_can_be_handed_over_again(queue, plane):
    command = 'echo "$ITEM" >> slow; [ "$ITEM" != a ] || until [ -e go-on ]; do sleep 0.05; done; cat slow'
    given = items(*"abc")
    mine = queue(command)
    found = {}
    for some in mine.run(given):
        found |= {outcome.name: outcome for outcome in some}
        if len(found) == 2:
            plane.write("go-on", b"")
    assert [one.how for one in found.values()] == ["revoked", "revoked", "done"]
    assert found["item0"].result.stdout == "a\n"
    again = outcomes(mine, given[1:])
    assert [one.how for one in again.values()] == ["done", "done"]
    assert plane.read("slow").split() == [b"a", b"b", b"c"]


def test_an_item_that_takes_too_long_or_writes_too_much_is_killed_alone(queue):
    command = queue('[ "$ITEM" = good ] && exit; (sleep 60 & echo $!; sleep 60)', timeout=1)
    found = list(outcomes(command, items("bad", "good")).values())
    assert {one.how for one in found} <= {"done", "revoked"}
    [bad] = [one for one in found if one.name == "item0"]
    assert bad.why == "timeout:1"
    command = queue("head -c 2000000 /dev/zero; sleep 60", most_output=1_000_000)
    bad = outcomes(command, [QueuedItem("much", {})])["much"]
    assert bad.why == "output:1000000" and bad.result.stdout_size == 2_000_000


def test_an_item_whose_runner_vanished_is_lost_and_the_others_run(queue, plane, monkeypatch):
    monkeypatch.setattr(queues, "LOOK_AFTER", 0.5)
    command = 'echo "$ITEM" >> left; [ "$ITEM" != a ] || { kill -9 $PPID; sleep 2; }'
    found = outcomes(queue(command), items(*"ab"))
    assert {name: one.how for name, one in found.items()} in (
        {"item0": "lost", "item1": "done"},
        {"item0": "lost", "item1": "revoked"},
    )
    assert plane.read("left").split()[0] == b"a"
    assert plane.read("left").split().count(b"a") == 1


def test_an_item_that_kills_all_its_processes_is_lost_and_the_others_run(queue, plane):
    found = outcomes(queue('echo "$ITEM" >> killed; [ "$ITEM" != a ] || kill -9 -1'), items(*"ab"))
    assert {name: one.how for name, one in found.items()} == {"item0": "lost", "item1": "done"}
    assert plane.read("killed").split() == [b"a", b"b"]


def test_an_item_that_removes_the_records_of_its_queue_has_an_unknown_outcome(queue):
    with pytest.raises(OutcomeUnknownError, match="its records in /.* were removed"):
        outcomes(queue("rm -rf ~/.ags_flows; sleep 2"), items("a"))


def test_a_lost_response_starts_nothing_twice(queue, plane, ags_emulator_process):
    ags_emulator_process.stream_fault("cut", times=1, after_seconds=0.3)
    found = outcomes(queue('echo "$ITEM" >> done_here; sleep 0.4'), items(*"abc"))
    assert {one.how for one in found.values()} == {"done"}
    assert plane.read("done_here").split() == [b"a", b"b", b"c"]


def test_an_attempt_that_was_superseded_hands_over_nothing(queue, plane, family):
    first = Holder((Frame("flow", family, 1), Frame("call", "c")))
    later = Holder((Frame("flow", family, 2), Frame("call", "d")))
    plane.script("rm -rf /tmp/.ags_flows-instance-*")
    assert claim_instance(plane, later, first) == "owned"
    with pytest.raises(SupersededError):
        outcomes(queue("echo late >> late"), items("a"))
    assert not plane.exists("late")
    plane.script("rm -rf /tmp/.ags_flows-instance-*")


def test_files_of_items_that_are_recorded_are_removed_with_the_next_request(queue, plane, family):
    mine = queue("echo x")
    plane.write("/tmp/inbox-of-a/file", b"x")
    outcomes(mine, items("a"))
    mine.forget(["item0"], ["/tmp/inbox-of-a"])
    outcomes(mine, [QueuedItem("next", {"ITEM": "b"})])
    names = {entry.name for entry in plane.list(f".ags_flows/{plane.instance_id}/queue/{family}")}
    assert "item0.claim" in names and "item0.out" not in names and "next.rc" in names
    assert not plane.exists("/tmp/inbox-of-a")
    # It is still known as executed.
    assert outcomes(mine, items("a"))["item0"].how == "lost"


@pytest.mark.parametrize("seed", range(4))
def test_each_item_runs_once_and_alone_whatever_is_handed_over_and_abandoned(queue, plane, seed):
    draw = random.Random(seed)
    ran, given = f"ran-{seed}", items(*map(str, range(12)))
    command = (
        f'mkdir alone || exit 9; echo "$ITEM" >> {ran}; sleep 0.0$((RANDOM % 9)); rmdir alone; grep -cx $ITEM {ran}'
    )

    def hand_over(attempt, chosen, cancelled):
        with contextlib.suppress(InstanceGoneError):
            outcomes(queue(command, attempt=attempt, cancelled=cancelled), chosen)

    for attempt in range(1, 5):
        chosen = draw.sample(given, draw.randrange(1, len(given)))
        cancelled = Cancellation()
        client = threading.Thread(target=hand_over, args=(attempt, chosen, cancelled))
        client.start()
        cancelled.wait(draw.uniform(0, 0.4))
        cancelled.set()
        if draw.random() < 0.5:
            # Otherwise the next attempt begins while this one still sends.
            client.join()
    last = queue(command, attempt=9)
    found = {}
    while len(found) < len(given):
        got = outcomes(last, [item for item in given if item.name not in found])
        found |= {name: one for name, one in got.items() if one.how != "revoked"}
    assert {one.result.stdout for one in found.values()} == {"1\n"}
    assert sorted(plane.read(ran).split(), key=int) == [str(number).encode() for number in range(12)]


def test_requests_have_a_largest_size():
    assert not fits([QueuedItem(str(number), {}) for number in range(64)], QueuedItem("x", {}))
    assert not fits([QueuedItem("a", {"ITEM": "x" * 300_000})], QueuedItem("b", {"ITEM": "x" * 200_000}))
