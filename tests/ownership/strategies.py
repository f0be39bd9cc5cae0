"""Generated holders: few ids and attempts, so that generated paths often meet."""

from hypothesis import strategies as st

from ags_flows.ownership import Frame, Holder

IDS = st.sampled_from(["a", "b", "0193f3b2c4d57000800000000000000a"])
ENCLOSING = st.builds(Frame, st.sampled_from(["flow", "task", "item"]), IDS, st.integers(1, 3))
CALLS = st.builds(Frame, st.just("call"), st.sampled_from(["x", "y", "z"]))


@st.composite
def holders(draw):
    return Holder((*draw(st.lists(ENCLOSING, min_size=1, max_size=4)), draw(CALLS)))


@st.composite
def pairs(draw):
    """Two holders that share a part of their path."""
    mine = draw(holders())
    shared = draw(st.integers(0, len(mine.enclosing)))
    rest = draw(st.lists(ENCLOSING, min_size=0 if shared else 1, max_size=3))
    return mine, Holder((*mine.frames[:shared], *rest, draw(CALLS)))


@st.composite
def later_attempts(draw, of):
    """A holder of a later attempt of one execution that encloses the given holder, with other executions below it."""
    number = draw(st.integers(0, len(of.enclosing) - 1))
    frame = of.frames[number]
    later = Frame(frame.kind, frame.id, frame.attempt + draw(st.integers(1, 2)))
    below = draw(st.lists(ENCLOSING, max_size=2))
    return Holder((*of.frames[:number], later, *below, draw(CALLS)))
