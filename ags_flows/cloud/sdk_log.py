"""The log of the `tencentcloud` SDK, which at DEBUG has whole requests and answers: here without secrets."""

from __future__ import annotations

import logging
import re

_FIELD = re.compile(
    r"""(["']?\b(?:Token|TrafficToken|APIKey|TmpSecretKey|SecretKey|X-TC-Token)["']?\s*:\s*)["']?[^"',\s}]+["']?"""
)


class _WithoutSecrets(logging.Filter):
    """Masks the values of fields that open something. ClientToken and NextToken open nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; let all pass."""
        record.msg, record.args = _FIELD.sub(r'\1"***"', record.getMessage()), ()
        return True


_FILTER = _WithoutSecrets()


def mask_secrets() -> None:
    """Keep secrets out of the SDK's log, whoever listens to it."""
    logging.getLogger("tencentcloud_sdk_common").addFilter(_FILTER)
