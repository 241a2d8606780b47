#!/usr/bin/env python3
"""Write the tables of the docs from their rows: `scripts/make_tables.py`, or `make tables`.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; its rows are docs/rows/NAME.jsonl. The first
line there is what the table is: `page`, `columns`, and where its figures come from: `command`, `machine`, `seeds`,
`date`. Each other line is a row, a value for each column. A column has its `title`, `key`, `align` (left, right) and:

- `form`, digits behind the point, with `.` before it for .9988 rather than 0.9988, and `,` for 12,345;
- `spread`, how a value of two numbers is written, a mean and its spread: (), the default, or ±;
- `best`, max or min: the column's best is bold.

Values that are no numbers stand as they are. Benchmarks write such files with --rows (benchmarks/rows.py).
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "docs/rows"
PROVENANCE = ROOT / "docs/provenance.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"(<!-- table: (\S+) -->\n\n).*?(\n<!-- end of table -->)", re.DOTALL)
RULE = {"left": "---", "right": "---:"}
HEAD = """# Where the figures come from

Each table below is written by `make tables` from rows in `docs/rows/`, and a test holds the pages to them. A row's file
has the command, the machine, the seeds and the day on its first line. To measure a table again, give its benchmark
`--rows docs/rows/NAME.jsonl` where it has that option, or edit the rows; then `make tables`.

| rows | page | command | machine | seeds | day |
|---|---|---|---|---|---|
"""

Row = dict[str, Any]


def read_rows(name: str) -> tuple[Row, list[Row]]:
    """What a table is, and its rows."""
    about, *rows = [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return about, rows


def shown(value: Any, form: str = "", spread: str = "()") -> str:
    """A value as it stands in its cell.

    >>> shown(0.9988, ".4"), shown(12345, ",0"), shown("5 s", ".4"), shown([0.8, 0.04], ".2"), shown([2, 1], "1", "±")
    ('.9988', '12,345', '5 s', '.80 (.04)', '2.0 ± 1.0')
    """
    if isinstance(value, list):
        mean, deviation = (shown(number, form) for number in value)
        return f"{mean} ± {deviation}" if spread == "±" else f"{mean} ({deviation})"
    if isinstance(value, str) or value is None:
        return value or ""
    text = f"{value:{',' * (',' in form)}.{form.strip('.,')}f}"
    return re.sub(r"^(-?)0\.", r"\1.", text) if "." in form else text


def cells(column: Row, rows: list[Row]) -> list[str]:
    """A column's cells, below its title."""
    values = [row[column["key"]] for row in rows]
    texts = [shown(value, column.get("form", ""), column.get("spread", "()")) for value in values]
    if "best" not in column:
        return texts
    numbers = [value[0] if isinstance(value, list) else value for value in values]
    best = {"max": max, "min": min}[column["best"]](number for number in numbers if not isinstance(number, str))
    bold = [f"**{shown(number, column['form'])}**" for number in numbers]
    return [
        text.replace(strong.strip("*"), strong, 1) if number == best else text
        for number, text, strong in zip(numbers, texts, bold, strict=True)
    ]


def markdown(name: str) -> str:
    """The table of these rows."""
    about, rows = read_rows(name)
    columns = about["columns"]
    lines = [[column["title"] for column in columns], *zip(*(cells(column, rows) for column in columns), strict=True)]
    drawn = ["| " + " | ".join(line) + " |" for line in lines]
    drawn.insert(1, "|" + "|".join(RULE[column["align"]] for column in columns) + "|")
    return "\n".join(drawn) + "\n"


def provenance() -> str:
    """The page that says of every table where its figures come from."""
    lines = []
    for path in sorted(ROWS.glob("*.jsonl")):
        about, _ = read_rows(path.stem)
        page = about["page"]
        place = f"[{page}]({page})" if (ROOT / "docs" / page).exists() else page
        facts = (str(about[key]).replace("|", "\\|") for key in ("machine", "seeds", "date"))
        command = about["command"] if about["command"].startswith("not recorded") else f"`{about['command']}`"
        lines.append(f"| `{path.stem}` | {place} | {command} | " + " | ".join(facts) + " |")
    return HEAD + "\n".join(lines) + "\n"


def written(page: str) -> str:
    """A page's text with its tables as the rows have them."""
    return TABLE.sub(lambda found: found[1] + markdown(found[2]) + found[3], page)


def main() -> int:
    """Write what differs; return how many files do."""
    texts = {page: written(page.read_text(encoding="utf-8")) for page in PAGES if page != PROVENANCE}
    texts[PROVENANCE] = provenance()
    stale = [page for page, text in texts.items() if not page.exists() or page.read_text(encoding="utf-8") != text]
    for page in stale:
        page.write_text(texts[page], encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: written")
    return len(stale)


if __name__ == "__main__":
    main()
