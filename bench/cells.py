"""Floods of output of code cells: whole, in every language that is installed."""

from __future__ import annotations

from collections.abc import Iterator

from e2b import SandboxException
from e2b_code_interpreter import Sandbox

from bench.figure import Figure, seconds
from bench.sandbox import running_emulator_exports

LINES = 100_000
CODE = {
    "python": "for i in range({n}): print(i)",
    "javascript": "for (let i = 0; i < {n}; i++) console.log(i)",
    "typescript": "for (let i: number = 0; i < {n}; i++) console.log(i)",
    "bash": "for ((i = 0; i < {n}; i++)); do echo $i; done",
    "r": "for (i in 0:({n} - 1)) cat(sprintf('%d\\n', i))",
    "java": "for (int i = 0; i < {n}; i++) System.out.println(i);",
}


def figures() -> Iterator[Figure]:
    """Print lines by the real SDK against an emulator in a separate process."""
    with running_emulator_exports("--quiet") as (exports, _):
        url = exports["E2B_API_URL"]
        sandbox = Sandbox.create(api_key=exports["E2B_API_KEY"], api_url=url, sandbox_url=url, timeout=3600)
        for language, code in CODE.items():
            try:
                sandbox.run_code("true" if language == "bash" else "1", language=language, timeout=120)
            except SandboxException:
                # Not installed here.
                continue
            got: list[str] = []

            def flood(code: str = code, language: str = language, got: list[str] = got) -> None:
                got[:] = sandbox.run_code(code.format(n=LINES), language=language, timeout=600).logs.stdout

            took = seconds(flood)
            lines = "".join(got).splitlines()
            right = sum(line == str(number) for number, line in enumerate(lines))
            yield Figure(f"{LINES:,} lines of {language}: right ones", right, "", LINES, True, f"{took:.1f} s")
