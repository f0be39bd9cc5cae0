"""The scripts in the sandbox claim places atomically, in one round trip, by the rule of `ags_flows.ownership`."""

import itertools
import os
import re
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ags_flows.durable.claim_scripts import HOLDER_FUNCTIONS
from ags_flows.durable.claims import (
    Request,
    abandon,
    assignments,
    claim,
    claim_instance,
    release_instance,
    remember,
    request_for,
)
from ags_flows.errors import SupersededError, UnsupportedError
from ags_flows.ownership import Frame, Holder, Place, Step, relation
from ags_flows.ownership import claim as claim_by_rule


class LocalBash:
    """A sandbox whose scripts are executed by the bash of this machine."""

    instance_id = "local"

    def __init__(self, home):
        self.home = home
        self.calls = 0

    def script(self, script, *, timeout):
        self.calls += 1
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"], "AGS_FLOWS_SHARED": f"{self.home}/shared"}
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=timeout)
        return SimpleNamespace(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture
def bash(tmp_path):
    return LocalBash(tmp_path)


def holder(*attempts, call=None):
    """Return a holder whose executions are `a`, `b`, ... in these attempts."""
    frames = [
        Frame("flow" if number == 0 else "task", "abcdef"[number], attempt) for number, attempt in enumerate(attempts)
    ]
    return Holder((*frames, Frame("call", call or uuid.uuid4().hex)))


def step(holder, name="exec", path=("p",)):
    return Step(name, "", "root", Place(path), holder)


executions = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3)), min_size=1, max_size=3)
holders = st.builds(
    lambda frames, call: Holder((*(Frame("task", name, attempt) for name, attempt in frames), Frame("call", call))),
    executions,
    st.sampled_from("xyz"),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(holders, holders), min_size=40, max_size=40))
