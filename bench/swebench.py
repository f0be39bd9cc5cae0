"""Fifty small instances of SWE-bench over eight sandboxes: what an evaluation costs beyond its script."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prefect.settings import PREFECT_API_URL, temporary_settings

from ags_flows.demo.servers import prefect_server, wait_for_prefect
from ags_flows.flows import swebench_evaluate
from ags_flows.models import ToolSpec
from bench.figure import Figure
from bench.sandbox import running_emulator_process

INSTANCES, SANDBOXES = 50, 8
IMAGE = "swebench/sweb.eval.x86_64.bench:latest"
TOOL = ToolSpec(name="swebench-v1", type="swebench", image=IMAGE, image_registry_type="system")
PATCH = """\
diff --git a/calc.py b/calc.py
--- a/calc.py
+++ b/calc.py
@@ -1,2 +1,2 @@
 def add(a, b):
-    return a - b
+    return a + b
"""
SCRIPT = """\
cd /testbed
: '>>>>> Start Test Output'
python3 -m unittest -v test_calc
: '>>>>> End Test Output'
"""
TEST = """\
import unittest, calc


class T(unittest.TestCase):
    def test_add(self):
        assert calc.add(1, 1) == 2
"""


def figures() -> Iterator[Figure]:
    """Evaluate once, with a real Prefect server, and an emulator in a separate process, as AGS is."""
    with (
        tempfile.TemporaryDirectory(prefix="ags-bench-") as name,
        prefect_server(Path(name)) as (server, url),
        running_emulator_process("--volumes", f"{name}/volumes", "--quiet") as config,
    ):
        wait_for_prefect(server, url, Path(name))
        predictions, dataset = _files(Path(name))
        with temporary_settings({PREFECT_API_URL: f"{url}/api"}):
            report = swebench_evaluate(
                predictions, dataset, tool=TOOL, sandboxes=SANDBOXES, results=f"{name}/results", config=config
            )
    resolved = len(report.ids("resolved"))
    scripts = sum(verdict.seconds for verdict in report.verdicts)
    overhead = (report.seconds * SANDBOXES - scripts) / INSTANCES
    title = f"SWE-bench, {INSTANCES} instances over {SANDBOXES} sandboxes"
    detail = f"{report.seconds:.1f} s in all, a script {scripts / INSTANCES:.2f} s"
    yield Figure(f"{title}: beyond the script, for each", overhead, "s", 1.5, detail=detail)
    yield Figure(f"{title}: right verdicts", resolved, "", INSTANCES, at_least=True)


def _files(directory: Path) -> tuple[str, str]:
    testbed = directory / "volumes" / "images" / IMAGE.replace("/", "_").replace(":", "_") / "testbed"
    testbed.mkdir(parents=True)
    (testbed / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    (testbed / "test_calc.py").write_text(TEST)
    git = shutil.which("git") or "git"
    subprocess.run([git, "init", "-q"], cwd=testbed, check=True)
    names = [f"bench__bench-{number}" for number in range(INSTANCES)]
    instances = [
        {
            "instance_id": name,
            "repo": "bench/bench",
            "version": "1",
            "image": IMAGE,
            "FAIL_TO_PASS": json.dumps(["test_add (test_calc.T.test_add)"]),
            "PASS_TO_PASS": "[]",
            "log_parser": "parse_log_django",
            "eval_type": "pass_and_fail",
            "eval_script": SCRIPT,
        }
        for name in names
    ]
    sent = [{"instance_id": name, "model_patch": PATCH, "model_name_or_path": "bench"} for name in names]
    for file, records in (("dataset.jsonl", instances), ("predictions.jsonl", sent)):
        (directory / file).write_text("".join(f"{json.dumps(one)}\n" for one in records))
    return str(directory / "predictions.jsonl"), str(directory / "dataset.jsonl")
