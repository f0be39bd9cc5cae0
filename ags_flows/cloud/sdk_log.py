"""The log of the `tencentcloud` SDK without secrets: at DEBUG it contains whole requests and responses."""

from __future__ import annotations

import logging
import re

_FIELD = re.compile(
    r"""(["']?\b(?:Token|TrafficToken|APIKey|TmpSecretKey|SecretKey|X-TC-Token)["']?\s*:\s*)["']?[^"',\s}]+["']?"""
)


class _WithoutSecrets(logging.Filter):
    """Masks the values of secret fields. ClientToken and NextToken are not secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; let all pass."""
        record.msg, record.args = _FIELD.sub(r'\1"***"', record.getMessage()), ()
        return True


_FILTER = _WithoutSecrets()


def mask_secrets() -> None:
    """Keep secrets out of the SDK's log, for every handler."""
    logging.getLogger("tencentcloud_sdk_common").addFilter(_FILTER)
