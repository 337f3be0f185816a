"""The hook of mkdocs.yml: documents that stand outside of docs/ become pages of the site."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Where a document of the repository is on the site.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "house-rules.md",
    "CHANGELOG.md": "changelog.md",
    "tests/attacks/THREATS.md": "threats.md",
    "LICENSE": "licence.md",
}
LINK = re.compile(r"\[([^\[\]]*)\]\(((?!https?:|#)[^()\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of documents elsewhere."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text("utf-8")
        if name == "LICENSE":
            text = f"# Licence\n\n```text\n{text}```\n"
        text = relinked(text, (ROOT / name).parent)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links out of docs/ lead to the pages that were made."""
    if page.file.generated_by is not None:
        return markdown
    return relinked(markdown, (ROOT / "docs" / page.file.src_uri).parent)


def relinked(text: str, folder: Path) -> str:
    """Return a document whose links lead where the site has what they name.

    A link that shows a file's name shows the title of its page. What the site has not, such as a
    test, is named and no link any more, if it is there.
    """

    def relink(found: re.Match[str]) -> str:
        label, target = found.groups()
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve()
        if not file.is_relative_to(ROOT) or not file.exists():
            return found[0]  # mkdocs says that it leads nowhere.
        name = file.relative_to(ROOT).as_posix()
        if name not in PAGES and not name.startswith("docs/"):
            return label
        if label.endswith(".md"):
            label = file.read_text("utf-8").split("\n", 1)[0].removeprefix("# ")
        page = PAGES.get(name, name.removeprefix("docs/"))
        return f"[{label}]({page}{'#' if anchor else ''}{anchor})"

    return LINK.sub(relink, text)
