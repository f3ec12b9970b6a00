"""GroupLens' MovieLens-1M files as logs of the data contract, by the offline protocol (docs/method.md).

Harper and Konstan: The MovieLens Datasets, ACM TiiS 5(4), 2015. The files, latin-1, fields parted by "::":

    ratings.dat   UserID::MovieID::Rating::Timestamp      rating 1 to 5, whole; seconds since 1970
    movies.dat    MovieID::Title::Genre|Genre|...
    users.dat     UserID::Gender::Age::Occupation::Zip-code

Click: rating >= 4. Like: rating 5. Genres are the items' topics.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from goalrank.errors import DataRefused
from goalrank.importing import Progress, Source, kinds_of, write_import
from goalrank.logs_writer import refuse_occupied
from goalrank.offline_protocol import Ratings
from goalrank.rating_files import Columns, present, refusal

CORE = 20
CLICK_FROM, LIKE_FROM = 4.0, 5.0
LOWEST, HIGHEST = 1, 5

GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
"""In the order of the data set's README; a topic id is the place in here, so it never moves."""

_RATING_FIELDS = ("UserID", "MovieID", "Rating", "Timestamp")
_MOVIE_FIELDS = ("MovieID", "Title", "Genres")
_USER_FIELDS = ("UserID", "Gender", "Age", "Occupation", "Zip-code")
_DOWNLOAD = "unpack ml-1m.zip again"


