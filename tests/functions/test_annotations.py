"""Annotations of results: pydantic makes the value, whatever the annotation is."""

import dataclasses
import enum
import json
from collections.abc import Iterable
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, create_model
from typing_extensions import TypedDict

from ags_flows import in_sandbox
from ags_flows.errors import ConfigurationError, FunctionError
from ags_flows.functions.call import Call, RemoteFunction
from ags_flows.functions.result import made
from ags_flows.functions.values import decode, encode


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Pair(NamedTuple):
    left: int
    right: date


class Table(TypedDict):
    rows: list[Pair]


LEAVES = {
    int: st.integers(),
    bool: st.booleans(),
    str: st.text(),
    bytes: st.binary(),
    date: st.dates(),
    datetime: st.datetimes(timezones=st.just(timezone.utc) | st.none()),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    UUID: st.uuids(),
    Path: st.text("ab/", min_size=1).map(Path),
    Level: st.sampled_from(Level),
    Literal["a", 1]: st.sampled_from(["a", 1]),
    Pair: st.builds(Pair, st.integers(), st.dates()),
}


def record(kind, inner):
    """A class with one field, and its values."""
    hint, values = inner
    if kind == "dataclass":
        made_of = dataclasses.make_dataclass("Made", [("field", hint)])
    elif kind == "typed dict":
        return TypedDict("Made", {"field": hint}), st.builds(lambda one: {"field": one}, values)
    elif kind == "root":
        made_of = RootModel[hint]
        return made_of, values.map(made_of)
    else:
        made_of = create_model("Made", field=(hint, ...))
    return made_of, values.map(lambda one: made_of(field=one))


annotated = st.recursive(
    st.sampled_from(list(LEAVES.items())),
    lambda inner: (
        inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3)))
        | inner.map(lambda one: (dict[str, one[0]], st.dictionaries(st.text(), one[1], max_size=3)))
        | inner.map(lambda one: (tuple[one[0], int], st.tuples(one[1], st.integers())))
        | inner.map(lambda one: (Optional[one[0]], st.none() | one[1]))  # noqa: UP045 - of any annotation
        | st.builds(record, st.sampled_from(["dataclass", "typed dict", "root", "model"]), inner)
        | st.sampled_from(list(LEAVES.items())).map(lambda one: (set[one[0]], st.sets(one[1], max_size=3)))
    ),
    max_leaves=4,
)


def crossed(value):
    """A value after its way into a sandbox, and as the result of a function there, back."""
    arrived = decode(json.loads(json.dumps(encode(value, "value"))))
    return decode(json.loads(json.dumps(encode(arrived, "result"))))


def annotated_with(hint):
    def function():
        pass

    function.__annotations__["return"] = hint
    return function


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(annotated, st.data())
def test_a_value_of_the_annotation_comes_back_as_it_was(pair, data):
    hint, values = pair
    value = data.draw(values)
    found = made(annotated_with(hint), crossed(value))
    assert found == value
    assert type(found) is type(value)


@dataclasses.dataclass
class Inner:
    number: int


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (int, "notint", "result: Input should be a valid integer"),
        (int, None, "result: "),
        (None, 5, "result: "),
        (Literal["a", "b"], "zzz", "result: "),
        (list[date], ["2026-11-01", "soon"], "result[1]: "),
        (set[int], ["x"], "result[0]: "),
        (list[UUID], [1], "result[0]: "),
        (Table, {}, "result.rows: "),
        (Table, {"rows": [(1, "x")]}, "result.rows[0][1]: "),
        (dict[str, Inner], {"a": {"number": "x"}}, "result.a.number: "),
        (Annotated[int, Field(gt=3)], 2, "result: "),
        (Iterable[int], ["x"], "result[0]: "),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(hint, value, path):
    with pytest.raises(FunctionError, match="does not match its annotation") as caught:
        made(annotated_with(hint), value)
    assert path in str(caught.value)
    assert caught.value.error_type == "ValidationError"


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (date, "2026-11-01", date(2026, 11, 1)),
        (set[int], [1, 1, 2], {1, 2}),
        (Decimal, "1.50", Decimal("1.50")),
        (Path, "a/b", Path("a/b")),
        (Level, "low", Level.LOW),
        (dict[str, Inner | date], {"a": {"number": 1}}, {"a": Inner(1)}),
        (Table, {"rows": [[1, "2026-11-01"]]}, {"rows": [Pair(1, date(2026, 11, 1))]}),
        (Iterable[int], [1, 2], [1, 2]),
        (Any, [1, {"a": 2}], [1, {"a": 2}]),
        ("Later", [1], [1]),
    ],
)
def test_json_becomes_what_the_annotation_names(hint, value, expected):
    found = made(annotated_with(hint), value)
    assert found == expected
    assert type(found) is type(expected)


class Opaque:
    pass


class Incomplete(BaseModel):
    field: "Later"  # noqa: F821 - that is the point


def opaque() -> list[Opaque]:
    return []


def incomplete() -> list[Incomplete]:
    return []


@pytest.mark.parametrize("function", [opaque, incomplete])
def test_an_annotation_of_which_nothing_can_be_made_is_named_before_anything_starts(function):
    with pytest.raises(ConfigurationError, match=f"{function.__name__}: nothing can be made of the annotation"):
        Call.of(RemoteFunction.of(function), (), {})


def not_a_time():
    import datetime

    class NaT(datetime.datetime):
        __hash__ = None

        def __ne__(self, other):
            return True

    return {"rows": [NaT(1, 1, 1)]}


def spread(numbers, level, ids, day):
    from decimal import Decimal

    assert isinstance(numbers, set)
    assert level == "low"
    return {"sum": sum(numbers, Decimal(0)), "ids": {one.hex for one in ids}, "day": day}


def test_values_of_the_standard_library_reach_the_sandbox_as_what_they_are(session):
    ids = frozenset({UUID(int=1), UUID(int=2)})
    found = session.call(in_sandbox(image="python:3.11")(spread), {Decimal("1.5")}, Level.LOW, ids, date(2026, 11, 1))
    assert found == {"sum": Decimal("1.5"), "ids": {one.hex for one in ids}, "day": date(2026, 11, 1)}


def test_a_missing_time_is_refused_with_its_path(session):
    with pytest.raises(FunctionError, match=r"result\.rows\[0\]: a missing time") as caught:
        session.call(not_a_time)
    assert caught.value.error_type == "NotJSON"
