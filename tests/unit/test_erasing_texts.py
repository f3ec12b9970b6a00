"""A user's id in every spelling that our texts ever used: replaced, and nobody else's number touched."""

from __future__ import annotations

import fcntl
import html
import json
import re
from pathlib import Path

import pytest
from markupsafe import escape

from components.publish_report.page import quoted
from components.serve_model.journal import DAMAGED, SUFFIX
from components.serve_model.served_log import JOURNAL
from console.erasure import text
from console.erasure.text import ERASED, journal, redact
from goalrank import schema

USER = 4711
REFERENCE = "references: expected at most 50% of the users unknown, found 1 of 3 rows otherwise, for example "
QUOTES = [
    "user_stats: expected clicks never null, for example dt=2026-01-03 user_id=4711 clicks=None; user_id=4712",
    "user_stats: expected user_id of 1 and above, for example user_id=4711.0",
    f"{REFERENCE}reference=users distinct=3 unknown=3 for_example=user_id 5, user_id 4711, user_id 14711 x=1",
    # as a release before this one wrote it
    f"{REFERENCE}reference=users distinct=3 unknown=3 for_example=5 4711 14711 unknown_users=1",
    f"{REFERENCE}reference=users distinct=3 unknown=3 for_example=4711 47110 unknown_users=1",
    "user_history:history_items of user_id 4711 is [5] online, [5, 6] offline",
    "Feast gives no row of user_stats for user_id 4711 as of 2026-01-04T00:00:00+00:00",
    json.dumps({"user_id": USER, "rank": 1}),
]
UNTOUCHED = [
    "references: reference=candidates distinct=3 unknown=3 for_example=5 4711 14711 unknown_items=1",
    "shown items for_example=item_id 4711, item_id 5; reference=users distinct=1 unknown=1 for_example=5",
    "4711 examples, user_id=47110, 0.4711",
]


@pytest.mark.parametrize("spelt", ["plain.log", "quoted.json", "page.html", "card.md"])
@pytest.mark.parametrize("quote", QUOTES)
def test_the_id_goes_from_a_quote(tmp_path: Path, quote: str, spelt: str) -> None:
    as_written = {"plain.log": str, "quoted.json": json.dumps, "page.html": html.escape, "card.md": quoted}[spelt]
    (tmp_path / spelt).write_text(as_written(quote))
    assert redact(tmp_path, USER, set(), dry_run=False) == [tmp_path / spelt]
    left = (tmp_path / spelt).read_text()
    assert not re.search(rf"(?<!\d){USER}(?!\d)", left)
    others = [number for number in re.findall(r"\d{4,}", as_written(quote)) if number != str(USER)]
    assert re.findall(r"\d{4,}", left) == others, "other ids, days and numbers stay"


@pytest.mark.parametrize("untouched", UNTOUCHED)
def test_what_is_no_user_stays(tmp_path: Path, untouched: str) -> None:
    (tmp_path / "plain.log").write_text(untouched)
    assert redact(tmp_path, USER, set(), dry_run=False) == []
    assert (tmp_path / "plain.log").read_text() == untouched


def test_a_request_goes_however_a_page_spells_it(tmp_path: Path) -> None:
    request = 'a|"b"[1]'
    for name, spelling in (("card.md", quoted), ("page.html", escape), ("old.html", html.escape)):
        (tmp_path / name).write_text(f"request_id={spelling(request)}.")
    assert len(redact(tmp_path, USER, {request}, dry_run=False)) == 3
    assert {file.read_text() for file in tmp_path.iterdir()} == {f"request_id={ERASED}."}


def test_a_dry_run_names_the_files_and_changes_none(tmp_path: Path) -> None:
    (tmp_path / "plain.log").write_text("request_id=r-1 user_id=4711")
    assert redact(tmp_path, USER, {"r-1"}, dry_run=True) == [tmp_path / "plain.log"]
    assert (tmp_path / "plain.log").read_text() == "request_id=r-1 user_id=4711"
    redact(tmp_path, USER, {"r-1"}, dry_run=False)
    assert (tmp_path / "plain.log").read_text() == f"request_id={ERASED} user_id={schema.SMALLEST_ID - 1}"


