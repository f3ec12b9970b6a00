"""The documents' figures as SVG: `python -m scripts.figures` writes docs/images/{night,promotion}.svg.

Boxes have a ground of their own and arrows a grey between, so both can be read on a light page and on a dark one.
Nothing is loaded: the font is whatever the reader's system has.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"

WIDTH, HEIGHT = 164, 52  # of a box
STEP, GATE, STORE = "#dbe9f6", "#fbe3c0", "#e3e6ea"
TEXT, FAINT, LINE, EDGE = "#1b2733", "#4a5866", "#6f7c8a", "#5b6b7b"


@dataclass(frozen=True)
class Box:
    """A step, a gate or a store, by the middle of its box."""

    name: str
    under: str
    x: int
    y: int
    ground: str = STEP

    def draw(self) -> str:
        left, right, top, bottom = self.x - WIDTH // 2, self.x + WIDTH // 2, self.y - HEIGHT // 2, self.y + HEIGHT // 2
        if self.ground == GATE:  # hexagons refuse
            points = (left + 12, top), (right - 12, top), (right, self.y), (right - 12, bottom), (left + 12, bottom)
            corners = " ".join(f"{x},{y}" for x, y in (*points, (left, self.y)))
            shape = f'<polygon points="{corners}" fill="{self.ground}" stroke="{EDGE}"/>'
        else:
            rounding = 24 if self.ground == STORE else 5
            shape = (
                f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="{rounding}" '
                f'fill="{self.ground}" stroke="{EDGE}"/>'
            )
        return (
            f"{shape}\n"
            + text(self.x, self.y - 3, self.name, TEXT, 'font-size="12.5" font-weight="600"')
            + "\n"
            + text(self.x, self.y + 14, self.under, FAINT, 'font-size="10.5"')
        )


def text(x: int, y: int, said: str, colour: str, how: str = 'font-size="11"') -> str:
    """Words, their middle at x."""
    return f'<text x="{x}" y="{y}" {how} fill="{colour}">{escape(said)}</text>'


def arrow(*points: tuple[int, int], dashed: bool = False) -> str:
    """A line through the points with a head at the last."""
    path = " ".join(f"{'M' if number == 0 else 'L'}{x} {y}" for number, (x, y) in enumerate(points))
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.6" marker-end="url(#head)"{dashes}/>'


def figure(title: str, description: str, width: int, height: int, parts: list[str]) -> str:
    """An SVG document with a title for readers of the screen."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img" aria-labelledby="title description" font-family="system-ui, sans-serif" text-anchor="middle">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{LINE}"/></marker></defs>',
            *parts,
            "</svg>\n",
        ]
    )


def _right(a: Box, b: Box) -> str:
    return arrow((a.x + WIDTH // 2, a.y), (b.x - WIDTH // 2, b.y))


def night() -> str:
    """The thirteen steps of a night, from the logs to the service and back."""
    columns, rows = [92, 278, 464, 650, 836], [40, 150, 260, 360]
    logs = Box("feedback logs", "by day of arrival", columns[0], rows[0], STORE)
    check_logs = Box("check_logs", "Great Expectations", columns[1], rows[0], GATE)
    extract = Box("extract_features", "Spark, one day more", columns[2], rows[0])
    check_features = Box("check_features", "ranges, drift", columns[3], rows[0], GATE)
    materialize = Box("materialize_features", "Feast, off- and online", columns[4], rows[0])
    reward = Box("train_reward", "reward model and judge", columns[4], rows[1])
    groups = Box("generate_groups", "lists, scored", columns[3], rows[1])
    ranker = Box("train_ranker", "torch", columns[2], rows[1])
    register = Box("register_model", "MLflow: challenger", columns[1], rows[1])
    evaluate = Box("evaluate_ranker", "against the champion", columns[1], rows[2], GATE)
    smoke = Box("smoke_serve", "served = offline?", columns[2], rows[2], GATE)
    gate = Box("gate_promotion", "all verdicts say yes?", columns[3], rows[2], GATE)
    promote = Box("promote_model", "champion, previous", columns[4], rows[2])
    serve = Box("goalrank serve", "answers, logs, explores", columns[4], rows[3], STORE)
    report = Box("publish_report", "always, even of a refusal", columns[3], rows[3])
    boxes = [logs, check_logs, extract, check_features, materialize, reward, groups, ranker, register]
    boxes += [evaluate, smoke, gate, promote, serve, report]
    half, side = HEIGHT // 2, WIDTH // 2
    arrows = [
        *(_right(a, b) for a, b in ((logs, check_logs), (check_logs, extract), (extract, check_features))),
        _right(check_features, materialize),
        arrow((materialize.x, materialize.y + half), (reward.x, reward.y - half)),
        *(
            arrow((a.x - side, a.y), (b.x + side, b.y))
            for a, b in ((reward, groups), (groups, ranker), (ranker, register))
        ),
        arrow((register.x, register.y + half), (evaluate.x, evaluate.y - half)),
        *(_right(a, b) for a, b in ((evaluate, smoke), (smoke, gate), (gate, promote))),
        arrow((promote.x, promote.y + half), (serve.x, serve.y - half)),
        arrow((gate.x, gate.y + half), (report.x, report.y - half), dashed=True),
        arrow((serve.x, serve.y + half), (serve.x, 405), (logs.x, 405), (logs.x, logs.y + half), dashed=True),
    ]
    notes = [text(465, 399, "what was served, and how users took it: logs of the next night", LINE)]
    said = (
        "Feedback logs are checked, features extracted, checked and materialised. A reward model, groups of lists and "
        "the ranker are trained, and the version registered. It is evaluated against the champion and served once as a "
        "test; a gate lets it become champion. A report is always published. What the service logs is the next "
        "night's input."
    )
    return figure("A night", said, 930, 420, [*arrows, *(box.draw() for box in boxes), *notes])


def promotion() -> str:
    """What follows a promotion: journal, aliases, service, watch, roll-back."""
    columns, rows = [92, 278, 464, 650, 836], [40, 140]
    promote = Box("promote_model", "or goalrank promote", columns[0], rows[0])
    rollback = Box("goalrank rollback", "a person, or the watch", columns[0], rows[1])
    journal = Box("journal", "intent, done", columns[1], rows[0], STORE)
    aliases = Box("MLflow's aliases", "champion, previous", columns[2], rows[0], STORE)
    serve = Box("goalrank serve", "some users on previous", columns[3], rows[0])
    served = Box("served log", "lists and feedback", columns[4], rows[0], STORE)
    watch = Box("goalrank watch", "is the champion worse?", columns[3], rows[1], GATE)
    half, side = HEIGHT // 2, WIDTH // 2
    arrows = [
        *(_right(a, b) for a, b in ((promote, journal), (journal, aliases), (aliases, serve), (serve, served))),
        arrow((rollback.x + side, rollback.y), (journal.x, rollback.y), (journal.x, journal.y + half)),
        arrow((served.x, served.y + half), (served.x, watch.y), (watch.x + side, watch.y)),
        arrow((watch.x - side, watch.y + 12), (rollback.x + side, rollback.y + 12), dashed=True),
    ]
    notes = [text(465, 170, "a shown loss", LINE)]
    said = (
        "Promotion and roll-back write a journal and then move MLflow's aliases. The service follows them and leaves "
        "some users on the version before. The watch compares the two from what was served, and rolls back on a "
        "shown loss."
    )
    boxes = [promote, rollback, journal, aliases, serve, served, watch]
    return figure("After promotion", said, 930, 190, [*arrows, *(box.draw() for box in boxes), *notes])


FIGURES = {"night.svg": night, "promotion.svg": promotion}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
