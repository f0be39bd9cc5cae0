"""envd: processes and files of one sandbox, on the services that e2b's SDK is generated from."""

from .service import Envd

__all__ = ["Envd"]
