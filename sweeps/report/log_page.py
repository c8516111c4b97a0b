"""The experiment log as one HTML page. It needs no other file and loads nothing but the pictures of people's notes, from
the results folder."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

from sweeps.report.notes import LAST
from sweeps.report.page import render

_MARKER = re.compile(
    rf"^<!-- (end of )?notes: \S+ -->\s*$|^{re.escape(LAST.decode())}", re.MULTILINE
)


def html(log: str) -> str:
    """The page of a log in Markdown. HTML in the log is shown as text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("image", _picture)
    tokens = markdown.parse(_MARKER.sub("", log))
    contents: list[str] = []
    for token, words in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            token.attrSet("id", f"part-{len(contents)}")
            contents.append("".join(part.content for part in words.children or ()))
    body = markdown.renderer.render(tokens, markdown.options, {})
    return render("log.html", contents=contents, body=Markup(body))  # noqa: S704 as above


def _picture(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """A picture of the results folder, or one that is in the page itself; a link to any other, which is not loaded."""
    source = str(tokens[index].attrGet("src"))
    if is_local(source):
        return renderer.image(tokens, index, options, env)
    return Markup('<a href="{}">{}</a>').format(source, tokens[index].content or source)


def is_local(source: str) -> bool:
    """Whether the address of a picture is its data, or that of a file below the page's folder."""
    try:
        address = urlsplit(source)
    except ValueError:  # it is none
        return False
    if address.scheme == "data":
        return True
    parts = unquote(address.path).replace("\\", "/").split("/")
    return not (address.scheme or address.netloc) and parts[0] != "" and ".." not in parts
