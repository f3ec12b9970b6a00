"""Great Expectations' static site, made to load nothing from outside: it is linked from the report, which promises so.

The site asks eight foreign hosts for style sheets, scripts and pictures. They are taken out once it is written, a
policy forbids what may be left, and a few lines of style take their place. The pages' tables are plain HTML; only the
index is drawn by scripts, so an index of our own replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

from components.step import write_atomic

POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'\">"
)
STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem; border-bottom: 1px solid #8884; }
 .collapse { display: block; } nav ol { padding-left: 1rem; }
.fa-times, .text-danger { color: #cf222e; } .fa-check-circle, .text-success { color: #1a7f37; }
.fa-times::before { content: "\\2717  failed "; } .fa-check-circle::before { content: "\\2713  passed "; }
.fa-exclamation-triangle::before { content: "\\26a0  "; } .modal, .btn, button, form, footer { display: none; }
.text-warning { color: #9a6700; }
</style>"""

_SCRIPT = re.compile(r"<script\b.*?</script\s*>", re.IGNORECASE | re.DOTALL)
_LOADED = re.compile(r"<(?:link|img|iframe|source|video|audio|embed|object)\b[^>]*>", re.IGNORECASE | re.DOTALL)
_OUTSIDE = re.compile(r"""(?:src|href|srcset|data)\s*=\s*["']?\s*(?:[a-z][a-z0-9+.-]*:)?//""", re.IGNORECASE)
_IN_STYLES = re.compile(r"""@import[^;]*;|url\(\s*["']?(?:https?:)?//[^)]*\)""", re.IGNORECASE)
_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)


def keep_inside(site: Path) -> int:
    """Take everything out of a site's pages that a browser would load from elsewhere, and all scripts.

    Returns:
        how many pages were changed.
    """
    pages = list(site.rglob("*.html"))
    for page in pages:
        page.write_text(_inside(page.read_text(encoding="utf-8")), encoding="utf-8")
    for sheet in site.rglob("*.css"):
        sheet.write_text(_IN_STYLES.sub("", sheet.read_text(encoding="utf-8")), encoding="utf-8")
    return len(pages)


def write_index(site: Path, name: str, tables: Mapping[str, Mapping[str, int]]) -> None:
    """The site's front page: one row a table with its counts ("checks", "critical", "warning") and links to its pages.

    Args:
        site: folder of the site, its pages written.
        name: of the gate.
        tables: in the order in which they were checked.
    """
    rows = []
    for table, counts in tables.items():
        pages = sorted(site.glob(f"validations/{table}/**/*.html"))
        result = escape(pages[-1].relative_to(site).as_posix()) if pages else ""
        word = "refused" if counts["critical"] else "warning" if counts["warning"] else "passed"
        style = {"refused": "danger", "warning": "warning", "passed": "success"}[word]
        rows.append(
            f'<tr><th scope="row"><a href="{result}">{escape(table)}</a></th><td class="text-{style}">{word}</td>'
            f"<td>{counts['checks']}</td><td>{counts['critical']}</td><td>{counts['warning']}</td>"
            f'<td><a href="expectations/{escape(table)}.html">what is expected</a></td></tr>'
        )
    heads = ("table", "result", "checks", "failed, critical", "failed, warning", "suite")
    head = "".join(f'<th scope="col">{title}</th>' for title in heads)
    body = "\n".join(rows)
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{POLICY}\n'
        f"<title>{escape(name)}: Data Docs</title>\n{STYLE}\n</head>\n<body>\n<h1>{escape(name)}</h1>\n"
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n</body>\n</html>\n"
    )
    write_atomic(site / "index.html", page)


def _inside(page: str) -> str:
    page = _IN_STYLES.sub("", _SCRIPT.sub("", page))
    page = _LOADED.sub(lambda tag: "" if _OUTSIDE.search(tag[0]) else tag[0], page)
    if _HEAD.search(page):
        return _HEAD.sub(lambda head: f"{head[0]}\n{POLICY}\n{STYLE}", page, count=1)
    return f"{POLICY}\n{STYLE}\n{page}"
