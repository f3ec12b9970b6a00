"""Generic rating files: the same ratings in every format give the same logs; bad files are refused by line."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from goalrank.errors import DataRefused, UsageError
from goalrank.ratings import CORE, KNOWN_NAMES, import_ratings
from goalrank.schema import LIST_LENGTH, LOG_TABLES

USERS, ITEMS, EACH = 70, 80, 30
SECOND = 1_355_000_000
EXPECTED_SECONDS = "from 631152000 (year 1990) to 4102444800 (year 2100)"
EXPECTED_MILLISECONDS = "from 631152000000 (year 1990) to 4102444800000 (year 2100)"
TIME_MEND = "correct the line, or name the time's unit if all of them are in another"


def ratings(seed: int = 5) -> list[tuple[str, str, float, int]]:
    """User, item, rating, seconds; ids as Amazon's, some with leading zeros."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        items = random.choice(ITEMS, EACH, replace=False)
        times = SECOND + np.sort(random.integers(0, 10_000_000, EACH))
        for item, time in zip(items, times, strict=True):
            rows.append((f"A{user:013d}", f"{item:010d}", float(random.integers(1, 6)), int(time)))
    return [rows[place] for place in random.permutation(len(rows))]


def text(rows: list[tuple], delimiter: str = ",", header: str = "", end: str = "\n") -> bytes:
    lines = [delimiter.join(str(value) for value in row) for row in rows]
    return end.join([header] * bool(header) + lines + [""]).encode()


def logs_of(folder: Path) -> dict[str, pa.Table]:
    return {name: ds.dataset(folder / name, format="parquet").to_table() for name in LOG_TABLES}


