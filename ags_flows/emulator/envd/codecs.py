"""How messages are read: like envd, ignore unknown fields, and report invalid messages as the caller's error."""

from __future__ import annotations

from typing import Any

from connectrpc.code import Code
from connectrpc.codec import Codec, proto_binary_codec
from connectrpc.errors import ConnectError


class CheckedCodec:
    """A codec that reports invalid data as invalid_argument. Without it, the caller would get an internal error."""

    def __init__(self, codec: Codec[Any, Any]) -> None:
        self._codec = codec

    def name(self) -> str:
        """Return its name in content types."""
        return self._codec.name()

    def encode(self, message: Any) -> bytes:
        """Return a message's bytes."""
        return self._codec.encode(message)

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        """Return the message.

        Raises:
            ConnectError: invalid_argument, if the data is not such a message.
        """
        try:
            return self._codec.decode(data, message_class)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ConnectError(Code.INVALID_ARGUMENT, f"unmarshal message: {error}") from error


class LenientJson:
    """JSON whose unknown fields are ignored, also with versions of connectrpc that refuse them."""

    def name(self) -> str:
        """Return its name in content types."""
        return "json"

    def encode(self, message: Any) -> bytes:
        """Return a message's bytes."""
        return str(message.to_json()).encode()

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        """Return the message."""
        return message_class.from_json(data, ignore_unknown_fields=True)


def codecs() -> list[CheckedCodec]:
    """Return the codecs that envd speaks."""
    return [CheckedCodec(LenientJson()), CheckedCodec(proto_binary_codec())]
