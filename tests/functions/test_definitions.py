"""What a function defines inside of itself: classes, helpers, and itself again."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from ags_flows import SandboxFile
from ags_flows.errors import ConfigurationError
from tests.functions import evaluated

LIMIT = 3
THIS_FILE = SandboxFile(__file__)


def totals(count: int) -> dict:
    import dataclasses

    @dataclasses.dataclass(order=True)
    class Item:
        number: int
        price: float = 2.0

    return dataclasses.asdict(max(Item(one) for one in range(count)))


@pytest.mark.parametrize("function", [totals, evaluated.totals], ids=["postponed", "evaluated"])
def test_a_function_can_define_dataclasses(session, function):
    assert session.call(function, 3) == {"number": 2, "price": 2.0}


def test_annotations_are_evaluated_where_they_are_in_the_file_of_the_function(session):
    assert session.call(evaluated.fields) == ["number"]
    assert session.call(evaluated.hints) == ["Item", "int"]


def power(base, exponent=LIMIT, *, times=1, label: str = "power"):
    if exponent == 0:
        return [label, times]
    found = power(base, exponent - 1) if exponent > 1 else power(base, 0, times=times + 1)
    return [*found, base**exponent]


def test_a_function_that_calls_itself_has_its_defaults(session):
    assert session.call(power, 2) == ["power", 2, 2, 4, 8] == power(2)


def walk(tree, seen=1j):
    return [walk(one) for one in tree]


def test_a_default_that_cannot_be_sent_to_a_function_that_calls_itself_is_named(session):
    with pytest.raises(ConfigurationError, match="walk: an argument cannot be sent: seen: a value of type complex"):
        session.call(walk, [[], []], seen=None)


def size_of(depth, table=THIS_FILE):
    if depth:
        return size_of(depth - 1)
    with open(table) as lines:
        return len(lines.read())


def test_a_file_can_be_the_default_of_a_function_that_calls_itself(session):
    with open(__file__) as lines:
        assert session.call(size_of, 2) == len(lines.read())


@dataclasses.dataclass
class Row:
    number: int


if typing.TYPE_CHECKING:
    from nowhere import Unknown


def row(value: Unknown) -> Row:
    return {"number": value}


def test_the_annotation_of_the_result_counts_where_another_one_is_for_type_checkers_alone(session):
    assert session.call(row, 3) == Row(3)
