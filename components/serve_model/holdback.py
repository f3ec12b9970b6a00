"""Who is held back after a promotion, and the name of an answer that no version gave.

The server asks for every request; the watch asks for users whom no version has answered yet. One place, so that both
have the same plan.
"""

from __future__ import annotations

import hashlib

RETRIEVER_POLICY = "goalrank-fallback:retriever"
"""requests.policy of an answer that no version gave: the retriever's order."""


def held_back(user_id: int, champion: str, previous: str, holdback: float) -> bool:
    """Whether this user is still answered by the version before the champion; always the same for the same arguments.

    Args:
        user_id: as in requests.
        champion, previous: version numbers.
        holdback: share of users held back, 0..1.
    """
    if holdback <= 0.0:
        return False
    # Salted with the versions: it is not always the same users who get the older one.
    salted = f"{champion}/{previous}/{user_id}".encode()
    draw = int.from_bytes(hashlib.blake2b(salted, digest_size=8).digest(), "big") / 2**64
    return draw < holdback
