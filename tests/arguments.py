"""Values that are wrong for arguments and fields, and a generator of any values."""

from hypothesis import strategies as st


class Unshown:
    """A value that cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no text")


HUGE = 10**5000  # Python makes no text of it.
LONG = "x" * 1_000_000
SURELY_WRONG = ["\0", "\ud800", LONG, HUGE, Unshown(), [Unshown()], {Unshown(): "x"}, {1: 2}, object(), {"a"}]
"""No field takes one of these."""

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
