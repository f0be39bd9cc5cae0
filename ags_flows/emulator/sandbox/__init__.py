"""One Linux sandbox: namespaces by bubblewrap, or a plain directory where there are none."""

from .isolation import Isolation, isolation
from .process import Process
from .sandbox import Sandbox
from .spec import Bind, SandboxSpec, Usage

__all__ = ["Bind", "Isolation", "Process", "Sandbox", "SandboxSpec", "Usage", "isolation"]
