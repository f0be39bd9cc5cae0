"""Checks of code cells."""

from __future__ import annotations

from ags_flows.cloud.code_interpreter import CodeInterpreter
from ags_flows.errors import AGSFlowsError
from ags_flows.verify.account import Account
from ags_flows.verify.check import Different, Group, expect

GROUP = Group("code")


def _code(account: Account) -> CodeInterpreter:
    return CodeInterpreter(account.plane())


@GROUP.check
def last_value_is_the_result(account: Account) -> None:
    """The value of the last line is the result of a cell."""
    text = _code(account).run("6 * 7").text
    expect(text == "42", repr(text))


@GROUP.check
def variables_are_kept(account: Account) -> None:
    """Variables are kept from one cell to the next."""
    _code(account).run("kept = 41")
    text = _code(account).run("kept + 1").text
    expect(text == "42", repr(text))


@GROUP.check
def cell_output_is_whole(account: Account) -> None:
    """Ten thousand lines of a cell arrive whole and in order."""
    out = _code(account).run("for i in range(10000): print(i)").stdout
    expect(out == "".join(f"{number}\n" for number in range(10000)), f"{out.count(chr(10))} lines")


@GROUP.check
def exception_is_a_value(account: Account) -> None:
    """An exception of a cell comes back by its name."""
    error = _code(account).run("1 / 0").error
    expect(error is not None and error.name == "ZeroDivisionError", error)


@GROUP.check
def contexts_are_apart(account: Account) -> None:
    """A context has separate variables."""
    code = _code(account)
    context = code.create_context()
    code.run("kept = 1")
    error = code.run("kept", context=context.id).error
    code.remove_context(context.id)
    expect(error is not None and error.name == "NameError", error)


@GROUP.check
def shell_and_cells_share_files(account: Account) -> None:
    """Cells and commands share their files."""
    _code(account).run("open('verify-cell', 'w').write('cell')")
    expect(account.plane().read("verify-cell") == b"cell", "other bytes")


@GROUP.check
def missing_context_is_refused(account: Account) -> None:
    """A context that does not exist is refused."""
    try:
        _code(account).run("1", context="00000000-0000-0000-0000-000000000000")
    except AGSFlowsError:
        return
    raise Different("the cell ran")
