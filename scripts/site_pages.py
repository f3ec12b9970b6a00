"""Hooks of mkdocs.yml: README.md as the site's first page, and files of the repository that pages link to.

On a forge a link such as `../goalrank/schema.py` opens the file there. The site stands alone, so linked files are
copied into it, under repository/; links to folders become plain text. Anchors are named as forges name them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
COPIES = "repository"

LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def linked(target: str, page: Path) -> Path | None:
    """The file or folder of the repository that a page's link leads to; None for other links."""
    if re.match(r"[a-z]+:", target) or target.startswith("#"):
        return None
    return Path(os.path.normpath(page.parent / target.partition("#")[0]))


def slug(title: str, separator: str = "-") -> str:
    """The anchor of a heading, as forges make it: `What is proved, and not` -> what-is-proved-and-not."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"<[^>]+>|`", "", title).strip().lower()).replace(" ", separator)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name anchors by `slug`."""
    config.mdx_configs["toc"]["slugify"] = slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md as index.md, and every file outside of docs/ that a page links to."""
    files.append(File.generated(config, "index.md", content=(REPOSITORY / "README.md").read_text(encoding="utf-8")))
    for page in (REPOSITORY / "README.md", *DOCS.glob("*.md")):
        for match in LINK.finditer(page.read_text(encoding="utf-8")):
            file = linked(match["target"], page)
            if file is None or not file.is_file() or file.is_relative_to(DOCS) or file == REPOSITORY / "README.md":
                continue
            place = f"{COPIES}/{file.relative_to(REPOSITORY)}"
            if files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of docs/ to the copies; text in fenced blocks stays as it is."""
    source = REPOSITORY / "README.md" if page.file.src_uri == "index.md" else DOCS / page.file.src_uri

    def led(match: re.Match[str]) -> str:
        file = linked(match["target"], source)
        if file is None:
            return match[0]
        anchor = match["target"][len(match["target"].partition("#")[0]) :]
        if file == REPOSITORY / "README.md":
            target = "index.md" + anchor
        elif file.is_dir():
            return f"`{match['text'].strip('`')}`"
        elif file.is_relative_to(DOCS):
            target = os.path.relpath(file, DOCS) + anchor
        else:
            target = f"{COPIES}/{file.relative_to(REPOSITORY)}"
        return f"{match['image']}[{match['text']}]({target})"

    parts: list[Any] = _FENCED.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(led, part) for part in parts)
