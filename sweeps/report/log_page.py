"""The experiment log as one HTML page, which needs no other file and loads none."""

import re
from itertools import pairwise

from markdown_it import MarkdownIt
from markupsafe import Markup

from sweeps.report.notes import LAST
from sweeps.report.page import render

_MARKER = re.compile(
    rf"^<!-- (end of )?notes: \S+ -->\s*$|^{re.escape(LAST.decode())}", re.MULTILINE
)


def html(log: str) -> str:
    """The page of a log in Markdown. HTML in the log is shown as text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(_MARKER.sub("", log))
    contents: list[str] = []
    for token, words in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            token.attrSet("id", f"part-{len(contents)}")
            contents.append("".join(part.content for part in words.children or ()))
    body = markdown.renderer.render(tokens, markdown.options, {})
    return render("log.html", contents=contents, body=Markup(body))  # noqa: S704 as above
