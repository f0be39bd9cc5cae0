"""Masking: every spelling, every cut, every kind of value."""

import base64
import html
import json
import quopri
import re
import shlex
import string
import subprocess
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ags_flows.cloud.head_and_tail import HeadAndTail
from ags_flows.errors import CommandTimeoutError
from ags_flows.models import ExecResult
from ags_flows.run.redaction import LONGEST_TOKEN, MASK, Redactor

SECRET = "s3cret/With+Odd=Chars&more"
TOKEN = "sit_abcdefgh12345678"

# Ordinary output of these tests has none of these characters.
LETTERS = "QZXJKVW579"
ODD = "\"'\\/<>&%+= $`!#~:\téß密钥😀"
secrets = st.text(LETTERS + ODD, min_size=6, max_size=40).map(str.strip).filter(lambda text: is_long_enough(text, 6))


def is_long_enough(text, shortest):
    """Whether a value is masked in every spelling: quotes, backslashes, blanks and escapes do not count."""
    return len(text) >= shortest and len(re.sub(r"%[579]{2}|(%.?)+\Z|[\s\"'\\`+%&=#]", "", text)) >= 4


several_lines = st.lists(secrets, min_size=1, max_size=4).map("\n".join)
ordinary = st.text("abcdefg hi\n.", max_size=60)


def bash_quoted(text, locale="C.UTF-8"):
    done = subprocess.run(
        ["bash", "-c", 'printf %q "$1"', "bash", text], env={"LC_ALL": locale}, capture_output=True, check=True
    )
    return done.stdout.decode()


def in_capitals(spelled):
    """A spelling whose escapes and entities have hexadecimal digits in upper case."""
    return re.sub(r"(?<=\\u|\\x|#x)[0-9a-f]{2,}", lambda found: found[0][:4].upper() + found[0][4:], spelled)


def escaped(text, characters, form):
    """JSON of programs that escape more characters than needed."""
    return "".join(form.format(ord(one)) if one in characters else json.dumps(one)[1:-1] for one in text)


def in_entities(text, form, plain=str.isalnum):
    return "".join(one if one.isascii() and plain(one) else form.format(ord(one)) for one in text)


def in_base64(text, url_safe=False):
    return (base64.urlsafe_b64encode if url_safe else base64.b64encode)(text.encode()).decode()


