"""Values that cross as JSON: what arrives is what was sent, and what cannot is refused with its path."""

import collections
import copy
import dataclasses
import enum
import json
import math
import pickle
import sys
from datetime import date, datetime, time, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from typing import ClassVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel, SecretStr

from ags_flows import SandboxFile
from ags_flows.errors import ConfigurationError
from ags_flows.functions.call import Call, RemoteFunction
from ags_flows.functions.values import KIND, NotJSONError, decode, encode


@dataclasses.dataclass
class Order:
    price: float
    when: datetime


class Model(BaseModel):
    order: Order
    tags: list[str] = []


class Login(BaseModel):
    password: SecretStr


class Colour(str, enum.Enum):
    RED = "red"


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
moments = st.datetimes(timezones=st.timezones() | st.just(timezone.utc) | st.none())
times = moments | st.dates() | st.times(timezones=st.timezones() | st.none()) | st.timedeltas()
leaves = plain | times | st.decimals(allow_nan=False) | st.uuids() | st.text("ab/.", min_size=1).map(Path)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.just(KIND), inner)
        | st.tuples(inner, inner)
        | st.sets(leaves)
        | st.frozensets(leaves | st.frozensets(leaves))
    ),
    max_leaves=20,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values)
def test_what_arrives_is_what_was_sent(value):
    arrived = decode(json.loads(json.dumps(encode(value, "value"))))
    assert arrived == value
    assert type(arrived) is type(value)
    # Zones and folds too, of which equality does not depend.
    assert encode(arrived, "value") == encode(value, "value")


def test_a_moment_keeps_its_zone_and_its_fold():
    before = datetime(2026, 1, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    arrived = decode(json.loads(json.dumps(encode(before, "v"))))
    assert (arrived + timedelta(days=200)).isoformat() == "2026-08-13T02:30:00+02:00"
    assert decode(encode(before.replace(tzinfo=None, fold=1), "v")).fold == 1


def test_a_moment_arrives_with_its_offset_where_there_are_no_zones(monkeypatch):
    sent = encode(datetime(2026, 1, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")), "v")
    monkeypatch.setitem(sys.modules, "zoneinfo", None)
    assert decode(sent).isoformat() == "2026-01-25T02:30:00+01:00"


def test_the_elements_of_a_set_are_in_the_same_order_in_every_process():
    assert encode({"b", "a", "c"}, "v") == {KIND: "set", "value": ["a", "b", "c"]}


class Missing(datetime):
    """A missing time, as pandas has it."""

    __hash__ = None

    def __eq__(self, other):
        return False

    def __ne__(self, other):
        return True


@dataclasses.dataclass
class Scaled:
    known: ClassVar[object] = object()
    scale: dataclasses.InitVar[int]
    value: int = 0

    def __post_init__(self, scale):
        self.value *= scale


class Root(RootModel[list[int]]):
    pass


class Level(enum.Enum):
    LOW = (1, "low")


def test_objects_arrive_as_their_data():
    assert decode(encode(Scaled(3, 2), "v")) == {"value": 6}
    assert decode(encode([Root([1]), Level.LOW], "v")) == [[1], (1, "low")]


def test_fields_of_dataclasses_and_models_are_read_by_name_and_by_key():
    order = Order(1.5, datetime(2026, 11, 1, tzinfo=timezone.utc))
    arrived = decode(json.loads(json.dumps(encode(Model(order=order, tags=["a"]), "model"))))
    assert arrived.order.price == arrived["order"]["price"] == 1.5
    assert arrived.order.when == order.when
    assert decode(encode(arrived, "again")) == arrived
    with pytest.raises(AttributeError):
        _ = arrived.missing


@dataclasses.dataclass
class Cart:
    items: list[int]
    keys: int


def test_a_record_with_fields_that_are_named_as_methods_stays_a_mapping():
    arrived = decode(encode(Cart([1, 2], 3), "cart"))
    assert (arrived["items"], arrived["keys"]) == ([1, 2], 3)
    arrived["items"] = [4]
    expected = {"items": [4], "keys": 3}
    assert dict(arrived.items()) == dict(arrived) == {**arrived} == expected
    assert json.loads(json.dumps(arrived)) == expected
    for again in (copy.deepcopy(arrived), copy.copy(arrived), pickle.loads(pickle.dumps(arrived))):
        assert (type(again), again) == (type(arrived), expected)
    assert decode(encode(arrived, "again")) == expected
    with pytest.raises(AttributeError, match=r"'items' is a method of mappings: .*\['items'\]"):
        arrived.items = [5]


def test_fields_of_a_record_can_be_changed():
    arrived = decode(encode(Order(1.5, datetime(2026, 11, 1, tzinfo=timezone.utc)), "order"))
    arrived.price = 2.5
    assert arrived["price"] == arrived.price == 2.5
    assert decode(encode(arrived, "again")).price == 2.5


def test_numbers_and_texts_of_subclasses_arrive_plain():
    assert decode(encode({"colour": Colour.RED, "nan": math.nan, "big": 2**80}, "v"))["colour"] == "red"
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan, "v")))))


