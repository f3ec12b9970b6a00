"""Example requests side by side, largest disagreement first."""

from __future__ import annotations

from typing import Any

from components.publish_report.document import figures

OPEN = 3
"""Examples that are unfolded when the page is opened."""

LONGEST_TITLE = 200


def requests(document: dict[str, Any]) -> dict[str, Any] | None:
    """Each example with both lists, place by place, and what moved."""
    found = figures(document["outcomes"], "evaluate_ranker").get("examples")
    if not found:
        return None
    rows = [_example(example) for example in found]
    return {"rows": rows, "open": OPEN, "against": rows[0]["against"], "moved": any(row["clicks"] for row in rows)}


def _example(example: dict[str, Any]) -> dict[str, Any]:
    clicked = {str(item) for item in example.get("clicked") or []}
    ours = [_item(item, clicked) for item in example["challenger"]]
    theirs = [_item(item, clicked) for item in example["other"]]
    return {
        "request_id": str(example["request_id"]),
        "against": str(example.get("against", "champion")),
        "places": sum(a["key"] != b["key"] for a, b in zip(ours, theirs, strict=False)),
        "of": max(len(ours), len(theirs)),
        "judged": example.get("judged") or {},
        "clicks": len(clicked),
        "lists": [("challenger", _moves(ours, theirs)), ("other", _moves(theirs, ours))],
    }


def _item(item: Any, clicked: set[str]) -> dict[str, Any]:
    """An item; of nights of an older release only the title is known."""
    if not isinstance(item, dict):
        item = {"item_id": None, "title": item, "topics": []}
    title = str(item.get("title"))
    key = str(item["item_id"]) if item.get("item_id") is not None else title
    return {
        "key": key,
        "item_id": item.get("item_id"),
        "title": title if len(title) <= LONGEST_TITLE else f"{title[:LONGEST_TITLE]}…",
        "topics": [str(topic) for topic in item.get("topics") or []][:8],
        "clicked": key in clicked,
    }


def _moves(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each item with how many places higher it stands than in the other list; None where it is not in that list."""
    places = {item["key"]: place for place, item in enumerate(theirs)}
    return [
        item | {"up": places[item["key"]] - place if item["key"] in places else None} for place, item in enumerate(ours)
    ]
