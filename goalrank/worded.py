"""Options in one line of words, `own=8 refresh=50`: how a night is told what its preset does not say."""

from __future__ import annotations

from collections.abc import Collection

from goalrank.errors import UsageError


def read_words(line: str, keys: Collection[str], what: str, example: str) -> dict[str, str]:
    """What the line says, by key; nothing of an empty one.

    Args:
        line: words KEY=VALUE with white space between them.
        keys: that there are.
        what: the line is, for the error.
        example: of such a line, for the error.

    Raises:
        UsageError: a word has another key or no value, or a key stands there twice.
    """
    said: dict[str, str] = {}
    for word in line.split():
        key, _, value = word.partition("=")
        if key not in keys or not value:
            raise UsageError(
                f"{word!r} found in {what} {line!r}, expected words like {example}; there are {', '.join(keys)}"
            )
        if key in said:
            raise UsageError(f"{key} found twice in {what} {line!r}, expected it once")
        said[key] = value
    return said
