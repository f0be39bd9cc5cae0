"""The flow that a worker executes in sandboxes: it needs Prefect, and nothing of this repository."""

import json
import time
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

TRACE = "what-ran"
"""Key of the artifact. Unlike lines of the log, it is stored before the run completes."""


@flow(name="sandboxed")
def sandboxed(tool: str, directory: str, units: list[str]) -> None:
    """Leave a trace of each step in the sandbox, and show all of them in an artifact at the end."""
    ran = Path.home() / "ran"

    def step(text: str) -> None:
        with ran.open("a") as file:
            file.write(f"{text}\n")

    for text in ("first", "second", "second"):
        step(text)
    output = ""
    for number in range(1, 7):
        step(str(number))
        output += f"line {number}\n"
        time.sleep(0.25)
    identity = Path("/run/e2b/.E2B_SANDBOX_ID").read_text()
    found = {"instance": identity, "ran": ran.read_text().split(), "output": output}
    create_markdown_artifact(json.dumps(found), key=TRACE)
