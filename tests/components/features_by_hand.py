"""The feature rows of small logs, worked out in plain Python by a loop over days: slow, and plainly right."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime
from typing import Any

from goalrank import schema
from tests.components.log_samples import Logs, at, plus

Rows = list[dict[str, Any]]


def mask_of(topics: list[int]) -> int:
    return sum(1 << bucket for bucket in {topic % schema.TOPIC_BUCKETS for topic in topics})


def features_by_hand(logs: Logs) -> dict[str, dict[str, Rows]]:
    """table -> arrival day -> rows sorted as the snapshot sorts them."""
    out: dict[str, dict[str, Rows]] = {name: {} for name in (*schema.FEATURE_VIEWS, "examples")}
    content: dict[int, dict[str, Any]] = {}
    known: set[int] = set()
    request_of: dict[str, dict[str, Any]] = {}
    item_events: dict[int, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    user_events: dict[int, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    topic_clicks: dict[int, list[int]] = defaultdict(lambda: [0] * schema.TOPIC_BUCKETS)
    for day in logs.days:
        stamp = {"event_timestamp": at(plus(day, 1)), "created_timestamp": at(plus(day, 1))}
        items = {row["item_id"]: row for row in logs.rows["items"].get(day, [])}
        users = {row["user_id"]: row for row in logs.rows["users"].get(day, [])}
        content.update(items)
        for row in logs.rows["requests"][day]:
            request_of[row["request_id"]] = {**row, "dt": day}
        lists: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for shown in logs.rows["impressions"][day]:
            request = request_of[shown["request_id"]]
            event = {**shown, "event_time": request["event_time"]}
            item_events[shown["item_id"]].append((day, event))
            user_events[request["user_id"]].append((day, event))
            if request["dt"] == day:
                lists[shown["request_id"]].append(shown)
            if shown["click"] and shown["item_id"] in content:
                mask = mask_of(content[shown["item_id"]]["topics"])
                for bucket in range(schema.TOPIC_BUCKETS):
                    topic_clicks[request["user_id"]][bucket] += mask >> bucket & 1
        known |= set(items) | set(item_events)

        out["user_profile"][day] = [
            {"user_id": user, **stamp, "attributes": users[user]["attributes"]} for user in sorted(users)
        ]
        out["item_content"][day] = [
            {
                "item_id": item,
                **stamp,
                "topic_mask": mask_of(row["topics"]),
                "duration_seconds": row["duration_seconds"],
                "title": row["title"],
            }
            for item, row in sorted(items.items())
        ]
        out["item_stats"][day] = [
            {"item_id": item, **stamp, **_item(item_events[item], day), "age_days": _age(content.get(item), day)}
            for item in sorted(known)
        ]
        touched = sorted(user for user, events in user_events.items() if events[-1][0] == day)
        out["user_stats"][day] = [
            {
                "user_id": user,
                **stamp,
                **_totals([event for _, event in user_events[user]]),
                "active_days": len({arrived for arrived, _ in user_events[user]}),
                "topic_clicks": list(topic_clicks[user]),
            }
            for user in touched
        ]
        out["user_history"][day] = [
            {"user_id": user, **stamp, **_history([event for _, event in user_events[user]], content)}
            for user in touched
        ]
        out["examples"][day] = [_example(request_of[name], lists[name]) for name in lists]
        out["examples"][day].sort(key=lambda row: (row["event_time"], row["request_id"]))
    return out


def _totals(events: Rows, suffix: str = "") -> dict[str, int]:
    return {
        f"impressions{suffix}": len(events),
        f"clicks{suffix}": sum(event["click"] for event in events),
        f"likes{suffix}": sum(event["like"] for event in events),
        f"watch_ms{suffix}": sum(round((event["watch_seconds"] or 0) * 1000) for event in events),
    }


def _item(events: list[tuple[str, dict[str, Any]]], day: str) -> dict[str, int]:
    week = _totals([event for arrived, event in events if arrived >= plus(day, -6)], "_7d")
    week.pop("watch_ms_7d")
    return {**week, **_totals([event for _, event in events], "_total")}


def _age(content: dict[str, Any] | None, day: str) -> int | None:
    if content is None:
        return None
    created: datetime = content["created_at"]
    return (date.fromisoformat(plus(day, 1)) - created.date()).days


def _history(events: Rows, content: dict[int, dict[str, Any]]) -> dict[str, list[int]]:
    clicks = [event for event in events if event["click"]]
    clicks.sort(key=lambda event: (event["event_time"], event["request_id"], event["position"]))
    items = [event["item_id"] for event in clicks][-schema.HISTORY_LENGTH :]
    masks = [mask_of(content[item]["topics"]) if item in content else 0 for item in items]
    return {"history_items": items, "history_topics": masks}


def _example(request: dict[str, Any], shown: Rows) -> dict[str, Any]:
    shown = sorted(shown, key=lambda row: row["position"])

    def known(name: str) -> list[Any] | None:
        values = [row[name] for row in shown]
        return None if all(value is None for value in values) else values

    return {
        **request,
        "slate": [row["item_id"] for row in shown],
        "propensities": known("propensity"),
        "clicks": [row["click"] for row in shown],
        "likes": [row["like"] for row in shown],
        "watch_seconds": known("watch_seconds"),
    }