# ------------------------------------------------------------------------------------------- the service's journal


def line(request: str, user: int, **more: object) -> bytes:
    return json.dumps({"request_id": request, "user_id": user, "items": [5], **more}).encode() + b"\n"


THEIRS = [
    line("mine", USER),
    line("short", USER)[:-12] + b"\n",
    line("bytes", USER).replace(b"items", b"\xff\xfe"),
    line("key", USER).replace(b"user_id", b"us\x00r_id"),
    line("text", USER).replace(b"4711", b'"4711"'),
    b'{"feedback_on": "mine", "position": 1}\n',
    b'{"feedback_on": "earlier", "posit\n',
    b"[" * 100_000 + b" 4711\n",
]
OTHERS = [
    line("yours", 47110),
    line("14711", 5, candidate_scores=[0.4711]),
    line("short", 5)[:-12] + b"\n",
    b'{"feedback_on": "yours", "position": 4}\n',
    b"\xff\xfe\n",
]


@pytest.mark.parametrize("suffix", [SUFFIX, DAMAGED])
def test_the_user_goes_from_the_journal_and_from_what_was_set_aside_of_it(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / JOURNAL / f"1-a{suffix}"
    file.parent.mkdir()
    mixed = b"".join(part for pair in zip(THEIRS, [*OTHERS, b"", b"", b""], strict=True) for part in pair)
    file.write_bytes(mixed)
    assert journal(tmp_path, USER, {"earlier"}, dry_run=True) == (len(THEIRS), 0)
    assert file.read_bytes() == mixed
    assert journal(tmp_path, USER, {"earlier"}, dry_run=False) == (len(THEIRS), 0)
    assert file.read_bytes() == b"".join(OTHERS)
    assert journal(tmp_path, USER, {"earlier"}, dry_run=False) == (0, 0)


def test_a_request_in_one_file_names_its_feedback_in_another(tmp_path: Path) -> None:
    folder = tmp_path / JOURNAL
    folder.mkdir()
    (folder / f"1-a{SUFFIX}").write_bytes(line("mine", USER))
    (folder / f"1-b{DAMAGED}").write_bytes(b'{"feedback_on": "mine", "posit\n' + OTHERS[0])
    assert journal(tmp_path, USER, set(), dry_run=False) == (2, 0)
    assert [file.read_bytes() for file in sorted(folder.iterdir())] == [b"", OTHERS[0]]


def test_a_whole_line_goes_by_its_user_and_not_by_its_numbers(tmp_path: Path) -> None:
    """An item may have the same number; the lines of a journal that can be read are somebody's served lists."""
    file = tmp_path / JOURNAL / f"1-a{SUFFIX}"
    file.parent.mkdir()
    file.write_bytes(line("yours", 5, candidates=[USER]))
    assert journal(tmp_path, USER, set(), dry_run=False) == (0, 0)


def test_the_journal_of_a_service_that_runs_is_left_and_said(tmp_path: Path) -> None:
    file = tmp_path / JOURNAL / f"1-a{SUFFIX}"
    file.parent.mkdir()
    file.write_bytes(line("mine", USER))
    with open(file, "rb") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        assert journal(tmp_path, USER, set(), dry_run=False) == (0, 1)
    assert file.read_bytes() == line("mine", USER)


def test_what_a_service_wrote_before_it_ended_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look and the lock: another user's line, and a file that was written out to the logs."""
    folder = tmp_path / JOURNAL
    folder.mkdir()
    written_out, written_on = folder / f"1-a{SUFFIX}", folder / f"1-b{SUFFIX}"
    for file in (written_out, written_on):
        file.write_bytes(line("mine", USER))
    look = text._lines

    def looked(path: Path) -> list[bytes]:
        lines = look(path)
        if path == written_out:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes() + OTHERS[0])
        return lines

    monkeypatch.setattr(text, "_lines", looked)
    assert journal(tmp_path, USER, set(), dry_run=False) == (1, 0)
    assert written_on.read_bytes() == OTHERS[0] and not written_out.exists()
