import base64
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from ags_flows.run.redaction import MASK, Redactor

SECRET = "s3cret/With+Odd=Chars&more"


def test_a_secret_is_masked_wherever_it_stands():
    assert Redactor([SECRET]).text(f"a {SECRET} b {SECRET}") == f"a {MASK} b {MASK}"


def test_its_encoded_forms_are_masked_too():
    redactor = Redactor([SECRET])
    for form in (quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode()):
        assert form not in redactor.text(f"x={form}&y")


def test_each_line_of_a_key_of_several_lines_is_a_secret():
    key = "-----BEGIN KEY-----\nMIIBVgIBADANBg\n-----END KEY-----"
    assert "MIIBVg" not in Redactor([key]).text("grep: MIIBVgIBADANBg")


def test_tokens_and_key_ids_are_masked_without_being_known():
    text = "sit_abcdefgh12345678 ark_abcdefgh12345678 AKIDz8krbsJ5yKBZQpn74WFkmLPx3 e2b_0123456789abcdef0123"
    assert Redactor().text(text).split() == [MASK] * 4


def test_short_values_and_empty_ones_are_left_alone():
    assert Redactor(["", "a", "no"]).text("a notable banana") == "a notable banana"


@given(st.lists(st.integers(0, 60), max_size=6))
def test_a_secret_that_is_cut_anywhere_does_not_leave_a_stream(cuts):
    text = f"before {SECRET} between {SECRET}{SECRET} after"
    edges = sorted({0, len(text), *(cut % len(text) for cut in cuts)})
    stream = Redactor([SECRET]).stream()
    shown = "".join(stream.feed(text[a:b]) for a, b in zip(edges, edges[1:], strict=False)) + stream.close()
    assert shown == f"before {MASK} between {MASK}{MASK} after"
