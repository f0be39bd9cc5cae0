r"""For tests of flows: an emulator of AGS with real processes, and a configuration for it.

The fixtures are there as soon as the package is installed with its extra `emulator`:

```python
from ags_flows.flows import provision_and_run
from ags_flows.models import ToolSpec


def test_the_report_is_written(ags_config, tmp_path):
    report = provision_and_run.fn(
        "echo done > report.txt",
        tool=ToolSpec(name="report", image="python:3.11"),
        downloads={"report.txt": str(tmp_path / "report.txt")},
        config=ags_config,
    )
    assert report.result.exit_code == 0
    assert (tmp_path / "report.txt").read_text() == "done\n"
```

Outside of pytest the same are context managers: `with running_emulator() as emulator: config_for(emulator)`.
"""

from ags_flows.testing.emulators import config_for, running_emulator

__all__ = ["config_for", "running_emulator"]

try:
    from ags_flows.testing.fixtures import (
        ags_config,
        ags_emulator,
        ags_emulator_options,
        ags_emulator_process,
    )
except ModuleNotFoundError as error:
    if error.name != "pytest":
        raise
else:
    __all__ += ["ags_config", "ags_emulator", "ags_emulator_options", "ags_emulator_process"]
