#!/usr/bin/env python3
"""Draw docs/folders.svg from the layers that import-linter checks (pyproject.toml) and what each module says it is."""

import ast
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/folders.svg"
WIDTH, ROW, GAP = 960, 44, 8
STYLE = (
    "text{font-family:sans-serif;fill:#1d2330}.name{font-size:15px;font-weight:600}.about{font-size:12px}"
    "rect{fill:#e8ecf5;stroke:#7385b3}"
)


def about(name: str) -> str:
    """The first sentence of a module's docstring."""
    path = ROOT / "ff3d" / name / "__init__.py"
    path = path if path.exists() else path.parent.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].removeprefix(f"{name}: ").split(". ")[0].rstrip(".")


def drawn() -> str:
    """The picture: a row a layer, the highest first; a layer imports only from those below it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(it for it in project["tool"]["importlinter"]["contracts"] if it["type"] == "layers")
    rows = [layer.split(" | ") for layer in contract["layers"]]
    height = GAP + len(rows) * (ROW + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>The folders of ff3d, highest first</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" style="fill:#ffffff;stroke:none"/>',
    ]
    for row, names in enumerate(rows):
        y, width = GAP + row * (ROW + GAP), (WIDTH - GAP * (len(names) + 1)) / len(names)
        for column, name in enumerate(names):
            x, sentence = GAP + column * (width + GAP), about(name)
            room = int((width - 24) / 6.2)
            shown = sentence if len(sentence) <= room else sentence[: room - 1].rsplit(" ", 1)[0] + " …"
            parts += [
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW}" rx="5"/>',
                f'<text class="name" x="{x + 12:.0f}" y="{y + 18}">{escape(name)}</text>',
                f'<text class="about" x="{x + 12:.0f}" y="{y + 35}">{escape(shown)}</text>',
            ]
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
