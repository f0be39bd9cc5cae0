import pytest
from prefect import flow

from ags_flows.cloud.data_planes import Cancellation
from ags_flows.errors import (
    AGSFlowsError,
    CommandFailedError,
    ConfigurationError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    ServiceError,
    ThrottledError,
    UnreachableError,
)
from ags_flows.models import ToolSpec
from ags_flows.run.awaitable import waits_end_with
from ags_flows.run.task_options import RETRIES, sandbox_task


def attempts_of(error, failures):
    """How often a task is executed that fails this often with this error."""
    made = []

    @sandbox_task("try", "subject")
    def flaky(subject="x"):
        made.append(subject)
        if len(made) <= failures:
            raise error
        return "done"

    quick = flaky.with_options(retry_delay_seconds=0)

    @flow
    def once():
        return quick(return_state=True)

    state = once(return_state=True)
    return len(made), state.type.value


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("cls", [ThrottledError, ServiceError, UnreachableError, QuotaExceededError])
def test_what_may_pass_is_tried_again(cls):
    assert attempts_of(cls("busy"), failures=2) == (3, "COMPLETED")


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("wrong"),
        NotFoundError("gone"),
        CommandFailedError("exit 1"),
        OutcomeUnknownError("unknown outcome"),
        ValueError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_will_not_pass_is_tried_once(error):
    assert attempts_of(error, failures=9) == (1, "FAILED")


@pytest.mark.usefixtures("prefect_server")
def test_retries_come_to_an_end():
    assert attempts_of(ThrottledError("busy"), failures=99) == (RETRIES + 1, "FAILED")


@pytest.mark.usefixtures("prefect_server")
def test_runs_are_named_after_what_they_do_and_tagged():
    names = {}

    @sandbox_task("exec", "subject")
    def run(subject):
        from prefect.context import TaskRunContext

        names[subject if isinstance(subject, str) else subject.name] = TaskRunContext.get().task_run

    @flow
    def once():
        run("python etl.py\nsecond line")
        run("x" * 200)
        run(ToolSpec(name="etl", image="python:3.11"))
        return True

    once()
    assert names["python etl.py\nsecond line"].name == "exec: python etl.py"
    assert names["x" * 200].name == "exec: " + "x" * 57 + "..."
    assert names["etl"].name == "exec: etl"
    assert "ags" in names["etl"].tags


def test_only_errors_of_this_package_are_ever_retryable():
    assert not AGSFlowsError.retryable


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("is_cancelled", "attempts"), [(False, 2), (True, 1)])
def test_a_task_whose_coroutine_was_cancelled_is_not_retried(is_cancelled, attempts):
    flag, made = Cancellation(), []

    @sandbox_task("fail", "number")
    def failing(number: int = 0):
        made.append(number)
        if is_cancelled:
            flag.end()
        raise ServiceError("no")

    @flow
    def of_one_task():
        with waits_end_with(flag):
            return failing.with_options(retries=1, retry_delay_seconds=0)(return_state=True)

    of_one_task(return_state=True)
    assert len(made) == attempts
