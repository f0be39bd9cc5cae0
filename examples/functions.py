"""Functions in sandboxes: word counts of several texts in parallel, one file in and one file out.

Run it against an emulator (`ags-flows emulator --env-file emulator.env`, `source emulator.env`) or the real cloud.
"""

from pathlib import Path

from prefect import flow

from ags_flows import SandboxFile, in_sandbox


@in_sandbox(image="python:3.11", sandboxes=2, timeout=60)
def most_common(text: str, number: int = 2) -> list[tuple[str, int]]:
    """Return the most common words of a text."""
    import collections

    print("counting", len(text), "characters")
    return collections.Counter(text.lower().split()).most_common(number)


@in_sandbox(image="python:3.11", files="counted")
def in_upper_case(text: SandboxFile) -> SandboxFile:
    """Write a copy of a file in upper case."""
    with open(text) as source, open("upper.txt", "w") as target:
        target.write(source.read().upper())
    return SandboxFile("upper.txt")


@flow(log_prints=True)
def words() -> None:
    """Count the words of three texts, and change a file."""
    texts = ["a rose is a rose", "to be or not to be", "row row row your boat"]
    for text, counted in zip(texts, most_common.map(texts).result(), strict=True):
        print(f"{text}: {counted}")
    Path("roses.txt").write_text("\n".join(texts))
    print(Path(in_upper_case(SandboxFile("roses.txt"))).read_text().splitlines()[0])


if __name__ == "__main__":
    words()