SPELLINGS = {
    "raw": str,
    "JSON": json.dumps,
    "JSON with all characters": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in capitals": lambda text: in_capitals(json.dumps(text)),
    "JSON of .NET": lambda text: in_capitals(escaped(text, "\"&'+<>`", "\\u{:04x}")),
    "JSON of Gson": lambda text: escaped(text, "<>&='", "\\u{:04x}"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON of Go": lambda text: json.dumps(text).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
    "URL": lambda text: quote(text, safe=""),
    "URL path": quote,
    "URL query": quote_plus,
    "encodeURIComponent": lambda text: quote(text, safe="!'()*"),
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": lambda text: repr(text.encode()),
    "repr of bytes in capitals": lambda text: in_capitals(repr(text.encode())),
    "shlex": shlex.quote,
    "JSON in JSON in JSON": lambda text: json.dumps(json.dumps(json.dumps(text))),
    "URL in a URL": lambda text: quote_plus(quote(text, safe="")),
    "SQL": lambda text: "'" + text.replace("'", "''") + "'",
    "CSV": lambda text: '"' + text.replace('"', '""') + '"',
    "HTML": html.escape,
    "HTML with decimal entities": lambda text: in_entities(text, "&#{};"),
    "HTML with entities": lambda text: in_entities(text, "&#x{:x};"),
    "HTML with entities in capitals": lambda text: in_entities(text, "&#x{:X};"),
    "HTML of OWASP": lambda text: in_entities(text, "&#x{:x};", lambda one: one.isalnum() or one in " ,.-_"),
    "HTML in ASCII": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "hex": lambda text: text.encode().hex(),
    "shlex of shlex": lambda text: shlex.quote(shlex.quote(text)),
    "shlex in double quotes": lambda text: '"' + re.sub(r"([\"\\$`])", r"\\\1", shlex.quote(text)) + '"',
    "repr of repr": lambda text: repr(repr(text)),
    "base64 in a URL": lambda text: quote_plus(in_base64(text)),
    "quoted-printable": lambda text: quopri.encodestring(text.encode()).decode().replace("=\n", ""),
}


def parts(spelled):
    return {spelled[at : at + 4] for at in range(len(spelled) - 3)}


def without_quotes(spelled, empty):
    """A spelling without the quotes around it, which are those of the spelling of an empty text, or of Python."""
    half = (len(empty) + 1) // 2
    if empty and spelled[:half] != empty[:half]:
        return spelled.strip("b\\'\"")
    return spelled.removeprefix(empty[:half]).removesuffix(empty[half:])


def leaks(shown, spelled, around):
    """Parts of more than three characters of a spelling that are shown, other than what surrounds the secret."""
    return parts(spelled) & parts(shown.replace(MASK, "\0")) - parts(around)


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@given(secret=secrets, before=ordinary, after=ordinary)
def test_no_part_of_a_secret_is_shown_in_any_spelling(spell, secret, before, after):
    spelled = spell(secret)
    shown = Redactor([secret]).text(f"{before}{spelled}{after}")
    assert MASK in shown
    assert not leaks(shown, without_quotes(spelled, spell("")), "\\\\\\\\" + spell(""))


@pytest.mark.parametrize("url_safe", [False, True])
@given(secret=secrets, before=ordinary, after=ordinary)
def test_no_part_of_a_secret_is_shown_in_base64_of_a_longer_text(url_safe, secret, before, after):
    encoded = in_base64(before + secret + after, url_safe)
    shown = Redactor([secret]).text(encoded)
    # The bytes of the secret fill whole characters from here to there.
    start, end = len(before.encode()), len((before + secret).encode())
    core = encoded[-(-start * 8 // 6) : end * 8 // 6]
    assert len(core) >= 4 and MASK in shown
    assert not leaks(shown, core, in_base64(before + "\0" * (end - start) + after, url_safe))


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    "secret",
    ['p@ss"w\\ord', "it's #1; ~ok", "#first", "~home:~x", "pass\twörd-密钥", "a b\nc d'e", "{1,2}[3]*?^!|<>()&"],
)
def test_what_bash_quotes_is_masked(secret, locale):
    quoted = bash_quoted(secret, locale).removeprefix("$'").removesuffix("'")
    assert Redactor([secret]).text(f"x {quoted} y") == f"x {MASK} y"
    script = "PS4=; set -x; : \"$1\"; { set +x; } 2>/dev/null; V=$1; export -p | grep -A9 'V='; declare -p V"
    done = subprocess.run(["bash", "-c", script, "bash", secret], env={"LC_ALL": locale}, capture_output=True)
    shown = Redactor([secret]).text((done.stdout + done.stderr).decode())
    assert MASK in shown and not leaks(shown, quoted, "")


@given(several_lines, ordinary)
def test_each_line_of_a_secret_is_masked_alone(secret, text):
    redactor = Redactor([secret])
    for line in secret.split("\n"):
        for spelled in (line, repr(line), in_base64(line), quote(line)):
            assert not leaks(redactor.text(f"{text}{spelled}{text}"), spelled, "''")


def test_the_strings_of_a_json_secret_are_masked():
    key = "-----BEGIN KEY-----\nMIIBVgIBADANBg\n-----END KEY-----"
    inner = json.dumps({"token": "inner-token-1"})
    value = {"user": "svc-account", "private_key": key, "more": [{"deep": 'quo"ted'}], "port": 5432, "text": inner}
    redactor = Redactor([json.dumps(value)])
    assert redactor.text("port 5432 is true") == "port 5432 is true"
    for text in ("svc-account", "MIIBVgIBADANBg", 'quo"ted', 'quo\\"ted', "inner-token-1", repr(value), str([value])):
        shown = redactor.text(text)
        assert MASK in shown
        assert not any(part in shown for part in ("svc", "MIIB", "quo", "inner-"))


def test_secrets_that_overlap_leave_nothing():
    assert Redactor(["abcdefgh", "efghijkl"]).text("xabcdefghijklx") == f"x{MASK}x"
    assert Redactor([SECRET]).text(f"{SECRET}{SECRET}") == MASK * 2


def test_tokens_and_key_ids_are_masked_without_being_known():
    text = "sit_abcdefgh12345678 ark_abcdefgh12345678 AKIDz8krbsJ5yKBZQpn74WFkmLPx3 e2b_0123456789abcdef0123"
    assert Redactor().text(text).split() == [MASK] * 4


@pytest.mark.parametrize("before", ["\\n", "\\t", "%3D", "\\u003d", '"', "=", "ß "])
def test_tokens_are_masked_after_escapes(before):
    assert Redactor().text(f"x{before}{TOKEN}") == f"x{before}{MASK}"
    assert through_stream(Redactor(), f"x{before}{TOKEN} y", range(40)) == f"x{before}{MASK} y"
    assert Redactor().text("transit_information") == "transit_information"


@pytest.mark.parametrize("value", ["", "a", "no", "true", "null", "False", "\n\n", "a\nb"])
def test_short_values_and_ordinary_words_are_left_alone(value):
    text = "a notable banana is true, null and False"
    assert Redactor([value]).text(text) == text


def test_many_secrets_are_masked_like_few():
    many = [f"secret-number-{number:04}-{number * 7919:08}" for number in range(300)]
    redactor = Redactor(many)
    text = "\n".join(f"{one} {in_base64('user:' + one)}" for one in many)
    shown = redactor.text(text)
    assert shown.count(MASK) == 600 and "number-" not in shown


def test_secrets_with_lone_surrogates_are_accepted():
    assert Redactor(["pass\udc80word", json.dumps({"key": "\ud800-and-more"})]).text("\ud800-and-more") == MASK


class Inner(BaseModel):
    text: str
    table: dict[str, list[str]]


class Outer(BaseModel):
    parts: tuple[Inner, ...]
    data: bytes = b""


def test_models_are_masked_with_the_keys_of_their_mappings():
    value = Outer(parts=(Inner(text=f"is {SECRET}", table={SECRET: ["ok", SECRET]}),))
    masked = Redactor([SECRET, "text", "table"]).data(value)
    assert masked == Outer(parts=(Inner(text=f"is {MASK}", table={MASK: ["ok", MASK]}),))


def test_errors_are_masked_with_their_results_and_causes():
    result = ExecResult(command="x", exit_code=124, stdout=f"token is {SECRET}")
    with pytest.raises(CommandTimeoutError) as caught, Redactor([SECRET]).errors():
        try:
            raise ValueError(f"because of {SECRET}", 7)
        except ValueError as cause:
            raise CommandTimeoutError(f"ran into: {SECRET}", hint=f"no {SECRET}", result=result) from cause
    error = caught.value
    assert str(error) == f"ran into: {MASK} no {MASK}"
    assert error.args == (f"ran into: {MASK}",)
    assert error.result.stdout == f"token is {MASK}"
    assert error.__cause__.args == (f"because of {MASK}", 7)


# Cuts.


# What is escaped as several characters may leave some of them at a cut.
plain = st.text(string.ascii_letters + string.digits, min_size=8, max_size=40)


@given(plain, ordinary, ordinary, st.integers(0, 200), st.sampled_from(sorted(SPELLINGS)))
def test_no_part_of_a_secret_stays_at_the_border_of_head_and_tail(secret, before, after, limit, spelling):
    spelled = SPELLINGS[spelling](secret)
    kept = HeadAndTail(limit)
    kept.add(f"{before}{spelled}{after}".encode())
    shown = Redactor([secret]).text(kept.text())
    empty = SPELLINGS[spelling]("")
    left = leaks(shown, without_quotes(spelled, empty), "\\\\\\\\" + empty)
    # The escape of one character may have as many.
    assert not {part for part in left if not re.search(r"[&#;%x=\\0a-fA-F]", part)}


def test_a_token_at_the_border_is_left_out_whole():
    text = f"first {TOKEN} then {TOKEN} last\n".encode()
    for limit in range(len(text)):
        kept = HeadAndTail(limit)
        kept.add(text)
        assert not parts("abcdefgh12345678") & parts(Redactor().text(kept.text()))


def test_a_part_at_the_end_of_a_text_that_was_cut_is_masked():
    redactor = Redactor([SECRET])
    assert redactor.text(f"is {SECRET[:9]}") == f"is {SECRET[:9]}"
    assert redactor.text(f"is {SECRET[:9]}", ends_cut=True) == f"is {MASK}"
    assert redactor.text("is sit_abc", ends_cut=True) == f"is {MASK}"


# Streams.


def through_stream(redactor, text, edges):
    edges = sorted({0, len(text), *(edge % (len(text) + 1) for edge in edges)})
    stream = redactor.stream()
    return "".join(stream.feed(text[a:b]) for a, b in zip(edges, edges[1:], strict=False)) + stream.close()


@given(st.lists(st.integers(0, 60), max_size=6))
def test_a_secret_that_is_cut_anywhere_does_not_leave_a_stream(cuts):
    text = f"before {SECRET} between {SECRET}{SECRET} after {TOKEN}"
    assert through_stream(Redactor([SECRET]), text, cuts) == f"before {MASK} between {MASK}{MASK} after {MASK}"


@given(
    st.lists(
        st.sampled_from(["abab", "ababc", "babab", "cabab", TOKEN, "sit_", " ", "ab", "e2", "x", "\\n", "%3D"]),
        max_size=20,
    ),
    st.lists(st.integers(0, 300), max_size=20),
)
def test_a_stream_masks_what_the_whole_text_would_have_masked(words, cuts):
    text = "".join(words)
    redactor = Redactor(["abab", "ababc", "cababab"])
    assert through_stream(redactor, text, cuts) == redactor.text(text)


@given(st.integers(0, 6), st.text("abcXYZ19", min_size=8, max_size=12), st.lists(st.integers(0, 60), max_size=4))
def test_a_stream_masks_base64_with_its_padding(before, secret, cuts):
    text = f"is {in_base64('u' * before + secret)} so"
    assert through_stream(Redactor([secret]), text, cuts).endswith(f"{MASK} so")


def test_a_stream_holds_back_only_what_can_be_a_secret():
    stream = Redactor([SECRET]).stream()
    assert stream.feed("ordinary\n") == "ordinary\n"
    assert stream.feed(f"is {SECRET[:5]}") == "is "
    assert stream.feed("ordinary") == f"{SECRET[:5]}ordinary"
    assert stream.close() == ""


def test_a_stream_holds_back_a_bounded_part_of_a_token_and_masks_all_of_it():
    stream = Redactor().stream()
    shown = stream.feed("x sit_")
    for _ in range(100):
        shown += stream.feed("a" * 1000)
        assert len(stream._held) <= LONGEST_TOKEN
    assert shown + stream.feed(" end") + stream.close() == f"x {MASK} end"
