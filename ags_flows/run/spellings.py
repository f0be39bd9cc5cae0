"""The spellings of a secret: how programs print a value in JSON, URLs, source code, shells, HTML, base64 and hex."""

from __future__ import annotations

import base64
import html
import json
import quopri
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote_from_bytes, quote_plus

SHORTEST = 4
"""Characters of the shortest value that is masked: shorter ones occur by chance in ordinary output."""

ORDINARY = frozenset({"true", "false", "null", "none"})
"""Words that are never masked, although a Secret block can hold them."""

DEEPEST = 4
"""Levels of JSON texts in JSON texts that are searched for values."""

_ALPHABETS = (("+", "/"), ("-", "_"), ("%2B", "%2F"), ("%2b", "%2f"), ("+", "\\/"), ("&#43;", "/"))
"""Base64 and what becomes of it in URLs, in JSON of PHP, and in HTML of Go."""

_SHELL_SPECIAL = re.compile(r"([\s!\"$&'()*,;<>?\[\\\]^`{|}#~])")
_CONTROLS = {"\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r", "\x1b": "\\E"}


_ESCAPE = re.compile(
    r"(?<=\\x)[0-9a-f]{2}|(?<=\\u)[0-9a-f]{4}|(?<=\\U)[0-9a-f]{8}|(?<=&#x)[0-9a-f]+(?=;)|(?<=%)[0-9A-F]{2}"
)
"""Digits of escapes, which programs write in upper or in lower case."""

_ESCAPED_IN_JSON = ("", "<>&", "<>&='", "\"&'+<>`")
"""Characters for which Go, Gson and .NET write escapes in JSON, although JSON does not need them."""

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_PLAIN_IN_HTML = tuple(map(re.compile, (r"[A-Za-z0-9]", r"[A-Za-z0-9 ,.\-_]", r"[^&<>\"'/`=]")))
"""Characters that programs do not write as entities."""


def spellings(secret: str) -> set[str]:
    """Return every text that stands for a secret in output.

    Besides the whole value, these are its lines and, for a JSON text, the strings in it, each in all spellings.

    Args:
        secret: The value.
    """
    found = (spelling for value in _masked_values(secret) for spelling in _spell(value))
    return {spelling for spelling in found if len(spelling) >= SHORTEST}


def wrapped_spellings(secret: str) -> set[str]:
    """Return the base64 texts of a secret as a part of a longer text, in each alphabet."""
    cores = (text for value in _pieces(secret) for text in _base64_to_the_end(_bytes(value)))
    return {core.replace("+", plus).replace("/", slash) for core in cores for plus, slash in _ALPHABETS}


def hex_spellings(secret: str) -> set[str]:
    """Return the hex digits of a secret without separators, in lower case, in both orders of the bytes of a word."""
    return {digits for value in _pieces(secret) for digits in _hex(_bytes(value))}


def _pieces(secret: str) -> Iterator[str]:
    """Yield the values without long runs of spaces, whose encodings are in ordinary data too."""
    return (piece for value in _masked_values(secret) for piece in re.split(r"\s{4,}", value))


def _masked_values(secret: str) -> set[str]:
    """Return the value and what it consists of, without what is never masked."""
    values = set(_values(secret, DEEPEST))
    return {value for value in values if len(value) >= SHORTEST and value.lower() not in ORDINARY}


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _values(secret: str, depth: int) -> Iterator[str]:
    """Yield the value, its lines, and the strings of a JSON text with theirs."""
    for value in {secret, *secret.splitlines(), *re.split(r"[\r\n]", secret)}:
        yield value.strip()
        # A shell that expands a variable without quotes prints its words like this.
        yield " ".join(value.split())
    if depth and secret.lstrip()[:1] in ("{", "[", '"'):
        try:
            parsed = json.loads(secret)
        except (ValueError, RecursionError):
            return
        for text in _strings(parsed):
            yield from _values(text, depth - 1)


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _spell(value: str) -> Iterator[str]:
    for text in _spell_in_one_case(value):
        yield text
        yield _ESCAPE.sub(lambda found: found[0].swapcase(), text)


def _spell_in_one_case(value: str) -> Iterator[str]:
    data = _bytes(value)
    yield value
    yield from _json(value)
    yield from _url(data)
    yield from _source(value, data)
    yield from _shell(value, data)
    yield from _html(value)
    yield from _base64(data)
    yield data.hex()
    yield data.hex().upper()
    # Quoted-printable, as in mail.
    yield quopri.encodestring(data).decode().replace("=\n", "")


def _json(value: str) -> Iterator[str]:
    for ascii_only in (True, False):
        one, *others = (_json_text(value, ascii_only, escaped) for escaped in _ESCAPED_IN_JSON)
        yield from others
        yield one
        # PHP escapes slashes.
        yield one.replace("/", "\\/")
        # The text of a JSON string inside of another one, such as a log record in JSON.
        for _ in range(2):
            one = json.dumps(one, ensure_ascii=ascii_only)[1:-1]
            yield one


def _json_text(value: str, ascii_only: bool, escaped: str) -> str:
    return "".join(
        f"\\u{ord(one):04x}" if one in escaped else json.dumps(one, ensure_ascii=ascii_only)[1:-1] for one in value
    )


