"""The page of a run: what a sandbox prints stays text."""

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ags_flows.job.page import RunPage
from ags_flows.models import ExecResult, Step

PARTS = [
    "`",
    "``",
    "```",
    "````",
    " ",
    "   ",
    "\n",
    "\r",
    "|",
    "\\",
    "~~~",
    "![x](http://evil)",
    "<img src=x>",
    "*",
    "a",
]
hostile = st.lists(st.sampled_from(PARTS), min_size=1, max_size=20).map("".join).map(lambda text: f"a{text}a")


def tokens_of(page):
    """All tokens of a page's Markdown, with those inside of lines."""
    for token in MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(page):
        yield token
        yield from token.children or ()


@given(hostile, hostile, hostile)
def test_nothing_breaks_out_of_its_block(command, output, name):
    result = ExecResult(command=command, exit_code=0, stdout=output, stdout_size=len(output))
    step = Step(name=name, seconds=1.0, status="failed", message=output)
    page = RunPage([step, step], [result], {}, None)
    page.downloads = {name: "/tmp/some"}
    tokens = list(tokens_of(page._text()))
    kinds = [token.type for token in tokens]
    assert not {"image", "html_inline", "html_block"} & set(kinds)
    assert kinds.count("fence") == 2 and kinds.count("tr_open") == 5
    blocks = [token.content for token in tokens if token.type == "fence"]
    assert blocks[0].split() == command.split()
