"""The experiment log as one HTML page. It has the figures of the sweeps in it, and loads nothing but the pictures of
people's notes, from the results folder."""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

from sweeps.ledger import NAME
from sweeps.report.markdown import anchor, nested
from sweeps.report.notes import LAST
from sweeps.report.page import render
from tinylm.files import read_file

_NOTE = re.compile(
    r"^(?P<begin><!-- notes: (?P<key>\S+) -->\r?\n)(?P<note>.*?)(?=^<!-- end of notes: (?P=key) -->)",
    re.MULTILINE | re.DOTALL,
)
_MARKER = re.compile(
    rf"^<!-- (end of )?notes: \S+ -->\s*$|^{re.escape(LAST.decode())}", re.MULTILINE
)


def html(log: str, folder: Path | None = None) -> str:
    """The page of a log in Markdown, with the figures of the sweeps in the folder in it. HTML in the log is
    shown as text, and headings in people's notes stand below those of the log."""
    log = _NOTE.sub(lambda note: note["begin"] + nested(note["note"]), log)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.add_render_rule("image", _picture)
    tokens = markdown.parse(_MARKER.sub("", log))
    seen = Counter[str]()
    for token, words in pairwise(tokens):
        if token.type == "heading_open":
            name = anchor("".join(part.content for part in words.children or ()))
            token.attrSet("id", name + f"-{seen[name]}" * bool(seen[name]))
            seen[name] += 1
    body = markdown.renderer.render(tokens, markdown.options, {"folder": folder})
    return render("log.html", body=Markup(body))  # noqa: S704 as above


def _picture(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """A picture of the results folder, or one that is in the page itself; a link to any other, which is not loaded."""
    source = str(tokens[index].attrGet("src"))
    if is_local(source):
        folder: Path | None = env["folder"]
        if folder is not None and _FIGURE.fullmatch(unquote(source)):
            tokens[index].attrSet("src", _in_page(folder, source))
        return renderer.image(tokens, index, options, env)
    return Markup('<a href="{}">{}</a>').format(source, tokens[index].content or source)


_FIGURE = re.compile(rf"{NAME.pattern}/analysis/{NAME.pattern}\.svg")
_LARGEST = 2 * 10**6  # bytes of a figure


def _in_page(folder: Path, source: str) -> str:
    """The address of a figure as its data; as it is if the figure can't be read."""
    try:
        content = read_file(folder / unquote(source), _LARGEST, follow=False)
    except OSError:
        return source
    return f"data:image/svg+xml;base64,{b64encode(content).decode()}"


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