def same_logs(first: Path, second: Path) -> bool:
    one, other = logs_of(first), logs_of(second)
    return all(one[name].equals(other[name]) for name in LOG_TABLES)


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of the headerless form, which all others must equal."""
    root = tmp_path_factory.mktemp("amazon")
    (root / "ratings_Books.csv").write_bytes(text(ratings()))
    import_ratings(str(root / "ratings_Books.csv"), str(root / "logs"))
    return root / "logs"


def in_milliseconds(rows: list[tuple]) -> list[tuple]:
    return [(user, item, rating, time * 1000) for user, item, rating, time in rows]


FORMS = {
    "rating_only.csv": text(in_milliseconds(ratings()), header="user_id,parent_asin,rating,timestamp"),
    "rating_only.csv.gz": gzip.compress(
        text(in_milliseconds(ratings()), header="user_id,parent_asin,rating,timestamp")
    ),
    "plain.tsv": text(ratings(), "\t"),
    "semicolons.txt": text(ratings(), ";", "userId;itemId;rating;time"),
    "windows.csv": text(ratings(), end="\r\n"),
    "byte_order_mark.csv": b"\xef\xbb\xbf" + text(ratings(), header="user,item,rating,time"),
    "quoted.csv": text(
        [(f'"{u}"', f'"{i}"', r, t) for u, i, r, t in ratings()], header='"user","item","rating","time"'
    ),
    "more_columns.csv": text([(t, "x", r, u, i) for u, i, r, t in ratings()], header="time,city,rating,user,item"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_text_form_gives_the_same_logs(amazon: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMS[name])
    import_ratings(str(tmp_path / name), str(tmp_path / "logs"))
    assert same_logs(tmp_path / "logs", amazon)


@pytest.mark.parametrize("time_type", [pa.int64(), pa.timestamp("us", tz="UTC"), pa.timestamp("ns")])
def test_parquet_gives_the_same_logs(amazon: Path, tmp_path: Path, time_type: pa.DataType) -> None:
    user, item, rating, time = zip(*ratings(), strict=True)
    scale = 1 if time_type == pa.int64() else {"us": 1_000_000, "ns": 1_000_000_000}[time_type.unit]
    times = pa.array(np.array(time) * scale).cast(time_type)
    columns = {"who": pa.array(user).dictionary_encode(), "what": pa.array(item, pa.large_string())}
    table = pa.table({**columns, "stars": pa.array(rating, pa.float32()), "when": times})
    pq.write_table(table, tmp_path / "ratings.parquet")
    import_ratings(str(tmp_path / "ratings.parquet"), str(tmp_path / "logs"), columns=("who", "what", "stars", "when"))
    assert same_logs(tmp_path / "logs", amazon)


def test_columns_by_place_and_the_2018_order(amazon: Path, tmp_path: Path) -> None:
    (tmp_path / "Books.csv").write_bytes(text([(i, u, r, t) for u, i, r, t in ratings()]))
    import_ratings(str(tmp_path / "Books.csv"), str(tmp_path / "logs"), columns=(1, 0, 2, 3))
    assert same_logs(tmp_path / "logs", amazon)


def test_mapped_ids_are_stable_and_written(amazon: Path) -> None:
    mapping = pq.read_table(amazon / "item_ids.parquet").to_pylist()
    for row in mapping:
        assert row["id"] == int(hashlib.sha1(row["original"].encode()).hexdigest()[:16], 16) >> 1
    logs = logs_of(amazon)
    assert {row["id"]: row["original"] for row in mapping} == dict(
        zip(logs["items"]["item_id"].to_pylist(), logs["items"]["title"].to_pylist(), strict=True)
    )
    users = pq.read_table(amazon / "user_ids.parquet")
    assert set(users["id"].to_pylist()) == set(logs["users"]["user_id"].to_pylist())
    assert set(users["original"].to_pylist()) == {f"A{user:013d}" for user in range(USERS)}


def test_plain_integers_stay_what_they_are(tmp_path: Path) -> None:
    rows = [(int(user[1:]) + 5, int(item) + 1, rating, time) for user, item, rating, time in ratings()]
    (tmp_path / "ratings.csv").write_bytes(text(rows))
    import_ratings(str(tmp_path / "ratings.csv"), str(tmp_path / "logs"))
    assert sorted(logs_of(tmp_path / "logs")["users"]["user_id"].to_pylist()) == list(range(5, USERS + 5))
    assert not list((tmp_path / "logs").glob("*_ids.parquet"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_from_zero_are_mapped_since_zero_means_nobody(tmp_path: Path, suffix: str) -> None:
    rows = [(int(user[1:]) + 5, int(item), rating, time) for user, item, rating, time in ratings()]
    file = tmp_path / f"ratings.{suffix}"
    if suffix == "csv":
        file.write_bytes(text(rows))
    else:
        names = ("user_id", "item_id", "rating", "timestamp")
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), file)
    import_ratings(str(file), str(tmp_path / "logs"))
    mapping = pq.read_table(tmp_path / "logs" / "item_ids.parquet").to_pylist()
    assert min(row["id"] for row in mapping) > 0
    assert {row["original"] for row in mapping} == {str(item) for _, item, _, _ in rows}
    assert not (tmp_path / "logs" / "user_ids.parquet").exists()


def test_labels_order_and_days(amazon: Path) -> None:
    logs, summary = logs_of(amazon), json.loads((amazon / "import.json").read_text())
    names = {row["id"]: row["original"] for row in pq.read_table(amazon / "item_ids.parquet").to_pylist()}
    user_of = {row["request_id"]: row["user_id"] for row in logs["requests"].to_pylist()}
    users = {row["id"]: row["original"] for row in pq.read_table(amazon / "user_ids.parquet").to_pylist()}
    replayed: dict[str, list[tuple]] = {}
    for row in sorted(logs["impressions"].to_pylist(), key=lambda row: (row["request_id"], row["position"])):
        replayed.setdefault(users[user_of[row["request_id"]]], []).append(
            (names[row["item_id"]], row["click"], row["like"])
        )
    for user, shown in replayed.items():
        mine = sorted((row for row in ratings() if row[0] == user), key=lambda row: row[3])
        assert shown == [(item, int(rating >= 4), int(rating == 5)) for _, item, rating, _ in mine]
    assert len(replayed) == USERS and summary["counts"]["ratings"] == USERS * EACH
    assert set(map(tuple, logs["items"]["topics"].to_pylist())) == {()}
    slates = (EACH - EACH // 2) // LIST_LENGTH
    assert summary["splits"]["test"] == summary["splits"]["validation"] == USERS
    assert summary["splits"]["train"] == USERS * (slates - 2)


def test_own_thresholds(tmp_path: Path) -> None:
    rows = [(user, item, rating * 2, time) for user, item, rating, time in ratings()]
    (tmp_path / "ratings.csv").write_bytes(text(rows))
    import_ratings(str(tmp_path / "ratings.csv"), str(tmp_path / "logs"), scale=(1, 10), click_from=6, like_from=8)
    impressions = logs_of(tmp_path / "logs")["impressions"]
    doubled = np.array([rating for _, _, rating, _ in rows])
    assert sum(impressions["click"].to_pylist()) == (doubled >= 6).sum()
    assert sum(impressions["like"].to_pylist()) == (doubled >= 8).sum()


def test_a_repeated_rating_counts_once_at_its_first_time(tmp_path: Path) -> None:
    rows = ratings()
    again = [(user, item, 1.0, time + 50_000_000) for user, item, _, time in rows[:7]]
    (tmp_path / "once.csv").write_bytes(text(rows))
    (tmp_path / "again.csv").write_bytes(text(again + rows))
    import_ratings(str(tmp_path / "once.csv"), str(tmp_path / "once"))
    summary = import_ratings(str(tmp_path / "again.csv"), str(tmp_path / "again"))
    assert summary["notes"]["repeated_ratings_dropped"] == 7
    assert same_logs(tmp_path / "once", tmp_path / "again")


# ------------------------------------------------------------------------------------------------------- bad input

HEADED = "user,item,rating,time"
STARS = "a rating from 0.5 to 5"
CORRECT, CORRECT_OR_SCALE = "correct the line", "correct the line or the scale"
WHOLE_TIME, CONVERT = "a whole number of seconds or milliseconds since 1970", "convert the column"
NAMES_OF_TIME, SAY_WHICH = ", ".join(KNOWN_NAMES["time"]), "say which with columns=user,item,rating,time"
ICONV = "convert it to UTF-8, for example with iconv -t UTF-8"
# header, text of the third row, what is found, expected, and how to mend it
BAD_ROWS = [
    ("", b"u,i,5.0", "3 fields", "4, as in the first line", CORRECT),
    (HEADED, b"u,i,5.0,1355616000,9", "5 fields", "4, as in the first line", CORRECT),
    ("", b"", "0 fields", "4, as in the first line", CORRECT),
    ("", b"u,i,five,1355616000", "rating 'five'", "a number", CORRECT),
    ("", b"u,i,,1355616000", "rating ''", "a number", CORRECT),
    ("", b"u,i,nan,1355616000", "rating nan", STARS, CORRECT_OR_SCALE),
    (HEADED, b"u,i,inf,1355616000", "rating inf", STARS, CORRECT_OR_SCALE),
    (HEADED, b"u,i,7,1355616000", "rating 7", STARS, CORRECT_OR_SCALE),
    ("", b"u,i,-1,1355616000", "rating -1", STARS, CORRECT_OR_SCALE),
    ("", b"u,i,5,2012-12-16", "time '2012-12-16'", WHOLE_TIME, CONVERT),
    ("", b"u,i,5,", "time ''", WHOLE_TIME, CONVERT),
    ("", b"u,i,5,-4", "time -4", f"seconds since 1970, {EXPECTED_SECONDS}", TIME_MEND),
    (HEADED, b"u,i,5,1355616000000", "time 1355616000000", f"seconds since 1970, {EXPECTED_SECONDS}", TIME_MEND),
    (HEADED, b",i,5,1355616000", "an empty user", "an id", CORRECT),
    ("", b"u, ,5,1355616000", "an empty item", "an id", CORRECT),
    ("", b"J\xfcrgen,i,5,1355616000", "byte 0xfc at column 2", "UTF-8 text", ICONV),
]


@pytest.mark.parametrize(("header", "row", "found", "expected", "mend"), BAD_ROWS)
def test_a_bad_row_is_refused_by_line(
    tmp_path: Path, header: str, row: bytes, found: str, expected: str, mend: str
) -> None:
    file = tmp_path / "ratings.csv"
    lines = text(ratings(), header=header).splitlines()
    line = 4 if header else 3
    lines[line - 1] = row
    file.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataRefused) as refused:
        import_ratings(str(file), str(tmp_path / "logs"))
    assert str(refused.value) == f"{file}, line {line}: found {found}, expected {expected}; {mend}"
    assert [path.name for path in tmp_path.iterdir()] == ["ratings.csv"]


def test_seconds_told_to_be_milliseconds_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_bytes(text([("u", "i", 5, 1355616000)]))
    with pytest.raises(DataRefused) as refused:
        import_ratings(str(file), str(tmp_path / "logs"), time_unit="ms")
    assert str(refused.value) == (
        f"{file}, line 1: found time 1355616000, expected milliseconds since 1970, {EXPECTED_MILLISECONDS}; {TIME_MEND}"
    )


BAD_FILES = [
    ("r.csv", b"", "an empty file", "one row a line", "download it again"),
    ("r.csv", b"user,item,rating,time\n", "a header and no rows", "one row a rating", "download it again"),
    (
        "r.csv",
        b"user,item,stars,when\nu,i,5,1355616000\n",
        "columns 'user', 'item', 'stars', 'when'",
        f"one for the time ({NAMES_OF_TIME})",
        SAY_WHICH,
    ),
    (
        "r.csv",
        b"user,item,item,rating,time\nu,i,i,5,1355616000\n",
        "column 'item' twice",
        "each name once",
        "rename one of them",
    ),
    ("r.parquet", b"PAR1 but no more", "no whole Parquet file", "Parquet, as the name says", "download it again"),
]


@pytest.mark.parametrize(("name", "content", "found", "expected", "mend"), BAD_FILES)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, content: bytes, found: str, expected: str, mend: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataRefused) as refused:
        import_ratings(str(file), str(tmp_path / "logs"))
    assert str(refused.value) == f"{file}: found {found}, expected {expected}; {mend}"


def test_a_file_that_is_not_gzip_or_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.csv.gz"
    whole = gzip.compress(text(ratings()))
    for content in (b"no gzip at all", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(DataRefused, match="r.csv.gz: found what cannot be"):
            import_ratings(str(file), str(tmp_path / "logs"))


def test_a_missing_file_a_short_line_and_utf_16(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    with pytest.raises(DataRefused, match="found no such file, expected a file of ratings; check the path"):
        import_ratings(str(file), str(tmp_path / "logs"))
    file.write_bytes(b"u,i,5\n")
    with pytest.raises(DataRefused, match="line 1: found 3 fields, expected at least 4: user, item, rating, time"):
        import_ratings(str(file), str(tmp_path / "logs"))
    file.write_bytes(text(ratings()).decode().encode("utf-16"))
    with pytest.raises(DataRefused, match="line 1: found UTF-16 or binary data, expected UTF-8 text"):
        import_ratings(str(file), str(tmp_path / "logs"))
    with pytest.raises(DataRefused, match="found a folder, expected a file"):
        import_ratings(str(tmp_path), str(tmp_path / "logs"))


GOOD_COLUMNS = {
    "user": pa.array([1, 2], pa.int32()),
    "item": pa.array(["a", "b"]),
    "rating": pa.array([4.0, 5.0]),
    "time": pa.array([SECOND, SECOND]),
}
BAD_COLUMNS = [
    ({"rating": pa.array(["4", "5"])}, "", "a rating column of string", "numbers", CONVERT),
    ({"user": pa.array([1.0, 2.0])}, "", "a user column of double", "integers or strings", CONVERT),
    (
        {"time": pa.array(["2012", "2013"])},
        "",
        "a time column of string",
        "integers (seconds or milliseconds since 1970) or timestamps",
        CONVERT,
    ),
    (
        {"time": pa.array([SECOND, None])},
        ", row 2",
        "no time (null)",
        "a value in every row",
        "take the rows without one out",
    ),
    ({"rating": pa.array([4.0, float("nan")])}, ", row 2", "rating nan", STARS, CORRECT_OR_SCALE),
    ({"item": pa.array(["a", ""])}, ", row 2", "an empty item", "an id", CORRECT),
    ({"time": None}, "", "columns 'user', 'item', 'rating'", f"one for the time ({NAMES_OF_TIME})", SAY_WHICH),
]


@pytest.mark.parametrize(("changes", "row", "found", "expected", "mend"), BAD_COLUMNS)
def test_a_bad_parquet_column_is_refused(
    tmp_path: Path, changes: dict, row: str, found: str, expected: str, mend: str
) -> None:
    file = tmp_path / "r.parquet"
    columns = {name: column for name, column in {**GOOD_COLUMNS, **changes}.items() if column is not None}
    pq.write_table(pa.table(columns), file)
    with pytest.raises(DataRefused) as refused:
        import_ratings(str(file), str(tmp_path / "logs"))
    assert str(refused.value) == f"{file}{row}: found {found}, expected {expected}; {mend}"


def test_too_short_histories_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_bytes(text(ratings()))
    with pytest.raises(DataRefused, match=f"{USERS * EACH} ratings found, none is left .* at least 31"):
        import_ratings(str(file), str(tmp_path / "logs"), core=EACH + 1)
    file.write_bytes(text([(f"u{u}", f"i{i}", 5, SECOND + i) for u in range(9) for i in range(2 * LIST_LENGTH - 2)]))
    with pytest.raises(DataRefused, match=f"the longest of 9 users has 10 ratings, expected at least {CORE - 1}"):
        import_ratings(str(file), str(tmp_path / "logs"), core=2)


BAD_ARGUMENTS = [
    ({"core": 0}, "core 0 found, expected at least 1, the smallest number of ratings a user may have"),
    ({"time_unit": "h"}, "time unit 'h' found, expected one of auto, s, ms"),
    ({"columns": ("user",)}, "columns 'user' found, expected four: the user, item, rating, time column, in this order"),
    ({"candidates": "all"}, "candidates 'all' found, expected matched, retrieved or both"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_senseless_arguments_are_a_usage_error(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        import_ratings(str(tmp_path / "r.csv"), str(tmp_path / "logs"), **arguments)
    assert str(refused.value) == message
