"""The README and the pages of docs/, as the tests read them: blocks, commands, links, anchors, messages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    page
    for page in (REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *DOCS.rglob("*.md"))
    if "_build" not in page.parts
)


@dataclass(frozen=True)
class Block:
    """A fenced or indented block. kind: the word behind the fence; `indented` without one."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@lru_cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> Iterator[Block]:
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            kind = token.info.split()[0] if token.info else "indented"
            yield Block(page, token.map[0] + 1, kind, token.content)


def inline(page: Path) -> Iterator[Token]:
    """What stands inside of paragraphs, headings and tables."""
    for token in tokens(page):
        yield from token.children or ()


def codes(page: Path) -> list[str]:
    """What stands between backticks in a line."""
    return [token.content for token in inline(page) if token.type == "code_inline"]


def links(page: Path) -> list[str]:
    """Where links and pictures lead to."""
    found = [token.attrs.get("href") or token.attrs.get("src") for token in inline(page)]
    return [str(place) for place in found if place]


@lru_cache
def anchors(page: Path) -> list[str]:
    """Names of the headings in addresses, as GitHub and Sphinx make them."""
    found: list[str] = []
    for before, token in zip(tokens(page), tokens(page)[1:], strict=False):
        if before.type == "heading_open":
            slug = re.sub(r"[^\w\- ]", "", token.content.lower()).strip().replace(" ", "-")
            again = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each) is not None for each in found)
            found.append(f"{slug}-{again}" if again else slug)
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, without comments and what is done with its output."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        own = True
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word == "&&":
                if words:
                    yield words
                words, own = [], True
            elif word in ("|", ">", ">>"):
                own = False
            elif own:
                words.append(word)


def messages(page: Path) -> list[str]:
    """The patterns of messages that a page explains, `...` standing for what differs."""
    section = page.read_text(encoding="utf-8").partition("\n## Messages\n")[2].partition("\n## ")[0]
    items = re.findall(r"^\* ((?:.|\n(?!\* ))+)", section, flags=re.MULTILINE)
    heads = [" ".join(item.split()).partition("*: ")[0] + "*" for item in items]
    found = [each for head in heads for each in re.split(r"(?<!\\)\*, \*", head.strip("*"))]
    return [each.replace("\\", "") for each in found]


def matches(pattern: str, said: str) -> bool:
    """Whether a message is one of the pattern."""
    return re.search(".*".join(map(re.escape, fragments(pattern))), said) is not None


def fragments(pattern: str) -> list[str]:
    """The words of a pattern that every such message has."""
    return [each for part in pattern.split("...") if (each := part.strip(" ;,?()"))]
