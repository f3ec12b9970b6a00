"""Pages as one self-contained file: templates, how figures read, and sections that cannot take the page with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).with_name("templates")

LONGEST = 1500
"""Characters shown of one text; report.json has all of it."""

MARKS = {
    "passed": ("✓", "yes"),
    "failed": ("✗", "no"),
    "inconclusive": ("?", "maybe"),
    "warning": ("!", "maybe"),
    "done": ("✓", "yes"),
    "refused": ("✗", "no"),
    "promoted": ("▲", "yes"),
    "kept": ("=", "calm"),
    "running": ("…", ""),
    "better": ("✓", "yes"),
    "worse": ("✗", "no"),
    "not_applicable": ("–", ""),
}
"""A status -> the sign beside its word, and its tone (page.css); a tone is never all that tells."""


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        key: name of its template and its anchor.
        title: its heading.
        needs: the step whose figures it shows; says why it is not there.
        view: the document -> what its template shows; None where there is nothing to show.
    """

    key: str
    title: str
    needs: str
    view: Callable[[dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True)
class Shown:
    """A section as the page has it."""

    key: str
    title: str
    html: Markup


@cache
def environment(*more: Path) -> jinja2.Environment:
    """Templates of pages (and of `more` folders), everything escaped that is not Markup."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, *more]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "span": span,
        "words": words,
        "short": short,
        "sentence": sentence,
        "cell": cell,
        "quoted": quoted,
        "code": code,
    }
    made.globals["mark"] = mark
    return made


def rendered(sections: list[Section], document: dict[str, Any]) -> tuple[list[Shown], list[tuple[Section, str]]]:
    """The sections that have something to show, and those that have not or cannot, each with the reason ('' or an
    error's name).

    Whatever an outcome holds, a report is published: a section that fails is left out, and the page says so.
    """
    shown, missing = [], []
    for section in sections:
        try:
            view = section.view(document)
            if view is None:
                missing.append((section, ""))
                continue
            template = environment().get_template(f"sections/{section.key}.jinja")
            shown.append(Shown(section.key, section.title, Markup(template.render(view))))  # noqa: S704 - escaped there
        except Exception as error:  # noqa: BLE001 - see above
            missing.append((section, f"{type(error).__name__}: {error}"))
    return shown, missing


# --------------------------------------------------------------------------------------------------------- how it reads


def number(value: object, digits: int = 4) -> str:
    """A figure as people read it: four significant digits, thousands apart, a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return short(str(value))
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−") if abs(value) < 10**15 else short(value, 20)
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 10**digits:
        return number(int(value))
    if not 1e-4 <= abs(value) < 10 ** (digits + 2):
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = min(f"{value:,.{min(places, digits)}f}", f"{value:,}", key=len)  # 9.4 as it is, not as 9.400
    return text.replace("-", "−")


def signed(value: object, digits: int = 4) -> str:
    """A difference, its sign always there."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return number(value)
    text = number(float(value), digits)
    return text if value < 0 else f"+{text}"


def percent(value: object, places: int = 1) -> str:
    """A share in per cent."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return number(value)
    return f"{100 * value:.{places}f}%".replace("-", "−")


def span(seconds: object) -> str:
    """A length of time as people read it: 4.2 s, 5 min 43 s, 2 h 10 min."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return number(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    return f"{minutes // 60} h {minutes % 60} min"


def at(unix: object) -> str:
    """A Unix time as a moment in UTC."""
    if isinstance(unix, bool) or not isinstance(unix, (int, float)) or not math.isfinite(unix):
        return "–"
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return "–"


def words(value: object) -> str:
    """A name of the code as words: ndcg_at_6 is ndcg at 6."""
    return short(str(value).replace("_", " "))


def short(value: object, longest: int = LONGEST) -> str:
    """A text, cut where it is longer than a person reads."""
    text = str(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def sentence(value: object) -> str:
    """A reason as a sentence: its first letter large, a full stop at its end."""
    text = short(str(value).strip())
    if not text:
        return ""
    first = text.split(maxsplit=1)[0]  # the name of a step or a column stays as it is written
    start = text if "_" in first else text[0].upper() + text[1:]
    return start + ("" if text[-1] in ".!?…" else ".")


def cell(value: object) -> str:
    """A text as one cell of a Markdown table: one line, nothing in it that ends the cell or is more than text."""
    return quoted(" ".join(short(value, 200).split()))


def quoted(value: object) -> str:
    """A text inside Markdown: no link, image, code or HTML comes out of it."""
    return "".join(_ESCAPED.get(character, character) for character in short(value))


def code(value: object) -> str:
    """A text as it stands between backticks in a cell of a Markdown table."""
    return " ".join(short(value, 200).split()).replace("`", "'").replace("|", "\\|")


_ESCAPED = {"\\": "\\\\", "|": "\\|", "<": "&lt;", "`": "'", "[": "\\[", "]": "\\]"}


def mark(status: object) -> Markup:
    """A status as a sign and a word in its tone."""
    sign, tone = MARKS.get(str(status), ("", "no" if str(status).endswith("refused") or status == "try_again" else ""))
    return Markup('<span class="mark {}"><span aria-hidden="true">{}</span>{}</span>').format(
        tone, f"{sign} " if sign else "", words(status)
    )
