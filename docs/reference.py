"""Writes docs/config.md and docs/spaces.md: every setting, with its values, its default and what it does.

All of it comes from the models that check the settings (`tinylm/config.py`, `sweeps/plan/`), by their JSON
Schema. `make schema` writes the files, and a test says whether they are current.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.plan.domains import DOMAINS
from sweeps.plan.space import schema
from sweeps.policies import SCHEDULES
from tinylm import config as cfg

DOCS = Path(__file__).resolve().parent
Schema = Mapping[str, Any]
BAR = "\\|"  # within a cell
LARGE = 10**6  # a bound beyond it is no limit for people
GENERATED = "This page is written by the code (`make schema`)."

CONFIG = f"""# The config

A config is everything that a run is a function of. A scale is a whole config: one of
[`tinylm/configs/`](../tinylm/configs), or a YAML file of your own. A search space changes it by dotted paths such as
`optim.lr`: under `base` for all trials, under `space` for what varies. `--set PATH=VALUE` changes one value on the
command line. `tinylm train` takes the same files.

{GENERATED}
"""
SPACES = f"""# Search spaces

A search space is a YAML file. A search has `search` and `space`; a study has `arms` or `each`. The
[README](../README.md#ask-a-question) has an example of both, and [config.md](config.md) lists the paths. Editors check
and complete a file that begins with `# yaml-language-server: $schema=schema.json`.

{GENERATED}

## Keys of the file
"""
SPACE = """A grid search takes `grid` and `choice`, the others take all but `grid`. `times` and `depends` go with both,
and `base` and the `set` of an arm take `times` too. Bounds are values, not exponents."""
SCHEDULE = """Losses at a rung are compared at equal shares of the budget. [early_stopping.md](early_stopping.md) measures
what the policies cost and what they miss."""
# Keys with a section of their own, and the model that describes it.
SECTIONS = {
    "constraint": "Constraint",
    "arms": "Arm",
    "each": "Each",
    "retune": "Times",
    "seeds": "Looks",
    "resources": "Resources",
    "caps": "Caps",
    "target": "Target",
    "speedup": "Speedup",
}
DOMAIN = "a domain"
# How a value of a model is written in a table.
NAMES = {
    "Multiple": "a multiple",
    "PowersOfTwo": "`{powers_of_two: [..]}`",
    "Times": "`{times: [..]}`",
    **{domain.__name__: DOMAIN for domain in DOMAINS.values() if domain.__name__ != "Multiple"},
}


def either(names: Sequence[str]) -> str:
    """`a, b or c`, each once."""
    distinct = list(dict.fromkeys(names))
    return " or ".join(part for part in (", ".join(distinct[:-1]), distinct[-1]) if part)


def bounds(of: Schema) -> Iterator[str]:
    """The bounds of a number."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    for name, sign in signs.items():
        if abs(of.get(name, LARGE)) < LARGE:
            yield f"{sign} {of[name]:g}"


def values(of: Schema) -> str:
    """What a setting may be, in words."""
    options = of.get("anyOf", of.get("oneOf"))
    if options:
        if {"boolean", "number", "string"} <= {one.get("type") for one in options}:
            return either(["a value", *(values(one) for one in options if "type" not in one)])
        return either([values(one) for one in options if one.get("type") != "null"])
    if "$ref" in of:
        return NAMES.get(of["$ref"].rpartition("/")[2], "a mapping; see below")
    if of.get("enum") == list(cfg.PATHS):
        return "a path"
    if "enum" in of or "const" in of:
        return either([f"`{one}`" for one in of.get("enum", [of.get("const")])])
    kind = of["type"]
    if kind == "array":
        inner = values(of["items"])
        return f"two bounds, each {inner}" if of.get("maxItems") == 2 else f"a list, each {inner}"
    if kind == "object":
        return f"a mapping, each {values(of['additionalProperties'])}"
    if kind in {"integer", "number"}:
        name = "a whole number" if kind == "integer" else "a number"
        return f"{name} {', '.join(bounds(of))}".strip()
    return {"boolean": "`true` or `false`", "string": "text"}[kind]


def default(name: str, of: Schema, required: Sequence[str]) -> str:
    """The default of a setting, as YAML."""
    if name in required:
        return "required"
    found = of.get("default")
    if found in (None, [], {}) or isinstance(found, dict):
        return ""
    shown = f"{found:g}" if isinstance(found, float) else str(found)
    return f"`{shown.lower() if isinstance(found, bool) else shown}`"


def table(of: Schema, before: str = "") -> str:
    """The settings of a model as a Markdown table; `before` is put before their names."""
    required = of.get("required", [])
    rows = (
        [f"`{before}{name}`", values(one), default(name, one, required), one.get("description", "")]
        for name, one in of["properties"].items()
    )
    return grid(["key", "value", "default", "what it does"], rows)


def config() -> str:
    """The page on configs."""
    tree = cfg.Config.model_json_schema()
    parts = [CONFIG]
    for section, one in tree["properties"].items():
        model = tree["$defs"][one["$ref"].rpartition("/")[2]]
        parts.append(f"## {section}\n\n{model['description']}\n\n{table(model, f'{section}.')}\n")
    return "\n".join(parts)


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |" for line in lines)


def spaces() -> str:
    """The page on search spaces."""
    tree = schema()
    models = tree["$defs"]
    searches = [models[name] for name in ("GridSearch", "RandomSearch", "OptunaSearch")]
    policies = {name: models[one.__name__] for name, one in SCHEDULES.items()}
    parts = [
        f"{SPACES}\n{table(tree)}",
        "\n## search\n",
        grid(
            ["method", "what is tried", "keys"],
            (
                [f"`{one['properties']['method']['const']}`", one["description"], keys(one)]
                for one in searches
            ),
        ),
        f"\n## space\n\n{SPACE}\n",
        grid(
            ["domain", "what a path may be"],
            ([f"`{one.form}`", models[one.__name__]["description"]] for one in DOMAINS.values()),
        ),
        f"\n## schedule\n\n{SCHEDULE}\n",
        grid(
            ["policy", "what happens", "keys"],
            ([f"`{name}`", one["description"], keys(one)] for name, one in policies.items()),
        ),
        "",
        table(
            {"properties": {name: one for model in policies.values() for name, one in own(model)}}
        ),
    ]
    parts += [
        f"\n## {key}\n\n{models[name]['description']}\n\n{table(models[name])}"
        for key, name in SECTIONS.items()
    ]
    return "\n".join(parts) + "\n"


def own(model: Schema) -> list[tuple[str, Schema]]:
    """The settings of a kind of search or policy, without those that have one value."""
    return [(name, one) for name, one in model["properties"].items() if "const" not in one]


def keys(model: Schema) -> str:
    """The names of these settings."""
    return ", ".join(f"`{name}`" for name, _ in own(model))


PAGES = {DOCS / "config.md": config, DOCS / "spaces.md": spaces}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