def import_movielens(
    source: str, out: str, candidates: str = "matched", seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Turn GroupLens' files into logs.

    Args:
        source: the folder with ratings.dat, movies.dat and users.dat.
        out: the logs' folder, empty or not there yet; with "both" it gets two of them, matched/ and retrieved/.
        candidates: "matched", "retrieved" or "both" (goalrank.candidates).
        seed: of candidates, their order, and the times of day.
        progress: called with done, total and a note.

    Returns:
        Counts, splits, days and sanity figures: what OUT/import.json holds; for "both" one of each.

    Raises:
        UsageError: ``out`` is occupied or ``candidates`` unknown.
        DataRefused: a file is missing or has a bad line; the message names it.
    """
    kinds_of(candidates)
    refuse_occupied(out)
    return write_import(read_movielens(source), out, candidates, seed, progress)


def read_movielens(source: str) -> Source:
    """The three files, checked.

    Raises:
        DataRefused: see :func:`import_movielens`.
    """
    folder = Path(source)
    if folder.is_file():
        raise refusal(
            folder, None, "a file", "the folder with ratings.dat, movies.dat and users.dat", "unpack it first"
        )
    ratings, movies, users = (present(folder / f"{name}.dat") for name in ("ratings", "movies", "users"))
    titles, topics = _read_movies(movies)
    attributes = _read_users(users)
    return Source(
        kind="movielens-1m",
        files=(ratings, movies, users),
        ratings=_read_ratings(ratings, titles, attributes),
        core=CORE,
        click_from=CLICK_FROM,
        like_from=LIKE_FROM,
        titles=titles,
        topics=topics,
        attributes=attributes,
    )


def _read_movies(path: Path) -> tuple[dict[int, str], dict[int, list[int]]]:
    titles: dict[int, str] = {}
    topics: dict[int, list[int]] = {}
    for line, (movie, title, genres) in _rows(path, _MOVIE_FIELDS):
        item_id = _identifier(path, line, "MovieID", movie)
        if item_id in titles:
            raise refusal(
                path, line, f"MovieID {item_id} a second time", "each movie once", "take one of the lines out"
            )
        if not title.strip():
            raise refusal(path, line, "an empty Title", "a title", "write one in")
        unknown = [genre for genre in genres.split("|") if genre not in GENRES]
        if unknown:
            raise refusal(path, line, f"genre {unknown[0]!r}", f"some of {'|'.join(GENRES)}", "correct the line")
        titles[item_id], topics[item_id] = title.strip(), sorted({GENRES.index(genre) for genre in genres.split("|")})
    return titles, topics


def _read_users(path: Path) -> dict[int, list[str]]:
    attributes: dict[int, list[str]] = {}
    for line, (user, gender, age, occupation, _) in _rows(path, _USER_FIELDS):
        user_id = _identifier(path, line, "UserID", user)
        if user_id in attributes:
            raise refusal(path, line, f"UserID {user_id} a second time", "each user once", "take one of the lines out")
        if gender not in ("F", "M"):
            raise refusal(path, line, f"Gender {gender!r}", "F or M", "correct the line")
        for name, value in (("Age", age), ("Occupation", occupation)):
            if not (value.isascii() and value.isdigit()):
                raise refusal(path, line, f"{name} {value!r}", "GroupLens' number for it", "correct the line")
        attributes[user_id] = [f"gender={gender}", f"age={age}", f"occupation={occupation}"]
    return attributes


def _read_ratings(path: Path, titles: dict[int, str], attributes: dict[int, list[str]]) -> Ratings:
    raw = path.read_bytes().rstrip(b"\r\n")
    names = list(_RATING_FIELDS)
    try:
        if b"\t" in raw:  # a tab would be taken for a separator below
            raise pa.ArrowInvalid("a tab")
        table = csv.read_csv(
            io.BytesIO(raw.replace(b"::", b"\t")),
            read_options=csv.ReadOptions(column_names=names),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.int64()), null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise _first_bad_rating(path, error) from None
    user_R, item_R, rating_R, time_R = (table[name].to_numpy() for name in names)
    for name, values_R, known, file in (
        ("UserID", user_R, attributes, "users.dat"),
        ("MovieID", item_R, titles, "movies.dat"),
    ):
        unknown_R = ~np.isin(values_R, np.fromiter(known, dtype=np.int64, count=len(known)))
        if unknown_R.any():
            row = int(np.argmax(unknown_R))
            mend = f"add it there or take the rating out; both files must be of one release ({_DOWNLOAD})"
            raise refusal(path, row + 1, f"{name} {values_R[row]}", f"one that {file} has", mend)
    columns = Columns(path, rating_R.astype(np.float64), time_R)
    columns.check_ratings(LOWEST, HIGHEST, whole=True)
    columns.check_times("s")
    _refuse_twice(path, user_R, item_R)
    return Ratings(user_R, item_R, columns.rating_R, time_R)


def _refuse_twice(path: Path, user_R: np.ndarray, item_R: np.ndarray) -> None:
    order_R = np.lexsort((item_R, user_R))  # stable: equal pairs stay in the order of the file
    same_R = (np.diff(user_R[order_R]) == 0) & (np.diff(item_R[order_R]) == 0)
    if same_R.any():
        again = np.flatnonzero(same_R) + 1
        row = int(order_R[again].min())
        found = f"UserID {user_R[row]} rating MovieID {item_R[row]} a second time"
        raise refusal(path, row + 1, found, "each user and movie once", "take one of the lines out")


def _first_bad_rating(path: Path, error: Exception) -> DataRefused:
    """The slow way, once the fast one has failed: line by line to the first that is not four integers."""
    for line, fields in _rows(path, _RATING_FIELDS):
        for name, value in zip(_RATING_FIELDS, fields, strict=True):
            if not value.removeprefix("-").isdigit() or not value.isascii():
                what = "seconds since 1970" if name == "Timestamp" else "an integer"
                return refusal(path, line, f"{name} {value!r}", what, "correct the line")
            if len(value) > 18:
                return refusal(path, line, f"{name} {value}", "an integer of 64 bits", "correct the line")
    return refusal(path, None, f"what cannot be read ({error})", "::".join(_RATING_FIELDS), _DOWNLOAD)


def _rows(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line.

    Raises:
        DataRefused: a line with another number of fields, or one that is not latin-1 text.
    """
    for line, raw in enumerate(path.read_bytes().rstrip(b"\r\n").split(b"\n"), start=1):
        text = raw.removesuffix(b"\r")
        _refuse_other_encoding(path, line, text)
        parts = text.decode("latin-1").split("::")
        if len(parts) != len(fields):
            found = f"{len(parts)} field{'s' * (len(parts) != 1)} in {_shown(text)}"
            raise refusal(path, line, found, f"{len(fields)}: {'::'.join(fields)}", "correct the line")
        yield line, parts


def _refuse_other_encoding(path: Path, line: int, text: bytes) -> None:
    """Any byte is latin-1; but NUL means UTF-16, and accents that decode as UTF-8 were hardly meant otherwise."""
    mend = "convert it with iconv -t LATIN1, or " + _DOWNLOAD
    if b"\0" in text or text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refusal(path, line, "UTF-16 or binary data", "latin-1 text", mend)
    if not text.isascii():
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            return
        raise refusal(path, line, f"UTF-8 text ({_shown(text)})", "latin-1 text", mend)


def _identifier(path: Path, line: int, name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise refusal(path, line, f"{name} {value!r}", "an integer", "correct the line")
    return int(value)


def _shown(text: bytes) -> str:
    shown = text.decode("latin-1")
    return repr(shown if len(shown) <= 60 else shown[:57] + "...")
