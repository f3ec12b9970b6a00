"""Which column of a foreign file plays which role: guessed from its header, corrected by `--map role=column`.

Names are compared without case and without anything but letters and digits: `viewerId`, `viewer_id` and `Viewer ID` are
one name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from goalrank.errors import UsageError
from goalrank.rating_files import named

JOIN = "+"
"""`request=session+when`: a list is told by several columns together."""


@dataclass(frozen=True)
class Role:
    """What a column may mean, and the names it usually has, in order of preference."""

    name: str
    meaning: str
    known: tuple[str, ...]
    needed: bool = False
    joined: bool = False  # may be several columns together


IMPRESSION_ROLES = (
    Role(
        "request",
        "which list the row belongs to",
        (
            "request_id",
            "request",
            "list_id",
            "slate_id",
            "page_view_id",
            "query_id",
            "search_id",
            "session_id",
            "session",
        ),
        needed=True,
        joined=True,
    ),
    Role(
        "user",
        "who saw it",
        (
            "user_id",
            "user",
            "viewer_id",
            "viewer",
            "visitor_id",
            "visitor",
            "customer_id",
            "customer",
            "member_id",
            "member",
            "account_id",
            "account",
            "uid",
        ),
        needed=True,
    ),
    Role(
        "time",
        "when it was shown",
        ("event_time", "shown_at", "timestamp", "time", "when", "datetime", "date_time", "ts", "created_at"),
        needed=True,
    ),
    Role("position", "its place in the list", ("position", "slot", "rank", "pos", "place"), needed=True),
    Role(
        "item",
        "what was shown",
        (
            "item_id",
            "item",
            "article_id",
            "article",
            "product_id",
            "product",
            "video_id",
            "video",
            "content_id",
            "content",
            "document_id",
            "document",
            "movie_id",
            "movie",
            "sku",
        ),
        needed=True,
    ),
    Role("click", "was it clicked?", ("click", "clicked", "is_click", "is_clicked", "clicks"), needed=True),
    Role("like", "was it liked?", ("like", "liked", "is_like", "is_liked", "likes")),
    Role("watch", "seconds spent on it", ("watch_seconds", "dwell_seconds", "seconds", "dwell_time_seconds")),
    Role("watch_ms", "milliseconds spent on it", ("watch_ms", "dwell_ms", "watch_milliseconds", "dwell_milliseconds")),
    Role("propensity", "probability of the item at its place", ("propensity", "propensity_score", "pscore")),
    Role("policy", "who ranked the list", ("policy", "ranker", "model_version")),
    Role("candidates", "items the ranker chose from", ("candidates", "candidate_ids")),
    Role("scores", "the retriever's score of each candidate", ("candidate_scores",)),
)

ITEM_ROLES = (
    Role("item", "its id", IMPRESSION_ROLES[4].known + ("id",), needed=True),
    Role("title", "its title", ("title", "name", "headline")),
    Role("topics", "its topics, parted by |", ("topics", "topic", "genres", "genre", "categories", "category", "tags")),
    Role("duration", "its length in seconds", ("duration_seconds", "duration", "length_seconds")),
    Role("created", "when it appeared", ("created_at", "published_at", "created", "published")),
)

USER_ROLES = (Role("user", "their id", IMPRESSION_ROLES[1].known + ("id",), needed=True),)
"""Every other column of a table of users is an attribute."""


def parse_mapping(given: Sequence[str], roles: Sequence[Role]) -> dict[str, tuple[str, ...]]:
    """`role=column`, `role=column+column` or `role=` (no such column), several in one text parted by commas.

    Returns:
        Columns of each role named; an empty tuple where it is said to have none.

    Raises:
        UsageError: no `=`, no such role, a role twice, or several columns where there can be one.
    """
    known = {role.name: role for role in roles}
    mapping: dict[str, tuple[str, ...]] = {}
    for piece in (piece.strip() for text in given for piece in text.split(",")):
        name, equals, columns = (part.strip() for part in piece.partition("="))
        if not equals or name not in known:
            raise UsageError(
                f"--map {piece!r} found, expected ROLE=COLUMN with a role of {', '.join(known)}; "
                "for example --map user=viewer,item=article"
            )
        if name in mapping:
            raise UsageError(f"--map names a column for {name} twice; keep one of them")
        chosen = tuple(column.strip() for column in columns.split(JOIN)) if columns else ()
        if len(chosen) > 1 and not known[name].joined:
            raise UsageError(f"--map {piece!r} found, expected one column: only request may be several together")
        mapping[name] = chosen
    return mapping


def choose(
    file: str, header: Sequence[str], given: Mapping[str, tuple[str, ...]], roles: Sequence[Role]
) -> dict[str, tuple[str, ...]]:
    """The columns of every role the file has: as given, else as recognised.

    Raises:
        UsageError: a given column is not there, or a needed one was not recognised; both name all there are.
    """
    by_name = {_plain(name): name for name in reversed(header)}  # of two alike the first
    chosen: dict[str, tuple[str, ...]] = {}
    for role in roles:
        if role.name in given:
            columns = given[role.name]
            if missing := [column for column in columns if column not in header]:
                raise UsageError(
                    f"--map {role.name}={JOIN.join(columns)}: {file} has no column {missing[0]!r}, "
                    f"but {named(header)}; name one of these"
                )
        else:
            # One that tells lists apart together with others may have a role of its own besides.
            taken = {columns[0] for columns in (*given.values(), *chosen.values()) if len(columns) == 1}
            found = (by_name[_plain(name)] for name in role.known if _plain(name) in by_name)
            columns = tuple(column for column in found if column not in taken)[:1]
        if columns:
            chosen[role.name] = columns
    if lacking := [role for role in roles if role.needed and role.name not in chosen]:
        told = "; ".join(f"{role.name} ({role.meaning})" for role in lacking)
        example = ",".join(f"{role.name}=COLUMN" for role in lacking)
        raise UsageError(
            f"{file} has the columns {named(header)}; expected one for each of: {told}; say which with --map {example}"
        )
    return chosen


def as_flag(columns: Mapping[str, tuple[str, ...]]) -> str:
    """The mapping as --map takes it."""
    return ",".join(f"{role}={JOIN.join(names)}" for role, names in columns.items())


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
