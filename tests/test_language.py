"""Prose is plain technical English: the words of the table in CONTRIBUTING.md do not occur in it.

Every file of the repository is checked. Prose is docstrings, comments, names of tests, string constants with a space
(errors, log lines, help texts), YAML, and Markdown without its code. Code in backticks is not prose.
"""

import ast
import io
import json
import os
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TABLE = [
    # What CONTRIBUTING.md lists, what to use instead, and the pattern, which also has the other forms of a word.
    ("tell, told, say", "log, emit, raise, return, report, print", r"tell|tells|telling|told|say|says|said|saying"),
    (
        "who, whoever, nobody, somebody",
        "the caller, the process, the client, the user; orphaned",
        r"who|whom|whoever|nobody|somebody|anybody",
    ),
    ("anew, once more", "again", r"anew|once more"),
    # "There is no file" is plain English; "a time-out is no failure" is not.
    ("is none, is no X", "is not an X; is ignored", r"(?<!there\s)(?:is|are|was|were) (?-i:none|no)(?! longer)"),
    ("at once", "immediately; concurrently", r"at once"),
    # The noun alone: "left to its lease" and "leave the file" are plain English.
    (
        "leave, admission, lets in",
        "slot, permit",
        r"(?:a|the|its|no|each|every) leave|admissions?|let(?:s|ting)? in"
        r"|let(?:s|ting)? (?:it|them|one|(?:no|a|the) \w+) in(?! (?:a|an|the|its|this|each|one)\b)",
    ),
    ("of its own", "dedicated, separate", r"of (?:its|their|your|our|my) own"),
    ("in words", "as text", r"in words"),
    ("as it comes", "streamed", r"as (?:it comes|they come)"),
    ("mend", "fix", r"mend(?:s|ed|ing)?"),
    ("address (of a server)", "URL; of a network: IP address", r"(?<!ip\s)(?<!ipv4\s)(?<!ipv6\s)address(?:es)?"),
    ("answer, refusal", "response, error response", r"answer(?:s|ed|ing)?|refusals?"),
    ("place (for results)", "location, path", r"places? for"),
    ("news", "event, update", r"news"),
    # The identity of an account is a term of the cloud; that of a step is not ours.
    ("identity (of a step)", "idempotency key, step key", r"(?<!cam\s)(?<!caller\s)identit(?:y|ies)"),
    ("the end of it, by itself", "is stopped, expires", r"the end of it|by (?:itself|themselves)"),
    ("how-manieth, meanwhile, as far as", "write it directly", r"how-manieth|meanwhile|as far as"),
]

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""A path and words from its prose, to the reason why they stay."""

# A phrase may continue on the next line.
_PATTERN = re.compile(
    "|".join(rf"(?P<row{number}>\b(?:{row[2]})\b)".replace(" ", r"\s+") for number, row in enumerate(TABLE)),
    re.IGNORECASE,
)
_CODE = re.compile(
    r"^( *)(```|~~~).*?^\1\2|(`{1,2})[^`\n]+(?:\n[^`\n]+)?\3|\]\([^)\s]*\)|https?://\S+", re.MULTILINE | re.DOTALL
)
_ARGUMENT = re.compile(r"^ +\w+(?=: )", re.MULTILINE)
_BETWEEN_WORDS = re.compile(r"[\s#_\\\"']+(?:[fr]{1,2}[\"'])?", re.IGNORECASE)


def files() -> list[Path]:
    """Return every file of the repository, those of a new directory too, without hidden ones and what is installed."""
    found = [*ROOT.glob(".ci/*")]
    for directory, subdirectories, names in os.walk(ROOT):
        subdirectories[:] = [name for name in subdirectories if is_ours(Path(directory, name))]
        found += [Path(directory, name) for name in names if not name.startswith(".")]
    # This file has the words, and samples of them.
    return sorted(path for path in found if path != Path(__file__))


def is_ours(directory: Path) -> bool:
    built = directory.name in ("__pycache__", "node_modules", "build", "dist") or directory.name.endswith("-info")
    return not built and not directory.name.startswith(".") and not (directory / "pyvenv.cfg").exists()


def without_code(text: str) -> str:
    """Return text without code and names of arguments, with its line breaks, so that line numbers stay correct."""
    return _ARGUMENT.sub("", _CODE.sub(lambda found: "\n" * found.group().count("\n") or "`", text))


class Strings(ast.NodeVisitor):
    """Collects docstrings, string constants with a space, and names of tests, with their lines."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and " " in node.value.strip():
            self.found.append((node.lineno, node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
        if " " in "".join(parts).strip():
            self.found.append((node.lineno, "".join(parts)))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name.startswith("test_"):
            self.found.append((node.lineno, node.name.replace("_", " ")))
        self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]


def comments(source: str, mark: str = "#") -> Iterator[tuple[int, str]]:
    """Yield the lines of a source that are comments, those in a row as one piece."""
    for block in re.finditer(rf"(?:^[ \t]*{mark}(?!!).*\n?)+", source, re.MULTILINE):
        yield (
            source.count("\n", 0, block.start()) + 1,
            re.sub(rf"^[ \t]*{mark}+", "", block.group(), flags=re.MULTILINE),
        )


def prose_of_python(source: str) -> Iterator[tuple[int, str]]:
    strings = Strings()
    strings.visit(ast.parse(source))
    yield from strings.found
    pieces: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("#!"):
            if pieces and pieces[-1][0] + pieces[-1][1].count("\n") + 1 == token.start[0]:
                # A sentence over several lines is one piece.
                pieces[-1] = (pieces[-1][0], f"{pieces[-1][1]}\n{token.string.lstrip('# ')}")
            else:
                pieces.append((token.start[0], token.string.lstrip("# ")))
    yield from pieces


def prose_of_notebook(source: str) -> Iterator[tuple[int, str]]:
    """Yield the prose of a notebook, each piece with the number of its cell."""
    for number, cell in enumerate(json.loads(source)["cells"], start=1):
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            yield from ((number, piece) for _, piece in prose_of_python(text))
        else:
            yield number, text


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each piece of prose in a file, with its first line."""
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    if path.suffix in (".md", ".yaml"):
        yield 1, source
    elif path.suffix == ".py":
        yield from prose_of_python(source)
    elif path.suffix == ".ipynb":
        yield from prose_of_notebook(source)
    else:
        yield from comments(source, "//" if path.suffix == ".mjs" else "#")


def hits(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield line, word, what to use instead, and the words around it."""
    if not _PATTERN.search(_BETWEEN_WORDS.sub(" ", path.read_text(encoding="utf-8", errors="replace"))):
        # No word of the table, not even in the code. This saves parsing most files.
        return
    for line, text in prose(path):
        text = without_code(text)
        for found in _PATTERN.finditer(text):
            use = TABLE[int(str(found.lastgroup)[3:])][1]
            around = " ".join(text[max(0, found.start() - 60) : found.end() + 60].split())
            yield line + text.count("\n", 0, found.start()), " ".join(found.group().split()), use, around


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_has_no_word_of_the_table(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    wrong, needless = [], {words for file, words in EXCEPTIONS if file == name}
    for line, word, use, around in hits(path):
        allowed = {words for file, words in EXCEPTIONS if file == name and words in around}
        needless -= allowed
        if not allowed:
            wrong.append(f"{name}:{line}: {word!r}: use {use}. In: ...{around}...")
    assert not wrong, "\n".join(wrong)
    assert not needless, f"remove exceptions that are not needed: {needless}"


def test_exceptions_are_for_files_that_are_checked() -> None:
    assert {file for file, _ in EXCEPTIONS} <= {str(path.relative_to(ROOT)) for path in files()}


@pytest.mark.parametrize(
    ("suffix", "text", "word"),
    [
        (".py", '"""Return what the server told."""', "told"),
        (".py", '"""Send it\n\n    once\n    more."""', "once more"),
        (".py", "x = 1  # tells it\n", "tells"),
        (".py", "# Send it once\n# more.\n", "once more"),
        (".py", 'raise ValueError(f"{name} is no tool")', "is no"),
        (".py", 'raise ValueError("It runs at "\n "once.")', "at once"),
        (".py", 'log.info(f"{x}: " f"Sent " f"anew.")', "anew"),
        (".py", "async def test_nobody_waits(): pass", "nobody"),
        (".py", '"""A single ` does not hide that\n\n    it is told; nor does another `."""', "told"),
        (".md", "# Title\n\nThe answer.\n", "answer"),
        (".py", '"""Return None if it is None. There is no tool. It is left to its lease; leave it."""', None),
        (".py", '"""Run `who`.\n\n    Args:\n        answer: An IP address.\n    """', None),
        (".py", "answer = told(who)\n", None),
        (".md", "Run `who`.\n\n```sh\nwho\n```\n", None),
        (".yaml", "# One for each place.\ndescription: Says why.\n", "Says"),
        (".ipynb", '{"cells": [{"cell_type": "markdown", "source": ["It is\\n", "told."]}]}', "told"),
        (".ipynb", '{"cells": [{"cell_type": "code", "source": ["told = 1  # News\\n"]}]}', "News"),
        (".mjs", "const told = 1\n// Send it\n// anew.\n", "anew"),
        ("", "#!/bin/sh\n# Runs it\n# by itself.\necho who\n", "by itself"),
    ],
)
def test_words_are_found_in_prose_and_not_in_code(tmp_path: Path, suffix: str, text: str, word: str | None) -> None:
    path = tmp_path / f"sample{suffix}"
    path.write_text(text, encoding="utf-8")
    assert [found for _, found, _, _ in hits(path)] == ([word] if word else [])


def test_contributing_has_the_table() -> None:
    rows = re.findall(r"^\| `(.+)` \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(words, use) for words, use, _ in TABLE]
