"""envd: processes and files of one sandbox, on the services that e2b's SDK is generated from."""

from .service import Access, Envd

__all__ = ["Access", "Envd"]
