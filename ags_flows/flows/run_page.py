"""A run as a page in the Prefect UI: what ran, what came of it, every step with its time."""

from collections.abc import Mapping, Sequence

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from ags_flows.models import ExecResult, Instance, Step
from ags_flows.tasks.logs import run_logger

ARTIFACT = "sandbox-run"
SHOWN_LINES = 40
SHOWN_CHARACTERS = 8_000
_SIGNS = {"completed": "✅", "failed": "❌", "skipped": "➖"}


def write_page(
    result: ExecResult | None, instance: Instance | None, downloads: Mapping[str, str], steps: Sequence[Step]
) -> None:
    """Write the markdown artifact of a run; outside of a flow run there is nowhere to write it to.

    Args:
        result: The command's outcome, masked already; None where it did not come to one.
        instance: Where it ran.
        downloads: What was downloaded, path in the sandbox to local path.
        steps: What was done.
    """
    if FlowRunContext.get() is None:
        return
    lines = [f"# {_headline(result)}", ""]
    if instance is not None:
        lines.append(f"Sandbox `{instance.id}` of tool `{instance.tool_name or instance.tool_id}`")
        lines.append("")
    if result is not None:
        lines += _block(result.command, "sh")
    lines += ["| step | seconds | |", "|---|---:|---|"]
    lines += [
        f"| {_cell(step.name)} | {step.seconds:.2f} | {_SIGNS[step.status]} {_cell(step.message)} |" for step in steps
    ]
    lines.append("")
    if downloads:
        lines += ["**Downloaded**", "", *(f"- `{remote}` to `{local}`" for remote, local in downloads.items()), ""]
    if result is not None:
        for name, text, size in (
            ("stdout", result.stdout, result.stdout_size),
            ("stderr", result.stderr, result.stderr_size),
        ):
            if text.strip():
                lines += [f"**{name}**, its end ({size:,} bytes in all)", "", *_block(_end(text), "text")]
    try:
        create_markdown_artifact("\n".join(lines), key=ARTIFACT, description=_headline(result))
    except Exception as error:  # noqa: BLE001 - the job is done, or failed for a reason of its own
        run_logger().warning("The page of this run could not be written: %s", error)


def _headline(result: ExecResult | None) -> str:
    if result is None:
        return "It did not come to an exit code"
    return f"Exit code {result.exit_code} after {result.seconds:.1f} s"


def _block(text: str, language: str) -> list[str]:
    # Longer than any fence in the text, which must not end the block.
    fence = "`" * max([3, *(len(line) - len(line.lstrip("`")) + 1 for line in text.splitlines())])
    return [f"{fence}{language}", text.rstrip(), fence, ""]


def _end(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-SHOWN_LINES:])[-SHOWN_CHARACTERS:]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
