"""One Linux sandbox: namespaces by bubblewrap, or a plain directory where there are none."""

from .isolation import Isolation, isolation
from .namespace import NamespaceSandbox
from .process import Process
from .spec import Bind, SandboxSpec, Usage

__all__ = ["Bind", "Isolation", "Process", "Sandbox", "SandboxSpec", "Usage", "isolation"]


class Sandbox(NamespaceSandbox):
    """A sandbox of this machine, as well isolated as it can be."""
