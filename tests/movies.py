"""Ratings in GroupLens' format by made-up people whose taste moves on: histories say where to, popularity does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from goalrank.movielens import GENRES

USERS, MOVIES, RATINGS_EACH = 300, 240, 84
TASTES = 6
"""Groups of films; whoever has seen enough of one goes on to the next."""


def write_movies(folder: Path) -> None:
    """ratings.dat, movies.dat and users.dat, as ml-1m.zip has them."""
    random = np.random.default_rng(5)
    folder.mkdir()
    taste_M = np.arange(MOVIES) % TASTES
    ratings = []
    for user in range(1, USERS + 1):
        first, seen = int(random.integers(TASTES)), set()
        for number in range(RATINGS_EACH):
            liked = (first + number // (RATINGS_EACH // 3)) % TASTES
            left_M = np.array([m not in seen for m in range(MOVIES)])
            chance_M = np.where(taste_M == liked, 12.0, 1.0) * left_M
            movie = int(random.choice(MOVIES, p=chance_M / chance_M.sum()))
            seen.add(movie)
            stars = random.choice([4, 5]) if taste_M[movie] == liked else random.choice([1, 2, 3])
            ratings.append(f"{user}::{movie + 1}::{stars}::{978_300_000 + number}")
    movies = [f"{m + 1}::Film {m + 1} (1999)::{GENRES[taste_M[m]]}" for m in range(MOVIES)]
    users = [f"{user}::{'FM'[user % 2]}::25::{user % 21}::00000" for user in range(1, USERS + 1)]
    for name, lines in {"ratings": ratings, "movies": movies, "users": users}.items():
        (folder / f"{name}.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
