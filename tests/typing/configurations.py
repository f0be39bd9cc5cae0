"""What type checkers know of `config`: a block, or the name of a saved one. `make types` checks this file.

A wrong use is marked by the error that it has: mypy also reports a mark without an error.
"""

from ags_flows import AGSConfig, in_sandbox, sandbox_session
from ags_flows.tasks import exec_command, list_instances, run_code

for config in (AGSConfig(), "production", None):
    list_instances(config=config)
    exec_command("instance", "ls", config=config)
    run_code("instance", "1 + 1", config=config)
    sandbox_session("base", config=config)

list_instances(config=5)  # type: ignore[call-overload]


@in_sandbox(tool="base", config="production")
def answer() -> int:
    """Return a number."""
    return 42
