"""Results: what fits its annotation, what is masked, and where files are put."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Optional

import pytest
from prefect.blocks.system import Secret
from pydantic import BaseModel, Field

from ags_flows import SandboxFile, in_sandbox
from ags_flows.errors import ConfigurationError, FunctionError
from ags_flows.ownership import Frame, Owner
from ags_flows.run.holder import Execution, acting_as


def attempt(number, run="b" * 32):
    return acting_as(Execution(frames=(Frame("flow", run, number),), owner=Owner("run-of-results")))


@dataclasses.dataclass
class Row:
    number: int


def counted(name: str) -> Row:
    with open(name, "a") as calls:
        calls.write("x")
    return {"number": "many"}


def test_a_result_that_does_not_fit_its_annotation_is_not_kept_as_the_result_of_the_call(session, monkeypatch):
    with attempt(1), pytest.raises(FunctionError, match="annotation"):
        session.call(counted, "misfits")
    # The class was corrected, and the function is the same.
    monkeypatch.setitem(Row.__annotations__, "number", str)
    monkeypatch.setitem(counted.__annotations__, "return", dataclasses.make_dataclass("Row", [("number", str)]))
    with attempt(2):
        assert session.call(counted, "misfits").number == "many"
    assert session.read("misfits") == b"xx"


class Price(BaseModel):
    amount: float = Field(alias="Amount")
    currency: str = Field(validation_alias="cur", serialization_alias="curr")


class Order(BaseModel):
    price: Price
    notes: list[str] = Field(default=[], alias="Notes")


def raised(order: Order) -> Order:
    order.price.amount += order["price"]["amount"]
    return order


def aliased(names: bool) -> list[Order]:
    by_name = {"price": {"amount": 1.5, "currency": "CNY"}, "notes": ["a"]}
    return [by_name if names else {"price": {"Amount": 1.5, "cur": "CNY"}, "Notes": ["a"]}]


def test_models_with_aliases_come_back(session):
    order = Order.model_validate({"price": {"Amount": 1.5, "cur": "CNY"}, "Notes": ["a"]})
    assert session.call(aliased, True) == session.call(aliased, False) == [order]
    assert session.call(raised, order).price.amount == 3.0


class Opaque:
    pass


@dataclasses.dataclass
class Holding:
    opaque: Optional[Opaque]  # noqa: UP045


def holding() -> Holding:
    return {"opaque": None}


def test_an_annotation_of_which_nothing_can_be_made_is_named(session):
    with pytest.raises(ConfigurationError, match="holding: nothing can be made of the annotation"):
        session.call(holding)


@pytest.mark.usefixtures("prefect_server")
def test_bytes_of_a_result_are_not_changed_by_the_masking_of_secrets(session):
    Secret(value="hunter2-and-more").save("login-in-bytes", overwrite=True)

    @in_sandbox(secrets={"LOGIN": "login-in-bytes"})
    def reveal():
        import os

        login = os.environ["LOGIN"]
        return {"raw": [login.encode()], "text": login, login: (login, 1), "$ags": "bytes", "value": login}

    found = session.call(reveal)
    assert hashlib.sha256(found["raw"][0]).hexdigest() == hashlib.sha256(b"hunter2-and-more").hexdigest()
    assert found == {
        "raw": found["raw"],
        "text": "********",
        "********": ("********", 1),
        "$ags": "bytes",
        "value": "********",
    }


def written(text: str) -> SandboxFile:
    with open("written.txt", "w") as file:
        file.write(text)
    return SandboxFile("written.txt")


def test_files_of_several_calls_do_not_overwrite_each_other(session, tmp_path):
    remote = in_sandbox(files=str(tmp_path))(written)
    files = [session.call(remote, text) for text in ("first", "second", "second")]
    assert [Path(one).read_text() for one in files] == ["first", "second", "second"]
    assert len({one.path for one in files}) == 3
    assert all(Path(one).name == "written.txt" and Path(one).parent.parent == tmp_path for one in files)


def named_alike(to):
    import os

    for directory in ("left", "right"):
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/part.txt", "w") as file:
            file.write(directory)
    return [SandboxFile(f"{directory}/part.txt", to=to) for directory in ("left", "right")]


@pytest.mark.parametrize("to", [None, "one.txt"])
def test_files_of_one_result_that_would_overwrite_each_other_are_refused(session, tmp_path, to):
    with pytest.raises(FunctionError, match=r"left/part.txt' and .*right/part.txt' have the same name"):
        session.call(in_sandbox(files=str(tmp_path))(named_alike), to)


def test_modules_of_a_package_are_included_by_dotted_names(session, tmp_path, monkeypatch):
    package = tmp_path / "outer"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("VERSION = 7\n")
    (package / "inner" / "__init__.py").write_text("from outer import VERSION\n")
    (package / "single.py").write_text("from . import VERSION as ONE\n")
    (package / "unused.py").write_text("raise ImportError\n")
    monkeypatch.syspath_prepend(tmp_path)

    def look():
        import os

        import outer
        from outer.inner import VERSION
        from outer.single import ONE

        return VERSION, ONE, sorted(os.listdir(os.path.dirname(outer.__file__)))

    remote = in_sandbox(include=["outer.inner", "outer.single"])(look)
    version, one, names = session.call(remote)
    assert (version, one) == (7, 7)
    assert [name for name in names if name != "__pycache__"] == ["__init__.py", "inner", "single.py"]
    assert os.listdir(package / "inner")


@dataclasses.dataclass
class Cart:
    items: list[int]
    copy: int


def used(cart: Cart) -> Cart:
    import copy
    import json
    import pickle

    cart = pickle.loads(pickle.dumps(copy.deepcopy(cart)))
    return {**json.loads(json.dumps(cart)), "copy": cart["copy"] + 1}


def returned(cart):
    return cart


def test_fields_can_have_names_of_methods(session):
    assert session.call(used, Cart([1], 2)) == Cart([1], 3)
    assert session.call(returned, Cart([1], 2)) == {"items": [1], "copy": 2}


def late(name: str) -> SandboxFile:
    import os

    with open(name, "a") as calls:
        calls.write("x")
    if os.path.getsize(name) > 1:
        with open(f"{name}.txt", "w") as file:
            file.write("late")
    return SandboxFile(f"{name}.txt")


def test_a_result_that_names_a_missing_file_is_not_kept_as_the_result_of_the_call(session, tmp_path):
    remote = in_sandbox(files=str(tmp_path))(late)
    with attempt(1), pytest.raises(FunctionError, match=r"late: .*arrives\.txt' does not exist") as caught:
        session.call(remote, "arrives")
    assert caught.value.error_type == "FileNotFoundError"
    with attempt(2):
        assert Path(session.call(remote, "arrives")).read_text() == "late"
    assert session.read("arrives") == b"xx"


def report(is_directory: bool, to: str) -> SandboxFile:
    import os

    os.makedirs("report", exist_ok=True)
    with open("report/page.txt", "w") as file:
        file.write("page")
    return SandboxFile("report" if is_directory else "report/page.txt", to=to)


@pytest.mark.parametrize("to", ["there", "."])
def test_a_file_does_not_go_to_the_path_of_a_directory(session, tmp_path, to):
    (tmp_path / "there").mkdir()
    with pytest.raises(FunctionError, match=r"report: the path .* is a directory on this machine"):
        session.call(in_sandbox(files=str(tmp_path))(report), False, to)
    assert not list((tmp_path / "there").iterdir())


def test_a_directory_does_not_go_to_the_path_of_a_file(session, tmp_path):
    (tmp_path / "there").write_text("file")
    with pytest.raises(FunctionError, match=r"report: the path .* is a file on this machine"):
        session.call(in_sandbox(files=str(tmp_path))(report), True, "there")
    assert (tmp_path / "there").read_text() == "file"
