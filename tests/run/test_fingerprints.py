"""Equal parameters have an equal fingerprint in every process."""

import copy
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

import pytest

from ags_flows.models import ExecResult, RunReport
from ags_flows.run.fingerprints import of_parameters


class Basket:
    def __init__(self, fruits):
        self.fruits = fruits


def test_the_order_of_a_set_inside_of_an_object_does_not_count():
    # Two numbers of the same slot: the one that was added first comes first.
    one, other = set([0, 8]), set([8, 0])
    assert list(one) != list(other)
    assert of_parameters({"basket": Basket(one)}) == of_parameters({"basket": Basket(other)})
    assert of_parameters({"basket": Basket(one)}) != of_parameters({"basket": Basket({0, 16})})


def test_results_of_the_same_work_are_equal_parameters():
    def result(**more):
        return ExecResult(command="make", exit_code=0, stdout="built\n", **more)

    first = result(seconds=1.5, instance_id="a", journal="/home/user/.ags_flows/a/journal/x.0")
    again = result(seconds=0.1, instance_id="b")
    assert of_parameters({"built": first}) == of_parameters({"built": again})
    assert of_parameters({"built": [first]}) == of_parameters({"built": [again]})
    other = again.model_copy(update={"stdout": "other\n"})
    assert of_parameters({"built": first}) != of_parameters({"built": other})
    report = {"result": first, "results": (first,), "instance_id": "a", "tool_id": "t", "tool_name": "tool"}
    retried = {**report, "result": again, "results": (again,), "instance_id": "b", "seconds": 9.0}
    assert of_parameters({"done": RunReport(**report)}) == of_parameters({"done": RunReport(**retried)})


class Orders(list):
    """A list that knows more than its items."""

    def __init__(self, items, region):
        super().__init__(items)
        self.region = region


class Name(str):
    """A text of a separate class."""


Point, Size = namedtuple("Point", "x y"), namedtuple("Size", "x y")


@dataclass
class Listed(list):
    """A data class with items."""

    region: str = ""


class Slotted(list):
    """A list with a slot."""

    __slots__ = ("region",)


class Day(date):
    """A day with attributes."""


def with_region(value, region):
    value.region = region
    return value


def listed(*items):
    made = Listed("cn")
    made.extend(items)
    return made


DIFFERENT = [
    (listed(1), listed(2)),
    (with_region(Slotted([1]), "cn"), with_region(Slotted([1]), "de")),
    (with_region(Day(2026, 1, 1), "cn"), with_region(Day(2026, 1, 1), "de")),
    (defaultdict(list), defaultdict(dict)),
    (datetime(2026, 1, 1), datetime(2026, 1, 1, fold=1)),  # noqa: DTZ001 - as users write them
    (Orders([1, 2], "cn"), Orders([1, 2], "de")),
    (Orders([1, 2], "cn"), [1, 2]),
    ([1, 2], (1, 2)),
    (Point(1, 2), Size(1, 2)),
    (Point(1, 2), (1, 2)),
    (Decimal(1), ["Decimal", "1"]),
    (1, 1.0),
    (1, True),
    ("1", 1),
    (Name("a"), "a"),
    ({"a": 1}, [["a", 1]]),
    ({1}, [1]),
    (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
    (b"a", "a"),
    (None, "None"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=[f"{one!r} {other!r}" for one, other in DIFFERENT])
def test_different_values_are_different_parameters(one, other):
    assert of_parameters({"value": one}) != of_parameters({"value": other})
    assert of_parameters({"value": [one]}) != of_parameters({"value": [other]})
    # Copies of dates have no attributes.
    equal = one if isinstance(one, Day) else copy.deepcopy(one)
    assert of_parameters({"value": one}) == of_parameters({"value": equal})


def test_values_that_many_others_refer_to_are_read_once():
    value = [1]
    for _ in range(40):
        value = [value, value]
    assert of_parameters({"value": value}) == of_parameters({"value": copy.deepcopy(value)})


def test_a_view_of_bytes_of_any_step_has_a_fingerprint():
    assert of_parameters({"value": memoryview(b"abcd")[::2]}) == of_parameters({"value": memoryview(b"ac")})
