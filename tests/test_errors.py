import inspect
import pickle

import pytest

from ags_flows import errors
from ags_flows.errors import AGSFlowsError, CommandFailedError, NotFoundError
from ags_flows.models import ExecResult

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, AGSFlowsError) and value.__module__ == errors.__name__
]


def test_the_text_has_message_code_request_id_and_hint():
    error = NotFoundError("No tool 'x'.", hint="List them.", code="ResourceNotFound.SandboxTool", request_id="req-1")
    assert str(error) == "No tool 'x'. [ResourceNotFound.SandboxTool, RequestId req-1] List them."


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_keeps_all_attributes_when_pickled(cls):
    error = cls("what", hint="do", code="C", request_id="r", retry_after=2.0)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), again.retry_after) == (str(error), 2.0)


def test_command_failed_error_keeps_its_result_when_pickled():
    error = CommandFailedError("exit 3", result=ExecResult(command="exit 3", exit_code=3))
    assert pickle.loads(pickle.dumps(error)).result.exit_code == 3


def test_the_tree_in_the_docstring_has_every_class_and_marks_retryable_ones():
    for cls in CLASSES:
        line = next(line for line in errors.__doc__.splitlines() if cls.__name__ in line.split())
        assert ("(r)" in line) == cls.retryable, cls
