"""Secrets in text that programs have wrapped, numbered, grouped or dumped."""

import base64
import html
import json
import quopri
import re
import subprocess
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ags_flows.run.redaction import MASK, Redactor

SECRET = "s3cret/With+Odd=Chars&more"

# Ordinary output of these tests has none of these characters.
LETTERS = "QZXJKVW579\"'\\/<>&%+= $`!#~:\téß密钥😀"
secrets = st.text(LETTERS, min_size=6, max_size=40).map(str.strip).filter(lambda text: len(text) >= 6)
ordinary = st.text("abcdefg hi\n.", max_size=60)


def in_base64(text, url_safe=False):
    return (base64.urlsafe_b64encode if url_safe else base64.b64encode)(text.encode()).decode()


def parts(text):
    return {text[at : at + 4] for at in range(len(text) - 3)}


def numbered(pieces):
    return "\n".join(f"{number:6}\t{piece}" for number, piece in enumerate(pieces, 1))


WRAPPED = {
    "lines": "\n".join,
    "indented": lambda pieces: "\n".join(f"  {piece}" for piece in pieces),
    "carriage returns": "\r".join,
    "JSON": lambda pieces: json.dumps("\n".join(pieces)),
    "JSON in JSON": lambda pieces: json.dumps(json.dumps("\r\n".join(pieces))),
    "cat -n": numbered,
    "nl": lambda pieces: "\n".join(f"{number:6}  {piece}" for number, piece in enumerate(pieces, 1)),
    "grep -n": lambda pieces: "\n".join(f"{number}:{piece}" for number, piece in enumerate(pieces, 1)),
    "list": lambda pieces: json.dumps(pieces, indent=2),
    "repr of a list": repr,
    "quoted-printable": lambda pieces: quopri.encodestring("\n".join(pieces).encode()).decode(),
    "soft line breaks": "=\n".join,
    "code": lambda pieces: " +\n".join(map(repr, pieces)),
    "shell": "\\\n".join,
    "log": lambda pieces: "\n".join(f"2026-01-01 10:20:30.123 | INFO | {piece}" for piece in pieces),
    "quoted for a URL": lambda pieces: quote("\n".join(pieces), safe=""),
    "quoted in lower case": lambda pieces: re.sub("%..", lambda found: found[0].lower(), quote_plus("".join(pieces))),
    "HTML": lambda pieces: "<br>".join(pieces).replace("+", "&#43;"),
    "slashes of PHP": lambda pieces: json.dumps("\n".join(pieces)).replace("/", "\\/"),
}


