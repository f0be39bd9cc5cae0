"""The Python of a sandbox: one that is too old, or that does not know the syntax of a function, is named."""

import re

import pytest

from ags_flows import in_sandbox
from ags_flows.errors import UnsupportedError

OLD = """\
import ast, builtins, sys
now = compile
def older(source, file, mode, flags=0, dont_inherit=False):
    if {version} < (3, 7) and "from __future__ import annotations" in source:
        raise SyntaxError("future feature annotations is not defined")
    if flags & ast.PyCF_ONLY_AST:
        return now(source, file, mode, flags, dont_inherit, _feature_version=8)
    return now(source, file, mode, flags, dont_inherit)
builtins.compile = older
sys.version_info = {version}
text, sys.argv = sys.argv[1], ["-c"] + sys.argv[2:]
exec(older(text, "-c", "exec"), {{"__name__": "__main__"}})
"""


SHIM = """\
#!/bin/sh
[ "$1" != -u ] || shift
shift
exec /usr/bin/python3 -u "$HOME/bin/old.py" "$@"
"""


@pytest.fixture
def old_python(session):
    """Put a Python in the front of the sandbox's path that takes itself for an older one."""
    forget_runner = "rm -rf .ags_flows/*/runner"

    def put(version):
        session.write("bin/old.py", OLD.format(version=version))
        session.write("bin/python3", SHIM)
        session.run("chmod +x bin/python3; echo 'PATH=$HOME/bin:$PATH' > .bash_profile", check=True)
        session.run(forget_runner, check=True)

    yield put
    session.run(f"rm -rf bin .bash_profile; {forget_runner}", check=True)


def matching(value):
    match value:
        case 1:
            return "one"
    return "other"


def test_syntax_that_the_sandbox_does_not_know_is_named_with_line_and_both_versions(session, old_python):
    old_python((3, 8, 10))
    with pytest.raises(UnsupportedError) as caught:
        session.call(matching, 1)
    found = re.search(r"Python 3\.8\.10 does not know the syntax of line (\d+) of (\S+) ", str(caught.value))
    first = matching.__code__.co_firstlineno
    assert found and first < int(found[1]) <= first + 4 and found[2] == __file__
    assert "this process has Python 3." in str(caught.value)


@pytest.mark.parametrize("version", [(3, 7, 3), (3, 6, 15), (2, 7, 18)], ids=str)
def test_a_python_that_is_too_old_is_named(session, old_python, version):
    old_python(version)
    shown = ".".join(map(str, version))
    with pytest.raises(UnsupportedError, match=f"the sandbox has Python {shown}.") as caught:
        session.call(matching, 1)
    assert "Python 3.8 or later" in str(caught.value)
    with pytest.raises(UnsupportedError, match=f"the sandbox has Python {shown}."):
        session.call(in_sandbox(packages=["anything"])(matching), 1)


def test_an_image_without_python_is_named(session):
    session.run("echo 'command() { return 1; }' > .bash_profile; rm -rf .ags_flows/*/runner", check=True)
    try:
        with pytest.raises(UnsupportedError, match="image has no Python"):
            session.call(matching, 1)
    finally:
        session.run("rm -r .bash_profile .ags_flows/*/runner", check=True)


def test_a_python_that_does_not_start_is_reported_with_its_reason(session, old_python):
    old_python((3, 8, 10))
    session.write("bin/python3", "#!/bin/sh\necho 'python3: error while loading shared libraries' >&2\nexit 127\n")
    session.run("chmod +x bin/python3", check=True)
    with pytest.raises(UnsupportedError, match=r"packages: the sandbox's Python does not start:\npython3: error while"):
        session.call(in_sandbox(packages=["ags-demo-package==1.2"])(matching), 1)
