"""Draws docs/architecture.svg: the packages of the code and which of them import which.

Read from the source alone, by its `import` statements: nothing is imported, and what is drawn is what
is there. `make architecture` writes the file, and a test says whether it is current.
"""

import ast
import textwrap
from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "architecture.svg"

COMMANDS, GROUND, TINYLM = "commands", "ground", "tinylm"
BANDS = {
    COMMANDS: "arguments and exit codes; they may import everything below, and nothing imports them",
    GROUND: "what both sides stand on: they meet in the ledger alone",
    TINYLM: "a language model that can be trained; knows nothing of sweeps or Ray",
}
WINGS = (("the side that runs", 0, 1), ("the side that reads", 2, 2))
COLUMNS = {"engine": 0, "plan": 0, "policies": 0, "simulate": 1, "report": 2, "findings": 2}
ROLES = {
    "engine": "what runs: decisions, Ray, one attempt",
    "simulate": "what would happen: replay, forecast",
    "plan": "what is asked: from YAML to trials",
    "policies": "which trials stop: one policy per file",
    "report": "what people read",
    "findings": "what was found",
}

# Pixels.
WIDTH, MARGIN, GAP_X, GAP_Y, PAD = 1120, 20, 64, 48, 14
LOOP = 20  # room on the left, for arrows that pass a box
BOX = (WIDTH - 2 * MARGIN - 2 * GAP_X - 4 * PAD - LOOP) // 3
LINE, TITLE = 18, 26
CHARACTER = {"module": 7.4, "role": 6.7, "uses": 6.1}  # the mean width
STYLE = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2933 }
.title { font-weight: 650; font-size: 17px }
.role { fill: #52606d }
.module { font: 12px ui-monospace, 'SFMono-Regular', Menlo, Consolas, 'DejaVu Sans Mono', monospace }
.uses { font-size: 11.5px; fill: #7b8794 }
.wing { font-size: 12px; font-weight: 600; letter-spacing: .06em; fill: #7b8794 }
.arrow { fill: none; stroke: #52606d; stroke-width: 1.7; marker-end: url(#head) }
"""
FILLS = {0: "#e3f0fa", 1: "#e3f0fa", 2: "#e4f3ea"}
STROKES = {0: "#0072b2", 1: "#0072b2", 2: "#009e73"}


def modules() -> dict[str, Path]:
    """Every module of the two packages, by its dotted name."""
    found = {}
    for package in ("sweeps", "tinylm"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def part_of(module: str, source: str) -> str:
    """The box of the picture that a module lies in."""
    top, *inner = module.split(".")
    if top == TINYLM:
        return TINYLM
    if inner and (ROOT / "sweeps" / inner[0]).is_dir():
        return inner[0]
    return COMMANDS if "typer.Typer(" in source else GROUND


def imported(tree: ast.AST, known: set[str]) -> set[str]:
    """The known modules that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        # `from sweeps.ledger import Row` imports sweeps.ledger, `from sweeps import ledger` too.
        found |= {name if name in known else name.rpartition(".")[0] for name in names}
    return found & known


@dataclass(frozen=True)
class House:
    """What the code is made of."""

    contents: dict[str, list[str]]  # box -> its modules' last names
    arrows: Counter[tuple[str, str]]  # (box, box) -> modules of the first that import the second
    uses: dict[str, list[str]]  # box -> what it imports of the ground and of tinylm


def read() -> House:
    """The boxes, and the arrows between them."""
    known = modules()
    sources = {name: path.read_text() for name, path in known.items()}
    place = {name: part_of(name, source) for name, source in sources.items()}
    contents: dict[str, list[str]] = {}
    arrows: Counter[tuple[str, str]] = Counter()
    uses: dict[str, set[str]] = {}
    for name, source in sources.items():
        here = place[name]
        if known[name].name != "__init__.py":
            inner = name.split(".")[2 if here not in BANDS else 1 :]
            contents.setdefault(here, []).append(".".join(inner))
        targets = imported(ast.parse(source), set(known))
        arrows.update((here, there) for there in {place[one] for one in targets} - {here})
        low = {one for one in targets if place[one] in {GROUND, TINYLM}}
        uses.setdefault(here, set()).update(one.removeprefix("sweeps.") for one in low)
    return House(contents, arrows, {here: sorted(names) for here, names in uses.items()})


def depths(house: House) -> dict[str, int]:
    """How many boxes lie below each package, on the longest way down."""
    inner = [part for part in house.contents if part not in BANDS]
    depth = dict.fromkeys(inner, 0)
    for _ in inner:
        for above, below in house.arrows:
            if above in depth and below in depth:
                depth[above] = min(len(inner), max(depth[above], depth[below] + 1))
    return depth


@dataclass
class Box:
    """A rectangle with a package in it."""

    name: str
    column: int
    row: int
    x: float
    y: float
    lines: list[tuple[str, str]]  # (class of the text, text)

    @property
    def height(self) -> float:
        return 2 * PAD + LINE * len(self.lines) + TITLE - LINE

    def port(self, side: str, share: float) -> tuple[float, float]:
        """The point on a side, at a share of its length."""
        x = {"left": 0.0, "right": BOX}.get(side, BOX * share)
        y = {"top": 0.0, "bottom": self.height}.get(side, self.height * share)
        return self.x + x, self.y + y


def wrapped(kind: str, text: str, width: float) -> list[tuple[str, str]]:
    """A text as lines of its class."""
    return [(kind, line) for line in textwrap.wrap(text, int(width / CHARACTER[kind]))]


def left(column: int) -> float:
    """Where the wing of a column begins, if it were the first of its wing."""
    return MARGIN + column * (BOX + GAP_X) + (column == 2) * (2 * PAD + LOOP)


def placed(house: House, top: float) -> list[Box]:
    """The packages in their columns, those that import others above these."""
    depth = depths(house)
    boxes: list[Box] = []
    for name in sorted(depth, key=lambda name: (-depth[name], name)):
        column = COLUMNS.get(name, 1)
        row = sum(box.column == column for box in boxes)
        inside = BOX - 2 * PAD
        lines = [("title", f"{name}/")]
        lines += wrapped("role", ROLES.get(name, ""), inside)
        lines += wrapped("module", "  ".join(sorted(house.contents[name])), inside)
        if house.uses[name]:
            lines += wrapped("uses", "imports " + ", ".join(house.uses[name]), inside)
        x = left(column) + PAD + (LOOP if column < 2 else 0)
        boxes.append(Box(name, column, row, x, 0, lines))
    y = top
    for row in range(1 + max(box.row for box in boxes)):
        members = [box for box in boxes if box.row == row]
        for box in members:
            box.y = y
        y += max(box.height for box in members) + GAP_Y
    return boxes


def sides(a: Box, b: Box) -> tuple[str, str]:
    """The side that an arrow leaves a box by, and the one by which it comes to another."""
    if a.column == b.column:
        near = abs(a.row - b.row) == 1
        down = a.row < b.row
        return (("bottom", "top") if down else ("top", "bottom")) if near else ("left", "left")
    facing = ("left", "right") if b.column < a.column else ("right", "left")
    free = a.row < b.row and a.column == 1
    return ("bottom" if free else facing[0]), facing[1]


def curve(a: tuple[float, float], b: tuple[float, float], out: str, into: str) -> str:
    """A path between two points that leaves and arrives at right angles."""
    away = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}
    reach = 0.45 * max(abs(a[0] - b[0]), abs(a[1] - b[1]))
    if out == into:
        reach = 1.6 * LOOP
    points = [
        (p[0] + reach * away[s][0], p[1] + reach * away[s][1]) for p, s in ((a, out), (b, into))
    ]
    (x1, y1), (x2, y2) = points
    return f"M{a[0]:.1f} {a[1]:.1f}C{x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f} {b[0]:.1f} {b[1]:.1f}"


def drawn_arrows(house: House, boxes: list[Box]) -> list[str]:
    """The arrows between the packages; those at one side of a box lie side by side."""
    by_name = {box.name: box for box in boxes}
    pairs = sorted(pair for pair in house.arrows if set(pair) <= by_name.keys())
    ends: dict[tuple[str, str], list[tuple[float, tuple[str, str]]]] = {}
    for pair in pairs:
        a, b = by_name[pair[0]], by_name[pair[1]]
        out, into = sides(a, b)
        for box, side, other in ((a, out, b), (b, into, a)):
            along = other.x if side in {"top", "bottom"} else other.y
            ends.setdefault((box.name, side), []).append((along, pair))
    lines = []
    for pair in pairs:
        a, b = by_name[pair[0]], by_name[pair[1]]
        out, into = sides(a, b)
        points = []
        for box, side in ((a, out), (b, into)):
            order = [one for _, one in sorted(ends[box.name, side])]
            points.append(box.port(side, (1 + order.index(pair)) / (1 + len(order))))
        many = "module imports" if house.arrows[pair] == 1 else "modules import"
        title = f"{house.arrows[pair]} {many}: {pair[0]} to {pair[1]}"
        path = curve(points[0], points[1], out, into)
        lines.append(f'<path class="arrow" d="{path}"><title>{title}</title></path>')
    return lines


def text_lines(lines: list[tuple[str, str]], x: float, y: float) -> list[str]:
    """Lines of text below each other; the first is a title."""
    found = []
    y += PAD + LINE - 4
    for number, (kind, line) in enumerate(lines):
        found.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(line)}</text>')
        y += TITLE - 4 if number == 0 else LINE
    return found


def rectangle(x: float, y: float, width: float, height: float, fill: str, stroke: str) -> str:
    """A rectangle with round corners."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="8" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def band(house: House, name: str, y: float, title: str) -> tuple[list[str], float]:
    """A box over the whole width, and where it ends."""
    width = WIDTH - 2 * MARGIN
    lines = [("title", title), ("role", BANDS[name])]
    lines += wrapped("module", "  ".join(sorted(house.contents.get(name, []))), width - 2 * PAD)
    height = 2 * PAD + LINE * len(lines) + TITLE - LINE
    colors = {COMMANDS: ("#fdf1dc", "#e69f00"), TINYLM: ("#f6e6f0", "#cc79a7")}
    fill, stroke = colors.get(name, ("#eef1f4", "#9aa5b1"))
    shape = rectangle(MARGIN, y, width, height, fill, stroke)
    return [shape, *text_lines(lines, MARGIN + PAD, y)], y + height


def draw() -> str:
    """The picture, as the content of an SVG file."""
    house = read()
    parts, y = band(house, COMMANDS, MARGIN, "sweeps/: the commands")
    top = y + GAP_Y / 2
    boxes = placed(house, top + PAD + LINE + 6)
    bottom = max(box.y + box.height for box in boxes) + PAD
    for name, first, last in WINGS:
        x = left(first)
        width = (last - first + 1) * BOX + (last - first) * GAP_X + 2 * PAD + (first == 0) * LOOP
        parts.append(rectangle(x, top, width, bottom - top, "#fafbfc", "#e4e7eb"))
        parts.append(f'<text class="wing" x="{x + PAD}" y="{top + 20}">{name.upper()}</text>')
    parts += drawn_arrows(house, boxes)
    for box in boxes:
        colors = FILLS[box.column], STROKES[box.column]
        parts.append(rectangle(box.x, box.y, BOX, box.height, *colors))
        parts += text_lines(box.lines, box.x + PAD, box.y)
    ground, y = band(house, GROUND, bottom + GAP_Y / 2, "sweeps/: the ground")
    floor, y = band(house, TINYLM, y + PAD, "tinylm/")
    height = y + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="Packages of the code; an arrow leads from a package to one that it imports">'
        f'<style>{STYLE}</style><defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" '
        f'markerWidth="8" markerHeight="8" orient="auto"><path d="M0 1 9 5 0 9z" fill="#52606d"/>'
        f'</marker></defs><rect width="{WIDTH}" height="{height:.0f}" rx="12" fill="#fff"/>'
    )
    return "\n".join([head, *parts, *ground, *floor, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw())