def test_bash_and_python_compute_the_same_relation(pairs):
    script = HOLDER_FUNCTIONS + "".join(
        f'\n{assignments({"ags_holder": str(mine), "ags_theirs": str(theirs)})}\nags_relate; echo "$ags_relation"'
        for mine, theirs in pairs
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [relation(mine, theirs) for mine, theirs in pairs], done.stderr


@settings(max_examples=25, deadline=None)
@given(st.lists(holders, min_size=1, max_size=8))
def test_bash_claims_places_by_the_same_rule_as_python(tmp_path_factory, claimants):
    bash, held = LocalBash(tmp_path_factory.mktemp("home")), []
    for mine in claimants:
        expected = claim_by_rule(mine, held)
        request = Request("journal", "f" * 32, mine)
        if expected.outcome == "stale":
            with pytest.raises(
                SupersededError, match=re.escape(f"later attempt ({held[expected.number].described}) has taken over")
            ):
                claim(bash, request)
            continue
        claimed = claim(bash, request)
        assert (claimed.outcome, claimed.number) == (expected.outcome, expected.number)
        held[expected.number :] = [mine, *held[expected.number + 1 :]]


def test_parallel_claimants_never_get_the_same_place(bash):
    claimants = [holder(1) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        claimed = list(pool.map(lambda mine: claim(bash, Request("journal", "f" * 32, mine)), claimants))
    assert sorted(one.number for one in claimed) == list(range(16))
    assert {one.outcome for one in claimed} == {"new"}


def test_a_claim_that_was_given_up_is_free_and_one_that_was_taken_over_stays(bash):
    mine, successor = holder(1), holder(2)
    places = [Request("cell", family * 32, mine) for family in "fe"]
    given_up, taken = [claim(bash, one) for one in places]
    assert claim(bash, Request("cell", "e" * 32, successor)).outcome == "taken"
    for one in (given_up, taken, given_up):
        abandon(bash, one, mine)
    assert [claim(bash, Request("cell", "f" * 32, one)).number for one in (mine, mine, successor)] == [1, 1, 1]
    assert claim(bash, Request("cell", "e" * 32, successor)).outcome == "same"
    with pytest.raises(SupersededError):
        claim(bash, places[1])


def test_each_place_is_taken_over_by_one_of_several_parallel_claimants(bash):
    for _ in range(6):
        claim(bash, Request("journal", "f" * 32, holder(1)))
    with ThreadPoolExecutor(10) as pool:
        claimed = list(pool.map(lambda _: claim(bash, Request("journal", "f" * 32, holder(2))), range(10)))
    assert sorted(one.number for one in claimed) == list(range(10))
    assert sorted(one.outcome for one in claimed) == ["new"] * 4 + ["taken"] * 6


def test_a_claim_needs_one_round_trip_for_any_number_of_places(bash):
    for _ in range(5):
        claim(bash, Request("journal", "f" * 32, holder(1)))
    bash.calls = 0
    assert claim(bash, Request("journal", "f" * 32, holder(1))).number == 5
    assert bash.calls == 1


def test_a_repeated_call_gets_the_same_place_after_other_claims(bash):
    mine = step(holder(1))
    first = claim(bash, request_for(bash, "journal", mine))
    remember(bash, "journal", mine, first.directory.rpartition("/")[2])
    for _ in range(3):
        other = step(holder(1))
        claimed = claim(bash, request_for(bash, "journal", other))
        remember(bash, "journal", other, claimed.directory.rpartition("/")[2])
    assert request_for(bash, "journal", step(holder(1))).first == 4
    again = claim(bash, request_for(bash, "journal", mine))
    assert (again.outcome, again.number) == ("same", first.number)


def test_families_of_other_places_are_not_taken_over(bash):
    claim(bash, request_for(bash, "journal", step(holder(1), path=("pears",))))
    assert claim(bash, request_for(bash, "journal", step(holder(2), path=("plums",)))).outcome == "new"


def test_a_sandbox_has_one_owner(bash):
    earlier, rivals = holder(1), [holder(2) for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        won = list(pool.map(lambda mine: claim_instance(bash, mine, earlier), rivals))
    assert sorted(won) == ["owned"] + ["sibling"] * 4
    winner = rivals[won.index("owned")]
    assert claim_instance(bash, winner, earlier) == "owned"
    assert claim_instance(bash, holder(3), earlier) == "owned"
    with pytest.raises(SupersededError, match=r"later attempt \(flow run a\)"):
        claim_instance(bash, holder(2), earlier)


def test_a_released_sandbox_is_not_taken_over(bash):
    mine = holder(1)
    release_instance(bash, mine)
    release_instance(bash, mine)
    assert claim_instance(bash, holder(2), mine) == "released"


def test_a_superseded_attempt_cannot_release_the_sandbox(bash):
    mine, successor = holder(1), holder(2)
    assert claim_instance(bash, successor, mine) == "owned"
    with pytest.raises(SupersededError):
        release_instance(bash, mine)
    release_instance(bash, successor)


def test_either_the_release_or_the_take_over_succeeds(bash):
    for attempt in range(10):
        place, mine = LocalBash(bash.home / str(attempt)), holder(1)
        place.home.mkdir()

        def end(place=place, mine=mine):
            try:
                release_instance(place, mine)
            except SupersededError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            ended = pool.submit(end)
            taken = pool.submit(claim_instance, place, holder(2), mine)
            assert taken.result() == ("released" if ended.result() else "owned")


def test_a_repeated_call_after_a_lost_response_considers_all_places(bash):
    lost, other = step(holder(1)), step(holder(1))
    claim(bash, request_for(bash, "journal", lost))
    claimed = claim(bash, request_for(bash, "journal", other))
    remember(bash, "journal", other, claimed.directory.rpartition("/")[2])
    again = claim(bash, request_for(bash, "journal", lost))
    assert (again.outcome, again.number) == ("same", 0)


def test_a_superseded_attempt_starts_nothing_in_the_sandbox(bash):
    claim_instance(bash, holder(2), holder(1))
    with pytest.raises(SupersededError):
        claim(bash, Request("journal", "f" * 32, holder(1)))
    assert claim(bash, Request("journal", "f" * 32, holder(2))).outcome == "new"


def test_tmp_is_used_if_the_home_directory_is_not_usable(tmp_path):
    (tmp_path / ".ags_flows").write_text("not a directory")
    claimed = claim(LocalBash(tmp_path), Request(f"test-{uuid.uuid4().hex}", "f" * 32, holder(1)))
    assert claimed.directory.startswith(f"/tmp/.ags_flows-{os.getuid()}/")
    subprocess.run(["rm", "-rf", os.path.dirname(claimed.directory)], check=True)


def test_the_error_of_a_sandbox_without_claims_has_the_requirements(tmp_path):
    class WithoutTools(LocalBash):
        def script(self, script, *, timeout):
            return super().script(f"mkdir() {{ return 1; }}\n{script}", timeout=timeout)

    with pytest.raises(UnsupportedError, match="need bash, coreutils, and a writable home directory or /tmp"):
        claim(WithoutTools(tmp_path / "none"), Request("journal", "f" * 32, holder(1)))


def test_a_claim_after_a_thousand_places_is_fast(bash):
    places = bash.home / ".ags_flows" / "journal"
    text = str(holder(1))
    claim(bash, Request("journal", "e" * 32, holder(1)))
    for number in range(1000):
        place = places / f"{'f' * 32}.{number}"
        place.mkdir()
        (place / "holder").write_text(f"{text}\n")
    begun = time.monotonic()
    assert claim(bash, Request("journal", "f" * 32, holder(1))).number == 1000
    assert time.monotonic() - begun < 5


def test_each_attempt_takes_over_all_places_and_adds_new_ones(bash):
    for attempt in range(1, 4):
        outcomes = [claim(bash, Request("journal", "f" * 32, holder(attempt))).outcome for _ in range(attempt)]
        assert outcomes == list(itertools.chain(["taken"] * (attempt - 1), ["new"]))
