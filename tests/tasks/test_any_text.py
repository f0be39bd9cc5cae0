"""Any text goes through commands and cells as it is: as input, argument, environment, code, output and result."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ags_flows.tasks import exec_command, run_code, start_instance, wait_instance_running
from ags_flows.testing import config_for

QUICK = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
ODD = [
    "\u2028",
    "\u2029",
    "\x85",
    "\r",
    "\r\n",
    "\x1b[0m",
    "'",
    '"',
    "\\",
    "$(id)",
    "`x`",
    "$HOME",
    "%s",
    "\ufeff",
    "😀",
]
TEXTS = st.lists(st.sampled_from(ODD) | st.text(max_size=20), max_size=20).map("".join)
WORDS = TEXTS.map(lambda text: text.replace("\0", "0"))


@pytest.fixture(scope="module")
def interpreter(ags_emulator_process):
    ags_emulator_process.reset()
    config = config_for(ags_emulator_process)
    yield wait_instance_running.fn(start_instance.fn("code-interpreter-v1", config=config), config=config), config
    ags_emulator_process.reset()


@pytest.mark.parametrize("durable", [True, False])
@QUICK
@given(stdin=TEXTS, argument=WORDS, value=WORDS)
def test_any_text_goes_through_a_command(interpreter, durable, stdin, argument, value):
    instance, config = interpreter
    script = 'printf "%s\\0%s\\0" "$1" "$ODD"; cat; printf "%s" "$ODD" >&2'
    result = exec_command.fn(
        instance,
        ["bash", "-c", script, "bash", argument],
        stdin=stdin,
        env={"ODD": value},
        durable=durable,
        log_output=False,
        config=config,
    )
    assert result.exit_code == 0
    assert result.stdout == f"{argument}\0{value}\0{stdin}"
    assert result.stderr == value


@QUICK
@given(text=TEXTS, value=WORDS)
def test_any_text_goes_through_a_cell(interpreter, text, value):
    instance, config = interpreter
    code = f"import os\ntext = {text!r}\nprint(text + os.environ['ODD'], end='')\ntext"
    result = run_code.fn(instance, code, env={"ODD": value}, artifacts=False, config=config)
    assert result.error is None
    assert result.stdout == text + value
