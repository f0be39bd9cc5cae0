"""The demo's flow run, in a separate process whose environment has the URLs of the two servers."""

from __future__ import annotations

import sys
from pathlib import Path

from ags_flows.demo.data import write_data
from ags_flows.errors import AGSFlowsError
from ags_flows.flows import provision_and_run
from ags_flows.models import Resources, ToolSpec

TOOL = "ags-flows-demo"


def main(directory: Path) -> int:
    """Run the job, write the report of the flow run to `run.json`, and return an exit code."""
    data = write_data(directory / "data")
    try:
        report = provision_and_run(
            command="python3 job.py orders.csv report.md",
            cwd="/home/user/data",
            tool=ToolSpec(name=TOOL, image="python:3.11", resources=Resources(cpu="1", memory="1Gi")),
            uploads={str(data): "/home/user/data"},
            downloads={"/home/user/data/report.md": str(directory / "report.md")},
            lease="2m",
        )
    except AGSFlowsError as error:
        print(f"The job failed: {error}", file=sys.stderr)
        return 1
    (directory / "run.json").write_text(report.model_dump_json(indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
