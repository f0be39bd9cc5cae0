"""The flow that runs a saved job: one deployment runs any job that is chosen in the Prefect UI."""

from prefect import flow

from ags_flows.blocks import AGSConfig
from ags_flows.flows.hooks import stop_sandboxes, stop_sandboxes_if_asked
from ags_flows.flows.names import name_of_job
from ags_flows.job import SandboxJob
from ags_flows.job.engine import execute
from ags_flows.models import RunReport


@flow(
    name="run-job",
    flow_run_name=name_of_job,
    description="Run a saved AGS Sandbox Job.",
    on_cancellation=[stop_sandboxes],
    on_crashed=[stop_sandboxes_if_asked],
)
def run_job(job: SandboxJob) -> RunReport:
    """Run a saved job. A retry of the run goes on where the last attempt was.

    Args:
        job: The block: chosen in the form of the UI, or `SandboxJob.load("nightly")`.

    Returns:
        The command's outcome, where it ran, and every step with its duration.

    Raises:
        CommandFailedError: The exit code was not 0, and the job's `check` is set.

    Example:
        ```python
        report = run_job(SandboxJob(command="python3 --version", tool="base"))
        print(report.result.stdout)
        ```
    """
    return execute(job.spec(), job.config or AGSConfig())
