"""Secrets whose characters are escaped in any mixture, also inside of each other, wrapped at any width."""

import base64
import csv
import html
import io
import json
import pprint
import quopri
import re
import textwrap
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ags_flows.run.plain import cover, each
from ags_flows.run.redaction import MASK, Redactor

LETTERS = "QZXJKVW579<>%&+=$!#~:/ßé密钥😀"
values = st.text(LETTERS + "\"'\\ ", min_size=8, max_size=40).map(str.strip)
# Four characters that no program escapes make a value long enough, and that it does not end in an escape.
secrets = values.map(lambda text: f"ZX{text}KW").filter(lambda text: not re.search(r"\s{2}", text))


def in_bytes(form):
    return lambda one: "".join(form.format(byte) for byte in one.encode())


def in_utf16(form):
    data = str.encode
    return lambda one: "".join(
        form.format(int.from_bytes(data(one, "utf-16-be")[at : at + 2], "big"))
        for at in range(0, len(data(one, "utf-16-be")), 2)
    )


ESCAPES = {
    "none": str,
    "URL": in_bytes("%{:02X}"),
    "URL in lower case": in_bytes("%{:02x}"),
    "escape() of JavaScript": in_utf16("%u{:04X}"),
    "JSON": in_utf16("\\u{:04x}"),
    "JSON in capitals": in_utf16("\\u{:04X}"),
    "Python": lambda one: f"\\U{ord(one):08x}",
    "bytes of Python": in_bytes("\\x{:02x}"),
    "braces": lambda one: f"\\u{{{ord(one):x}}}",
    "Perl": lambda one: f"\\x{{{ord(one):X}}}",
    "octal": in_bytes("\\{:03o}"),
    "decimal entity": lambda one: f"&#{ord(one)};",
    "entity": lambda one: f"&#x{ord(one):x};",
    "entity in capitals": lambda one: f"&#X{ord(one):X};",
    "named entity": html.escape,
}
NESTED = {
    "JSON": json.dumps,
    "JSON with all characters": lambda text: json.dumps(text, ensure_ascii=False),
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": lambda text: repr(text.encode()),
    "URL": lambda text: quote(text, safe=""),
    "URL of SQLAlchemy": lambda text: quote(text, safe=" +"),
    "URL query": quote_plus,
    "HTML": html.escape,
    "HTML in ASCII": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    "Python escapes": lambda text: text.encode("unicode_escape").decode(),
}


@given(secrets, st.lists(st.sampled_from(sorted(ESCAPES)), min_size=1, max_size=8))
def test_any_mixture_of_escapes_of_characters_is_masked(secret, kinds):
    spelled = "".join(ESCAPES[kinds[at % len(kinds)]](one) for at, one in enumerate(secret))
    assert Redactor([secret]).text(f"is {spelled} so") == f"is {MASK} so"


@given(secrets, st.text("/:@?#[]!$&'()*+,;= ", max_size=10))
def test_a_url_with_any_characters_that_are_safe_is_masked(secret, safe):
    text = f"postgresql://u:{quote(secret, safe=safe)}@h/db"
    assert Redactor([secret]).text(text) == f"postgresql://u:{MASK}@h/db"


@given(secrets, st.lists(st.sampled_from(sorted(NESTED)), min_size=1, max_size=3))
def test_spellings_of_spellings_are_masked(secret, kinds):
    text = f"is {secret} so"
    for kind in kinds:
        text = NESTED[kind](text)
    shown = Redactor([secret]).text(text)
    assert MASK in shown and not re.search("[QZXJKVW579]{2}", shown.replace("5C", "").replace("27", ""))


@given(secrets, st.sampled_from(sorted(NESTED)))
def test_base64_of_any_spelling_is_masked(secret, kind):
    text = json.dumps({"password": NESTED[kind](secret), "user": "me"})
    for data in (text.encode(), text.encode("utf-16-le"), base64.b64encode(text.encode())):
        if kind != "JSON with all characters":
            shown = Redactor([secret]).text(f"auth: {base64.b64encode(data).decode()} ok")
            assert MASK in shown and len(shown) < len(base64.b64encode(data)) + 9


