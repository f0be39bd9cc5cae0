"""Which functions can be sent to a sandbox, and what their source is there."""

import ast
import functools
import os.path
import runpy
import sys
from pathlib import Path

import pytest

from ags_flows import in_sandbox
from ags_flows.errors import ConfigurationError
from ags_flows.functions import guest, runner, values
from ags_flows.functions.source import source_of

LIMIT = 3


def passing(function):
    return function


def wrapping(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


def compiled(source):
    scope = {}
    exec(guest.compiled(source.text, source.line, source.file, source.postponed), scope)
    return scope[source.name]


def plain(day: "Unknown", limit: int = LIMIT) -> "Unknown":  # noqa: F821
    return day, limit


def multiline(
    day,
    *,
    text="""
not indented
""",
):
    import math

    class Inner:
        """A class."""

        size: int = 2

        def area(self) -> "Missing":  # noqa: F821
            return math.pow(self.size, 2)

    def helper(value: int) -> int:
        return value + len([one for one in range(value)])

    return helper(day), Inner().area()


@passing
@passing
def decorated(n):
    """Call itself."""
    return 1 if n < 2 else n * decorated(n - 1)


def own_global():
    global counted
    counted = 1
    return counted


@pytest.mark.parametrize("function", [plain, multiline, decorated, own_global], ids=lambda one: one.__name__)
def test_the_sent_source_is_the_def_without_decorators_and_keeps_its_line_numbers(function):
    source = source_of(function)
    lines = Path(__file__).read_text().splitlines()
    assert source.text.splitlines()[0] == lines[source.line - 1]
    assert source.text.startswith(f"def {function.__name__}(")
    sent = compiled(source)
    assert sent.__code__.co_firstlineno == source.line
    assert not sent.__defaults__ and not sent.__annotations__


def test_sent_functions_give_what_they_give_here():
    assert compiled(source_of(multiline))(3, text="") == multiline(3)
    assert compiled(source_of(decorated))(5) == 120
    assert compiled(source_of(own_global))() == 1


def test_a_function_inside_of_another_one_can_be_sent():
    def nested(text):
        same = """
at the margin
"""
        return text + same

    assert compiled(source_of(nested))("a") == "a\nat the margin\n"


class Counter:
    def count(self):
        return 1

    @staticmethod
    def static():
        return 1


def generator():
    yield 1


async def coroutine():
    return 1


async def async_generator():
    yield 1


def module_global():
    return os.path.join("a", "b")


def value_global():
    return LIMIT


def deep_global():
    def inner():
        return [LIMIT + one for one in range(2)]

    return inner()


def misspelled():
    return undefined_name  # noqa: F821


@wrapping
def wrapped(n):
    return n


def closure(limit):
    def inner():
        return limit

    return inner


def counter():
    count = 0

    def inner():
        nonlocal count
        count += 1
        return count

    return inner


REFUSED = [
    (lambda n: n, "lambda"),
    (Counter.count, "method of Counter"),
    (Counter().count, "a method"),
    (Counter.static, "method of Counter"),
    (generator, "generator"),
    (coroutine, "async"),
    (async_generator, "async"),
    (module_global, "os (a module)"),
    (value_global, "LIMIT (a global)"),
    (deep_global, "LIMIT (a global)"),
    (misspelled, "undefined_name (not defined)"),
    (closure(3), "limit (of the function around it)"),
    (counter(), "not complete without the code around it: no binding for nonlocal 'count' found"),
    (wrapped, "decorator below in_sandbox"),
    (len, "not a function"),
    (functools.partial(plain, 1), "not a function"),
    (Counter, "not a function"),
]


@pytest.mark.parametrize(("function", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_be_sent_is_refused_by_name_when_it_is_decorated(function, reason):
    with pytest.raises(ConfigurationError, match="cannot run in a sandbox") as caught:
        in_sandbox(image="python:3.11")(function)
    assert reason in str(caught.value)


GENERIC = """\
def first[T](items: list[T]) -> T:
    def same[U](item: U) -> U:
        return item

    return same(items[0])


def empty[T](kind: type[T]) -> list[T]:
    return list[T]()
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is of Python 3.12")
def test_type_parameters_are_not_sent_and_refused_where_the_function_uses_them(tmp_path):
    (tmp_path / "generic.py").write_text(GENERIC)
    scope = runpy.run_path(str(tmp_path / "generic.py"))
    assert compiled(source_of(scope["first"]))([1, 2]) == 1
    with pytest.raises(ConfigurationError, match=r"empty cannot run in a sandbox: .*: T \("):
        source_of(scope["empty"])


def test_code_without_a_file_is_refused():
    scope = {}
    exec("def made():\n    return 1\n", scope)
    with pytest.raises(ConfigurationError, match="source cannot be read"):
        in_sandbox(image="python:3.11")(scope["made"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"packages": ["pandas=2"]}, "'pandas=2' is not a requirement"),
        ({"packages": "pandas"}, "give a list"),
        ({"image": "python:3.11", "tool": "base"}, "image and tool"),
        ({"tool": "base", "cpu": "2"}, "cpu and memory"),
        ({"image": "python:3.11", "cpu": "many"}, "cpu"),
        ({"timeout": -1}, "timeout"),
        ({"sandboxes": 0}, "sandboxes"),
        ({"retries": -1}, "retries"),
        ({"env": {"A=B": "1"}}, "env"),
    ],
    ids=str,
)
def test_an_option_that_breaks_a_rule_is_refused_when_it_is_decorated(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        in_sandbox(**options)(plain)


def test_nothing_is_unpickled_on_either_side():
    imported = set()
    for module in Path(guest.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    assert "json" in imported
    assert not imported & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}


@pytest.mark.parametrize("script", [values, guest, runner], ids=lambda one: one.__name__)
def test_the_scripts_in_the_sandbox_have_the_syntax_of_python_3_8(script):
    ast.parse(Path(script.__file__).read_text(), feature_version=(3, 8))
