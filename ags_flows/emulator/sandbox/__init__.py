"""One Linux sandbox: namespaces by bubblewrap, or a plain directory where there are none."""

from ags_flows.emulator.sandbox.isolation import Isolation, isolation
from ags_flows.emulator.sandbox.process import Process
from ags_flows.emulator.sandbox.sandbox import Sandbox
from ags_flows.emulator.sandbox.spec import Bind, SandboxSpec, Usage

__all__ = ["Bind", "Isolation", "Process", "Sandbox", "SandboxSpec", "Usage", "isolation"]
