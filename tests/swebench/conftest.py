"""Small Python projects with one bug each, as instances of SWE-bench, and an emulator that has their images."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ags_flows.emulator.sandbox import isolation
from ags_flows.flows import swebench_evaluate
from ags_flows.models import ToolSpec
from ags_flows.swebench.predictions import Prediction
from ags_flows.testing import config_for, running_emulator

SCRIPT = """\
#!/bin/bash
set -uxo pipefail
cd /testbed
git config --global --add safe.directory /testbed
git apply -v - <<'EOF_114329324912'
{test_patch}EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest -v test_{module}
: '>>>>> End Test Output'
git checkout -- . ; git clean -fdq
"""

GIT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "PATH": os.environ["PATH"],
}


def git(directory, *arguments):
    done = subprocess.run(["git", *arguments], cwd=directory, env=GIT, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def predicted():
    """Return a function that creates a prediction for a patch."""
    return lambda instance_id, patch: Prediction(instance_id, patch, "team/model", "").official()


@pytest.fixture
def changed():
    """Return a function that replaces text and fails if it does not occur."""

    def changed(text, before, after):
        assert before in text
        return text.replace(before, after)

    return changed


@pytest.fixture
def tool():
    """The tool whose instances are started with other images."""
    return ToolSpec(name="swebench-v1", type="swebench", image="swebench/base:1", image_registry_type="system")


def patch_of(directory, file, text):
    """Return the diff that sets the content of a file, and restore the file."""
    (directory / file).write_text(text)
    git(directory, "add", "-AN")
    diff = git(directory, "diff")
    git(directory, "checkout", "--", ".")
    git(directory, "reset", "-q", "--hard")
    git(directory, "clean", "-fdq")
    return diff


PROJECTS = {
    # module: code with the bug, fixed code, tests that fail before the fix, tests that pass before and after it.
    "calc": (
        "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return 2 * a\n",
        "def add(a, b):\n    return a + b\n\n\ndef double(a):\n    return 2 * a\n",
        {"test_add": "self.assertEqual(calc.add(2, 2), 4)"},
        {"test_double": "self.assertEqual(calc.double(4), 8)"},
    ),
    "words": (
        "def words(text):\n    return text.split(' ')\n\n\ndef shout(text):\n    return text.upper()\n",
        "def words(text):\n    return text.split()\n\n\ndef shout(text):\n    return text.upper()\n",
        {"test_words": "self.assertEqual(words.words('a  b'), ['a', 'b'])"},
        {"test_shout": "self.assertEqual(words.shout('a'), 'A')"},
    ),
}


@pytest.fixture(scope="session")
def projects(tmp_path_factory):
    """Create images: their folder, the instances, and the directory of each project."""
    images = tmp_path_factory.mktemp("volumes") / "images"
    instances, places = {}, {}
    for module, (bug, fix, failing, passing) in PROJECTS.items():
        name = f"demo__{module}-1"
        image = f"swebench/sweb.eval.x86_64.demo_1776_{module}-1:latest"
        directory = images / image.replace("/", "_").replace(":", "_") / "testbed"
        directory.mkdir(parents=True)
        (directory / f"{module}.py").write_text(bug)
        git(directory, "init", "-q")
        git(directory, "add", "-A")
        git(directory, "commit", "-qm", "begin")
        tests = {**failing, **passing}
        body = "".join(f"    def {test}(self):\n        {line}\n\n" for test, line in tests.items())
        test_file = f"import unittest\n\nimport {module}\n\n\nclass Test(unittest.TestCase):\n{body}"
        test_patch = patch_of(directory, f"test_{module}.py", test_file.rstrip() + "\n")
        instances[name] = {
            "instance_id": name,
            "repo": f"demo/{module}",
            "version": "1",
            "image": image,
            "base_commit": git(directory, "rev-parse", "HEAD").strip(),
            "patch": patch_of(directory, f"{module}.py", fix),
            "test_patch": test_patch,
            "FAIL_TO_PASS": json.dumps([f"{test} (test_{module}.Test.{test})" for test in failing]),
            "PASS_TO_PASS": json.dumps([f"{test} (test_{module}.Test.{test})" for test in passing]),
            "log_parser": "parse_log_django",
            "eval_type": "pass_and_fail",
            "eval_script": SCRIPT.format(test_patch=test_patch, module=module),
        }
        places[name] = directory
    return images, instances, places


@pytest.fixture(scope="session")
def machines(projects):
    """An emulator that has the images."""
    images, _, _ = projects
    if isolation().bwrap is None or not shutil.which("git"):
        pytest.skip("an image's files need bubblewrap, and the projects need git")
    with running_emulator(volumes=images.parent) as emulator:
        yield emulator


@pytest.fixture
def account(machines):
    """A configuration for the emulator."""
    return config_for(machines)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes JSON Lines."""

    def written(name, records):
        path = Path(tmp_path, name)
        path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in records))
        return str(path)

    return written


@pytest.fixture
def evaluate_all(account, tool, tmp_path):
    """The flow with the arguments that all tests share; `.fn` calls it without a flow run."""

    def bound(function):
        def evaluated(predictions, dataset, **options):
            defaults = {"tool": tool, "results": str(tmp_path / "results"), "timeout": 60, "sandboxes": 4}
            return function(predictions, dataset, config=account, **{**defaults, **options})

        return evaluated

    evaluated = bound(swebench_evaluate)
    evaluated.fn = bound(swebench_evaluate.fn)
    return evaluated
