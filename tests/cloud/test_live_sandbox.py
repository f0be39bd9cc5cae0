"""Sandbox objects of the e2b SDK that leave this package."""

import pytest
from e2b import InvalidArgumentException

from ags_flows import AGSRuntime
from ags_flows.cloud.e2b_internals import private
from ags_flows.errors import UnsupportedError

SEPARATORS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\rj"


@pytest.fixture(params=[False, True], ids=["without a key", "with a key"])
def live(request, ags_emulator, ags_config):
    key = ags_emulator.api_key if request.param else None
    sandbox = AGSRuntime(ags_config).create_e2b_sandbox("code-interpreter-v1", api_key=key)
    yield sandbox
    sandbox.kill()


def test_their_code_takes_every_separator_of_unicode(live):
    seen = {"stdout": [], "results": [], "errors": []}
    execution = live.run_code(
        f"import os; print({SEPARATORS!r} + os.environ['A']); {SEPARATORS!r}",
        envs={"A": "!"},
        on_stdout=lambda message: seen["stdout"].append(message.line),
        on_result=seen["results"].append,
    )
    assert "".join(execution.logs.stdout) == "".join(seen["stdout"]) == f"{SEPARATORS}!\n"
    assert execution.text == repr(SEPARATORS)[1:-1]
    assert [one.text for one in seen["results"]] == [execution.text]
    failed = live.run_code(f"raise ValueError({SEPARATORS!r})", on_error=seen["errors"].append)
    assert failed.error.value == SEPARATORS and seen["errors"] == [failed.error]
    context = live.create_code_context()
    assert live.run_code("1 + 1", context=context).text == "2"
    with pytest.raises(InvalidArgumentException):
        live.run_code("1", language="python", context=context)


def test_a_private_name_that_a_version_of_the_sdk_does_not_have_is_named():
    with pytest.raises(UnsupportedError, match=r"e2b \d.* has no object\._gone"):
        private(object(), "_gone")