def _url(data: bytes) -> Iterator[str]:
    # RFC 3986, paths, and JavaScript's encodeURIComponent and encodeURI.
    quoted = [quote_from_bytes(data, safe) for safe in ("", "/", "!'()*", ";,/?:@&=+$!'()*#")]
    for text in (*quoted, quote_plus(data)):
        yield text
        # A URL in a parameter of another one.
        yield quote_plus(text)


def _source(value: str, data: bytes) -> Iterator[str]:
    for text in (repr(value), ascii(value)):
        yield text[1:-1]
        # Quotes of the other kind, such as in the repr of a text that has more than the secret.
        yield text[1:-1].replace("\\'", "'").replace("'", "\\'")
        yield text[1:-1].replace("\\'", "'")
    # SQL, YAML and CSV double a quote.
    yield value.replace("'", "''")
    yield value.replace('"', '""')
    yield repr(data)[2:-1]
    yield repr(data)[2:-1].replace("\\'", "'").replace("'", "\\'")
    # The repr of a text that has a repr, such as a log record of a command.
    yield re.sub(r"^\\?['\"]|\\?['\"]$", "", repr(repr(value))[1:-1])


def _shell(value: str, data: bytes) -> Iterator[str]:
    yield _SHELL_SPECIAL.sub(r"\\\1", value)
    yield re.sub(r"([\s!\"$&'()*,;<>?\[\\\]^`{|}])", r"\\\1", value)
    # Bash escapes these two only where they are special.
    yield re.sub(r"([\s!\"$&'()*,;<>?\[\\\]^`{|}]|^[#~]|(?<=[:=])~)", r"\\\1", value)
    yield value.replace("'", "'\\''")
    yield value.replace("'", "'\"'\"'")
    # A quoted command in a quoted command, such as in the trace of `bash -c`.
    for inner in (value.replace("'", "'\\''"), value.replace("'", "'\"'\"'")):
        yield inner.replace("'", "'\\''")
        yield inner.replace("'", "'\"'\"'")
        yield re.sub(r"([\"\\$`])", r"\\\1", inner)
    # Double quotes of `export -p` and `declare -p`.
    yield re.sub(r"([\"\\$`])", r"\\\1", value)
    yield "".join(_ansi_c(character) for character in value)
    yield "".join(_ansi_c(chr(byte)) if byte < 128 else f"\\{byte:03o}" for byte in data)


def _ansi_c(character: str) -> str:
    r"""Return a character as in bash's `$'...'`."""
    if character in "\\'":
        return f"\\{character}"
    if character in _CONTROLS:
        return _CONTROLS[character]
    return f"\\{ord(character):03o}" if ord(character) < 32 or ord(character) == 127 else character


def _html(value: str) -> Iterator[str]:
    text = html.escape(value, quote=False)
    yield text
    yield text.encode("ascii", "xmlcharrefreplace").decode()
    for quote in ("&quot;", "&#34;"):
        for apostrophe in ("&#x27;", "&#39;", "&apos;"):
            quoted = text.replace('"', quote).replace("'", apostrophe)
            yield quoted
            yield quoted.encode("ascii", "xmlcharrefreplace").decode()
    for plain in _PLAIN_IN_HTML:
        for form in ("&#{};", "&#x{:x};"):
            for named in (_ENTITIES, {}):
                yield "".join(one if plain.match(one) else named.get(one) or form.format(ord(one)) for one in value)


def _base64(data: bytes) -> Iterator[str]:
    whole = base64.b64encode(data).decode()
    yield from _with_both_alphabets([whole, whole.rstrip("=")])
    # In a URL.
    yield quote_plus(whole)
    yield from _with_both_alphabets(_base64_to_the_end(data))


def _base64_cores(data: bytes) -> Iterator[str]:
    """Return the characters that depend on the data alone, for each number of bytes before it."""
    return (_base64_inside(data, before) for before in range(3))


def _base64_to_the_end(data: bytes) -> Iterator[str]:
    """Return the cores, and the same where the data is the end of the longer text."""
    yield from _base64_cores(data)
    for before in range(3):
        padded = base64.b64encode(b"\0" * before + data).decode()[(0, 2, 3)[before] :]
        yield padded
        yield padded.rstrip("=")


def _hex(data: bytes) -> Iterator[str]:
    yield data.hex()
    # As `od -x` and `hexdump` print it, where the data begins at the first or at the second byte of a word.
    for words in (data, data[1:]):
        yield b"".join(words[at : at + 2][::-1] for at in range(0, len(words) - 1, 2)).hex()


def _with_both_alphabets(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield text
        yield text.replace("+", "-").replace("/", "_")


def _base64_inside(data: bytes, before: int) -> str:
    """Return the characters that depend on the data alone where base64 has other bytes before and after it.

    Args:
        data: The data.
        before: Bytes before it, modulo 3.
    """
    text = base64.b64encode(b"\0" * before + data).decode()
    return text[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]


def spell_all(secrets: Iterable[str]) -> set[str]:
    """Return the spellings of several secrets."""
    return {spelling for secret in secrets for spelling in spellings(secret)}