def base64_of(text):
    """The base64 in a text that is wrapped, quoted or numbered, as its longest runs."""
    plain = html.unescape(re.sub("%(2B|2F|3D|0A)", lambda found: chr(int(found[1], 16)), text, flags=re.IGNORECASE))
    return re.findall(r"[A-Za-z0-9+/_-]+", plain.replace("\\/", "/").replace(MASK, " "))


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@given(secret=secrets, before=ordinary, after=ordinary, width=st.integers(12, 100), url_safe=st.booleans())
def test_no_part_of_a_secret_is_shown_in_base64_wherever_it_is_wrapped(wrap, secret, before, after, width, url_safe):
    encoded = in_base64(before + secret + after, url_safe)
    start, end = len(before.encode()), len((before + secret).encode())
    core = encoded[-(-start * 8 // 6) : end * 8 // 6]
    text = wrap([encoded[at : at + width] for at in range(0, len(encoded), width)])
    redactor = Redactor([secret])
    # Three characters of a secret are at most five in base64.
    known = {core[at : at + 6] for at in range(len(core) - 5)}
    for shown in (redactor.text(text), "\n".join(redactor.text(line) for line in re.split(r"[\r\n]", text))):
        left = {run[at : at + 6] for run in base64_of(shown) for at in range(len(run) - 5)}
        assert not known & left


def dump(line, groups=lambda data: data.hex(" ")):
    """A dump of 16 bytes a line, with positions."""
    return lambda data: "\n".join(line(at, groups(data[at : at + 16])) for at in range(0, len(data), 16))


def words(data):
    return " ".join(data[at : at + 2][::-1].hex() for at in range(0, len(data), 2))


HEX = {
    "od -tx1": dump("{:07o} {}".format),
    "od -x": dump("{:07o} {}".format, words),
    "hexdump": dump("{:07x} {}".format, words),
    "xxd": dump("{:08x}: {}".format, lambda data: data.hex(" ", 2)),
    "list of texts": lambda data: json.dumps([f"{byte:02x}" for byte in data]),
    "list of lines": lambda data: json.dumps(
        [data.hex()[at : at + 32] for at in range(0, 2 * len(data), 32)], indent=1
    ),
    "xxd -p": lambda data: "\n".join(data.hex()[at : at + 60] for at in range(0, len(data.hex()), 60)),
    "od -An -tx1": lambda data: "\n".join(" " + data[at : at + 16].hex(" ") for at in range(0, len(data), 16)),
    "openssl": lambda data: data.hex(":").upper(),
    "C": lambda data: ", ".join(f"0x{byte:02x}" for byte in data),
    "escapes": lambda data: "".join(f"\\x{byte:02x}" for byte in data),
    "JSON": lambda data: "".join(f"\\u00{byte:02x}" for byte in data),
    "URL": lambda data: "".join(f"%{byte:02X}" for byte in data),
}


def is_counting(data):
    """Whether numbers are at equal distances, as in ordinary lists."""
    return len({after - before for before, after in zip(data, data[1:], strict=False)}) == 1


def digits_of(text):
    """The digits in a text, without the positions of a dump."""
    return re.sub(r"(?m)^[0-9a-f]{7,8}:? |\\x|\\u00|0x|[^0-9a-f*]", "", text.lower())


@pytest.mark.parametrize("spell", HEX.values(), ids=HEX)
@given(secret=secrets, before=st.text("xyz", max_size=20), after=st.text("xyz", max_size=20))
def test_no_part_of_a_secret_is_shown_in_any_form_of_hex(spell, secret, before, after):
    spelled = spell(f"{before}{secret}{after}".encode())
    # Runs of spaces are in ordinary data too.
    pieces = [piece.encode() for piece in re.split(r"\s{4,}", secret)]
    orders = [data.hex() for data in pieces] + [words(data[at:]).replace(" ", "") for data in pieces for at in (0, 1)]
    known = {digits[at : at + 8] for digits in orders for at in range(0, len(digits) - 7, 2)}
    known = {part for part in known if not is_counting(bytes.fromhex(part))}
    redactor = Redactor([secret])
    shown = redactor.text(spelled)
    # A secret that begins or ends within three bytes of the end of a line shows these.
    alone = [redactor.text(line) for line in spelled.split("\n")]
    for line in (*shown.split("\n"), *alone):
        left = digits_of(line)
        assert not [part for part in known if part in left]


@pytest.mark.parametrize("command", ["xxd", "hexdump -C", "od -Ax -tx1z", "od -x", "hexdump", "xxd -p", "base64 -w 20"])
def test_dumps_of_a_secret_show_no_part_of_it(command):
    try:
        done = subprocess.run(command.split(), input=b"token=" + SECRET.encode(), capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip(f"{command} is not installed")
    redactor = Redactor([SECRET])
    dumped = done.stdout.decode()
    for shown in (redactor.text(dumped), "\n".join(map(redactor.text, dumped.splitlines()))):
        assert MASK in shown
        assert not parts(SECRET) & parts(shown)


def shown_bytes(data):
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def in_halves(data):
    return f"{data[:8].hex(' '):23}  {data[8:].hex(' '):23}"


DUMPS = {
    "xxd": lambda at, data: f"{at:08x}: {data.hex(' ', -2):39}  {shown_bytes(data)}",
    "xxd -g1": lambda at, data: f"{at:08x}: {data.hex(' '):47}  {shown_bytes(data)}",
    "xxd -u": lambda at, data: f"{at:08x}: {data.hex(' ', -2).upper():39}  {shown_bytes(data)}",
    "hexdump -C": lambda at, data: f"{at:08x}  {in_halves(data)}  |{shown_bytes(data)}|",
    "od -tx1z": lambda at, data: f"{at:07o} {data.hex(' '):47}  >{shown_bytes(data)}<",
}


@pytest.mark.parametrize("row", DUMPS.values(), ids=DUMPS)
@given(
    # Characters of the text column that may be digits of the bytes before it.
    secret=st.text("345674XZ", min_size=12, max_size=60) | st.text("34567abcdefXZQK-", min_size=12, max_size=60),
    before=st.integers(0, 16),
)
def test_the_text_column_of_a_dump_shows_no_part_of_a_secret(row, secret, before):
    secret = f"Z{secret}Z"
    assume(not any(is_counting(secret[at : at + 4].encode()) for at in range(len(secret) - 3)))
    data = f"{'=' * before}{secret}!".encode()
    rows = [row(at, data[at : at + 16]) for at in range(0, len(data), 16)]
    known = {part for part in parts(secret) if re.search("[XZQK]", part)}
    redactor = Redactor([secret])
    whole = "\n".join(rows)
    for shown in (redactor.text(whole), "\n".join(map(redactor.text, rows)), redactor.text(json.dumps(whole))):
        assert not known & parts(shown)


def test_ordinary_hex_is_shown():
    text = "commit 5718d6c0cafe and 00:16:3e:5e:6c:00 and feed beef face dead"
    assert Redactor([SECRET]).text(text) == text
    text = f"{list(range(28, 70))} and {list(range(100, 10, -1))} and 30:30:30:30:30"
    assert Redactor(["hunter1234", "abcdefg-zeros0000", "x4321y"]).text(text) == text


def test_a_word_on_a_line_is_not_a_part_of_base64():
    redactor = Redactor(["".join(chr(97 + number * 7 % 26) for number in range(2_000))])
    assert redactor.text("done\nPASSED\nabc\n") == "done\nPASSED\nabc\n"


def test_base64_is_masked_in_wrapped_lines():
    secret = "".join(chr(97 + number * 7 % 26) for number in range(200))
    encoded = in_base64(secret)
    for width in (64, 76):
        wrapped = [encoded[at : at + width] for at in range(0, len(encoded), width)]
        assert {Redactor([secret]).text(line) for line in wrapped} == {MASK}


SOFT = {
    "quoted-printable": lambda text: quopri.encodestring(text.encode()).decode(),
    "soft line breaks": lambda text: "=\n".join(text[at : at + 75] for at in range(0, len(text), 75)),
    "fold": lambda text: "\n".join(text[at : at + 60] for at in range(0, len(text), 60)),
    "shell": lambda text: "\\\n".join(text[at : at + 60] for at in range(0, len(text), 60)),
    "code": lambda text: "\n".join(f"    {text[at : at + 50]!r}" for at in range(0, len(text), 50)),
    "list": lambda text: json.dumps([text[at : at + 16] for at in range(0, len(text), 16)], indent=2),
}


@pytest.mark.parametrize("wrap", SOFT.values(), ids=SOFT)
@pytest.mark.parametrize("length", [12, 90, 300])
@pytest.mark.parametrize("before", [0, 3, 55, 70, 75])
def test_no_part_of_a_secret_is_shown_where_a_text_is_wrapped(wrap, length, before):
    secret = "".join(chr(65 + number * number * 7 % 26) for number in range(length))
    shown = Redactor([secret]).text(wrap("." * before + secret + "...."))
    assert not parts(secret) & parts(shown)


def test_the_lines_of_quoted_printable_are_masked_alone():
    secret = "".join(chr(65 + number * number * 7 % 26) for number in range(60))
    first, second = quopri.encodestring(f"{'.' * 40}{secret}....".encode()).decode().split("\n")
    assert MASK in Redactor([secret]).text(first) and not parts(secret) & parts(Redactor([secret]).text(first))


@pytest.mark.parametrize("character", "é漢😀")
def test_a_soft_line_break_inside_a_character_leaves_no_part_of_a_secret(character):
    secret = f"QZXJ{character}KWVQ ZJXK"
    for before in range(60, 76):
        lines = quopri.encodestring(f"{'.' * before}{secret} tail".encode()).decode().splitlines()
        redactor = Redactor([secret])
        assert not parts(secret) & parts(redactor.text("\n".join(lines)))
        first, second = lines
        alone = redactor.text(first) + redactor.text(second, begins_cut=True)
        assert not parts(secret) & parts(alone), (first, second)


def test_words_on_two_lines_are_not_a_secret():
    text = "it shows the pass\nword of the user: none,\nand a list\n- of words\n"
    assert Redactor(["password", "noneand", "list- of"]).text(text) == text
