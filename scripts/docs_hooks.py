"""What mkdocs runs while it builds the pages: files of the repository's root that are pages too."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINKS = {f"](../{name})": f"]({page})" for name, page in {**PAGES, "examples": "examples.md"}.items()}

# a tag that has the browser fetch something, from an address with a host
REQUEST = re.compile(r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//[^>]+|<link[^>]+stylesheet[^>]+//""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, with links as they are seen from docs/, and the programs in examples/ as one page."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    files.append(File.generated(config, "examples.md", content=examples_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links out of docs/, which are right in the repository, lead to the site's own pages."""
    for link, own in LINKS.items():
        markdown = markdown.replace(link, own)
    return markdown


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would request something from another host as it opens."""
    found = REQUEST.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri}: would request {found[0]}")
    return output


def examples_page() -> str:
    """examples/*.py, each under the first line of its docstring; the tests run every one."""
    parts = ["# Examples\n\nPrograms under 40 lines, in `examples/`; the tests run each of them.\n"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        title = re.match(r'"""(.*?)[.:]', text)
        assert title is not None, f"{path.name}: expected a docstring whose first line is a title"
        parts.append(f"## {title[1]}\n\n`examples/{path.name}`\n\n```python\n{text}```\n")
    return "\n".join(parts)