words = st.lists(st.text("QZXJKVW579:$/", min_size=1, max_size=9), min_size=4, max_size=12).map(" ".join)
PRINTED = {
    "pprint": lambda text, width: pprint.pformat({"password": text, "z": 1}, width=width),
    "textwrap": textwrap.fill,
    "indented": lambda text, width: textwrap.indent(textwrap.fill(text, width), "        "),
    "YAML": lambda text, width: (
        "key: >-\n  " + textwrap.fill(text, width, break_on_hyphens=False).replace("\n", "\n  ")
    ),
    "quoted-printable": lambda text, width: quopri.encodestring(text.encode()).decode(),
}


@pytest.mark.parametrize("printed", PRINTED.values(), ids=PRINTED)
@given(secret=words.filter(lambda text: len(text.replace(" ", "")) >= 12), width=st.integers(12, 60))
def test_a_value_with_blanks_is_masked_wherever_it_is_wrapped(printed, secret, width):
    shown = Redactor([secret]).text(printed(secret, width))
    assert MASK in shown and not re.search("[QZXJKVW579]{2}", shown)


def test_kinds_of_programs_are_masked():
    secret = 'it\'s "a" pass/word+with=chars@home<é>'
    table = io.StringIO()
    csv.writer(table).writerow(["key", secret])
    spelled = [
        table.getvalue().strip().removeprefix("key,"),
        secret.replace("'", "''"),
        secret.replace("'", "'\\''"),
        "$'" + secret.replace("'", "\\'").replace("é", "\\303\\251") + "'",
        json.dumps(html.escape(secret)),
        html.escape(json.dumps(secret)),
        quote(quote(secret)),
        json.dumps({"k": json.dumps({"k": secret})}),
    ]
    for text in spelled:
        shown = Redactor([secret]).text(text)
        assert MASK in shown and "pass" not in shown and "home" not in shown


names = st.sampled_from(["word", "QZ", "Ab1", "amp", "quot", "notit", "copyright", "nothing", "#38", "#9999999", "#xQ"])
with_references = st.lists(names.map("K&{};".format), min_size=1, max_size=3).map(lambda parts: f"ZX{''.join(parts)}KW")


@given(with_references, st.sampled_from(["", "JSON", "repr", "HTML"]), st.integers(1, 3), st.booleans())
def test_what_looks_like_an_entity_is_masked_in_html(secret, kind, times, ends):
    text = f'"{secret}";' if ends else secret
    text = NESTED[kind](text) if kind else text
    for _ in range(times):
        text = html.escape(text)
    shown = Redactor([secret]).text(f"is {text} so")
    assert MASK in shown and not re.search("K&|ZX|KW|;K", shown)


@given(secrets, st.lists(st.sampled_from(sorted(ESCAPES)), min_size=1, max_size=8), st.lists(st.integers(0, 400)))
@example("ZX5555%555555555555555KW", ["named entity", "JSON"], [26])
def test_an_escaped_value_does_not_leave_a_stream(secret, kinds, cuts):
    spelled = "".join(ESCAPES[kinds[at % len(kinds)]](one) for at, one in enumerate(secret))
    text = f"is {spelled} so"
    edges = sorted({0, len(text), *(cut % len(text) for cut in cuts)})
    stream = Redactor([secret]).stream()
    shown = "".join(stream.feed(text[a:b]) for a, b in zip(edges, edges[1:], strict=False)) + stream.close()
    assert shown == f"is {MASK} so"


@pytest.mark.parametrize("short", ["p@ss/w", 'it"s me', "a b c"])
def test_parts_of_short_values_with_other_blanks_are_ordinary_words(short):
    assert Redactor(["compass", "a note"]).text("com pass, an ote, anote") == "com pass, an ote, anote"
    assert MASK in Redactor([short]).text(json.dumps(short))


@pytest.mark.parametrize("unit", ["\\", "%25", "&amp;", "&", "%", "=", "'", " ", "a", "a ", "\n", "\\u00", "%41", "é"])
def test_the_time_grows_with_the_length_alone(unit):
    redactor = Redactor(["a%41 aaaa'\\aaé aaaaaa", "abcd efgh ijkl mnop"])

    def seconds(length):
        started = time.process_time()
        redactor.text(unit * (length // len(unit)))
        return time.process_time() - started

    seconds(1_000)
    assert seconds(200_000) < 40 * seconds(20_000) + 1


@given(st.text("ab", min_size=1, max_size=5), st.text("ab", max_size=40))
def test_places_that_overlap_are_covered_by_a_few_of_them(form, text):
    few, all_of_them = ({at for span in found(form, text) for at in range(*span)} for found in (cover, each))
    assert few == all_of_them