@dataclasses.dataclass(frozen=True)
class Frozen:
    number: int


endless = []
endless.append(endless)

BAD = [
    ({"days": [1, {"when": Fraction(1)}]}, "value.days[1].when", "fractions.Fraction"),
    ([Missing(1, 1, 1)], "value[0]", "a missing time (Missing)"),
    ({Frozen(1)}, "value", "arrive as records"),
    ([{1: 2}], "value[0]", "keys must be texts"),
    ({"a b": 1j}, "value['a b']", "of type complex"),
    (Login(password="x"), "value.password", "is a secret"),
    (object(), "value", "of type object"),
    (Order, "value", "of type type"),
    ((one for one in ()), "value", "generator"),
    (endless, "value[0][0]", "contains itself"),
    (collections.deque(), "value", "collections.deque"),
    ({"names": ["a", "\udcff"]}, "value.names[1]", "half a pair of surrogates"),
    ({"\ud800": 1}, "value[", "half a pair of surrogates"),
]


@pytest.mark.parametrize(("value", "path", "reason"), BAD, ids=[reason for *_, reason in BAD])
def test_what_is_not_json_is_refused_with_its_path(value, path, reason):
    with pytest.raises(NotJSONError) as caught:
        encode(value, "value")
    assert caught.value.path.startswith(path)
    assert reason in str(caught.value)


def takes(first, /, *rest, day=date(2026, 11, 1), **more):
    return first, rest, day, more


def test_an_argument_is_named_by_its_parameter():
    remote = RemoteFunction.of(takes)
    for args, kwargs, path in (
        ((1j,), {}, "first: "),
        ((1, 2, [3j]), {}, "rest[1][0]: "),
        ((1,), {"day": 4j}, "day: "),
        ((1,), {"other": {"deep": 5j}}, "more.other.deep: "),
        ((SandboxFile("/no/such/file"),), {}, "first: there is no file"),
        (("\ud800",), {}, "first: the text has half a pair of surrogates"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            Call.of(remote, args, kwargs)
        assert f"takes: an argument cannot be sent: {path}" in str(caught.value)


def test_a_missing_file_has_a_hint_about_files():
    with pytest.raises(ConfigurationError, match="first: there is no file '/no/such/file'") as caught:
        Call.of(RemoteFunction.of(takes), (SandboxFile("/no/such/file"),), {})
    assert caught.value.hint == "Pass the path of a file or a directory of this machine to SandboxFile."


def test_the_arguments_of_a_call_have_the_defaults_and_every_kind_of_parameter():
    call = Call.of(RemoteFunction.of(takes), (1, 2, 3), {"other": b"x"})
    assert decode(call.args) == [1, 2, 3]
    assert decode(call.kwargs) == {"day": date(2026, 11, 1), "other": b"x"}


def test_arguments_that_do_not_fit_the_signature_are_a_type_error():
    with pytest.raises(TypeError, match="first"):
        Call.of(RemoteFunction.of(takes), (), {})


def test_times_of_a_day_and_spans_arrive():
    assert decode(encode([time(1, 2, 3), timedelta(-1, 5)], "v")) == [time(1, 2, 3), timedelta(-1, 5)]


def test_the_destination_of_a_file_is_a_path():
    assert SandboxFile("x", to=Path("a") / "b").to == "a/b"
    with pytest.raises(TypeError, match="to: expected a path, got 3"):
        SandboxFile("x", to=3)
    with pytest.raises(TypeError, match="path: expected a path, got None"):
        SandboxFile(None)
