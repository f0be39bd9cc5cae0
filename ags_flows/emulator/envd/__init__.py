"""envd: processes and files of one sandbox, on the services that e2b's SDK is generated from."""

from ags_flows.emulator.envd.service import Envd

__all__ = ["Envd"]
