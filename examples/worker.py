"""Deploy a flow to a work pool of type `ags`: each of its runs is executed in a separate sandbox.

    prefect work-pool create sandboxes --type ags
    prefect worker start --pool sandboxes        # in another terminal
    python examples/worker.py                    # deploys the flow, runs it, and waits for its end

The directory of this file is uploaded into the sandbox, and the flow is imported there.
"""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment

POOL, CODE = "sandboxes", "/home/user/code"


@flow
def where_am_i(greeting: str = "hello") -> None:
    """Log which machine executes the flow."""
    import socket

    get_run_logger().info("%s from %s", greeting, socket.gethostname())


def deploy() -> str:
    """Create the deployment, or update it, and return its full name."""
    with get_client(sync_client=True) as client:
        client.create_deployment(
            client.create_flow(where_am_i),
            "sandboxed",
            work_pool_name=POOL,
            entrypoint=f"{Path(__file__).name}:where_am_i",
            path=CODE,
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": CODE}}],
            parameters={"greeting": "good morning"},
            job_variables={
                "image": "prefecthq/prefect:3-latest",
                "uploads": {str(Path(__file__).resolve().parent): CODE},
            },
        )
    return f"{where_am_i.name}/sandboxed"


if __name__ == "__main__":
    run = run_deployment(deploy(), timeout=600, poll_interval=1)
    print(f"{run.name}: {run.state_name}, in sandbox {run.infrastructure_pid}")
