"""The flow that runs a saved job: deployed once, it runs whatever job is chosen in the Prefect UI."""

from prefect import flow

from ags_flows.flows.hooks import stop_sandboxes
from ags_flows.job import SandboxJob
from ags_flows.models import RunReport


@flow(name="run-job", description="Run a saved AGS Sandbox Job.", on_cancellation=[stop_sandboxes])
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
    return job.trigger().fetch_result()
