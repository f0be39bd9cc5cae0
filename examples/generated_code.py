"""Run code that a model writes, where it can do no harm, and give its errors back until it works.

`write_code` stands in for the model: it forgets an import at first, and corrects itself after the error.

    python examples/generated_code.py
"""

from __future__ import annotations

from prefect import flow, task

from ags_flows import sandbox_session
from ags_flows.flows import stop_sandboxes

TOOL = "code-interpreter-v1"
ATTEMPTS = 3


@task
def write_code(question: str, complaint: str | None) -> str:
    """Return Python code that computes the result; `complaint` is the error of the previous attempt."""
    code = f"result = math.comb(49, 6)  # {question}\nresult"
    return f"import math\n{code}" if complaint and "math" in complaint else code


@flow(on_cancellation=[stop_sandboxes], log_prints=True)
def answer(question: str = "How many ways are there to draw 6 of 49?") -> str:
    """Let the model write, run what it wrote, and let it correct itself."""
    with sandbox_session(TOOL, lease="2m") as sandbox:
        complaint = None
        for attempt in range(1, ATTEMPTS + 1):
            result = sandbox.run_code(write_code(question, complaint), timeout=60)
            if result.error is None:
                print(f"{question} {result.text} (attempt {attempt})")
                return result.text or ""
            complaint = f"{result.error.name}: {result.error.value}"
    raise RuntimeError(f"No result after {ATTEMPTS} attempts: {complaint}")


if __name__ == "__main__":
    answer()
