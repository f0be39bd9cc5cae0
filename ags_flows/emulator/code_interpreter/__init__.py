"""What listens on port 49999 of a sandbox: code in many languages, on real Jupyter kernels inside of it."""

from ags_flows.emulator.code_interpreter.interpreter import CodeInterpreter
from ags_flows.emulator.code_interpreter.places import interpreter_binds, prefect_binds

__all__ = ["CodeInterpreter", "interpreter_binds", "prefect_binds"]
