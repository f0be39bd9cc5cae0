"""The flows that the tests of resilience serve, in processes of their own."""

import sys
from pathlib import Path

from prefect import flow, serve
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput

from ags_flows import sandbox_session
from ags_flows.flows import provision_and_run, run_job, stop_sandboxes
from ags_flows.models import ToolSpec


@flow(name="counting", on_cancellation=[stop_sandboxes], log_prints=True)
def counting(
    tool: str, lines: int = 10, pause: float = 0.3, target: str = "", after: float = 0.0, lease: str = "1m"
) -> int:
    """Count aloud in a sandbox, step by step; each line is also written to a file, to be counted later."""
    with sandbox_session(ToolSpec(name=tool, image="python:3.11"), lease=lease) as sandbox:
        sandbox.write("first.txt", "written")
        sandbox.run("echo first >> steps")
        command = f"for i in $(seq {lines}); do echo line $i; echo $i >> counted; sleep {pause}; done; exit 0"
        result = sandbox.run(command, check=True)
        sandbox.run("echo last >> steps")
        if after:
            sandbox.run(f"sleep {after}")
        if target:
            sandbox.run("cat steps counted > all")
            sandbox.download("all", target)
            Path(target + ".out").write_text(result.stdout)
    return result.exit_code


@flow(name="chaotic", on_cancellation=[stop_sandboxes])
def chaotic(tool: str, target: str, secret: str, lines: int = 8, pause: float = 0.25) -> None:
    """Steps of every kind, each of which leaves a trace that can be counted afterwards."""
    source = Path(target + ".in")
    source.write_text("uploaded\n" * 1000)
    with sandbox_session(ToolSpec(name=tool, image="python:3.11"), lease="1m") as sandbox:
        sandbox.upload(source, "up/in.txt")
        sandbox.run("echo first >> steps", check=True)
        command = f"for i in $(seq {lines}); do echo line $i $PASSWORD; echo $i >> counted; sleep {pause}; done"
        result = sandbox.run(command, secrets={"PASSWORD": secret}, check=True)
        sandbox.run("echo second >> steps", check=True)
        sandbox.run("echo second >> steps", check=True)
        sandbox.run("cat steps counted > up/all", check=True)
        sandbox.download("up", target)
    Path(target + ".out").write_text(result.stdout)


class Approval(RunInput):
    """What a person is asked."""

    note: str


@flow(name="asking", on_cancellation=[stop_sandboxes])
def asking(tool: str, target: str) -> None:
    """Work, ask a person, and go on in the same sandbox."""
    with sandbox_session(ToolSpec(name=tool, image="python:3.11"), lease="1m") as sandbox:
        sandbox.run("echo before >> steps; sleep 300 > /dev/null 2>&1 & echo $! > pid", check=True)
        answer = suspend_flow_run(wait_for_input=Approval, timeout=600)
        sandbox.run(f"echo {answer.note} >> steps; kill -0 $(cat pid) && echo alive >> steps", check=True)
        sandbox.download("steps", target)


if __name__ == "__main__":
    served = [each.to_deployment("served") for each in (counting, chaotic, asking, provision_and_run, run_job)]
    serve(*served, limit=6)
    sys.exit(0)
