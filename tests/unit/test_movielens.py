"""GroupLens files to logs: the contract, the protocol on the real data, and every bad file refused by line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from goalrank.candidates import CANDIDATES
from goalrank.errors import DataRefused, UsageError
from goalrank.movielens import CORE, GENRES, import_movielens
from goalrank.offline_protocol import HISTORY_DAY, TRAIN_DAYS
from goalrank.schema import LIST_LENGTH, LOG_TABLES, SELF_SELECTED

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "ml-1m"
USERS, MOVIES, RATINGS_EACH = 100, 90, 36


def write_files(folder: Path, **changes: bytes) -> Path:
    """A synthetic data set in GroupLens' format; ``changes`` replaces whole files by name (ratings=b"...")."""
    random = np.random.default_rng(11)
    folder.mkdir(exist_ok=True)
    ratings = []
    for user in range(1, USERS + 1):
        chosen = random.choice(MOVIES, RATINGS_EACH, replace=False) + 1
        times = 978_300_000 + np.sort(random.integers(0, RATINGS_EACH // 3, RATINGS_EACH))  # many equal times
        stars = random.integers(1, 6, RATINGS_EACH)
        ratings += [f"{user}::{m}::{s}::{t}" for m, s, t in zip(chosen, stars, times, strict=True)]
    movies = [f"{m}::Café {m} (1999)::{GENRES[m % 18]}|{GENRES[(m + 3) % 18]}" for m in range(1, MOVIES + 1)]
    users = [f"{u}::{'FM'[u % 2]}::25::{u % 21}::00000" for u in range(1, USERS + 1)]
    files = {"ratings": ratings, "movies": movies, "users": users}
    for name, lines in files.items():
        content = changes.get(name, ("\n".join(lines) + "\n").encode("latin-1"))
        (folder / f"{name}.dat").write_bytes(content)
    return folder


def lines_of(folder: Path, name: str) -> list[bytes]:
    return (folder / f"{name}.dat").read_bytes().splitlines()


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    root = tmp_path_factory.mktemp("synthetic")
    source = write_files(root / "ml")
    return source, root / "logs", import_movielens(str(source), str(root / "logs"), seed=3)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    if not (REAL / "ratings.dat").exists():
        pytest.skip("MovieLens-1M is not at ../shared/data/ml-1m")
    logs = tmp_path_factory.mktemp("real") / "logs"
    return REAL, logs, import_movielens(str(REAL), str(logs))


def days_of(logs: Path, table: str) -> list[date]:
    return sorted(date.fromisoformat(folder.name.removeprefix("dt=")) for folder in (logs / table).iterdir())


def read(logs: Path, table: str) -> pa.Table:
    return pa.concat_tables(
        [pq.read_table(logs / table / f"dt={day}" / "part-00000.parquet") for day in days_of(logs, table)]
    )


def check_contract(logs: Path, summary: dict) -> None:
    """What must hold for any import."""
    first, last, count = summary["days"]["first"], summary["days"]["last"], summary["days"]["count"]
    for name, schema in LOG_TABLES.items():
        for file in ds.dataset(logs / name, format="parquet").files:
            assert pq.read_schema(file).equals(schema), file
        if name in ("requests", "impressions"):
            assert days_of(logs, name) == [HISTORY_DAY + timedelta(days=day) for day in range(count)]
        else:
            assert days_of(logs, name) == [HISTORY_DAY]
    assert (first, last) == (str(HISTORY_DAY), str(HISTORY_DAY + timedelta(days=count - 1)))
    requests, impressions = read(logs, "requests"), read(logs, "impressions")
    splits = pq.read_table(logs / "splits.parquet")
    assert splits["request_id"].to_pylist() == requests["request_id"].to_pylist()
    assert len(set(splits["request_id"].to_pylist())) == requests.num_rows == summary["counts"]["requests"]
    assert set(requests["policy"].to_pylist()) == {SELF_SELECTED}
    assert impressions["propensity"].null_count == impressions["watch_seconds"].null_count == impressions.num_rows
    born = read(logs, "items")["created_at"].to_pylist() + read(logs, "users")["created_at"].to_pylist()
    assert {moment.date() for moment in born} == {HISTORY_DAY - timedelta(days=1)}
    assert json.loads((logs / "import.json").read_text(encoding="utf-8")) == summary
    event_day = [time.date().isoformat() for time in requests["event_time"].to_pylist()]
    assert event_day == splits["dt"].to_pylist()


def check_protocol(source: Path, logs: Path) -> None:
    """Slates, candidates and order, held against the ratings file itself, read in the plainest way."""
    true_order: dict[int, list[tuple[int, int, int]]] = {}
    with open(source / "ratings.dat", encoding="latin-1") as file:
        for row in file:
            user, item, rating, time = map(int, row.split("::"))
            true_order.setdefault(user, []).append((time, item, rating))
    known_items = set(read(logs, "items")["item_id"].to_pylist())
    requests, splits = read(logs, "requests"), pq.read_table(logs / "splits.parquet")
    impressions = read(logs, "impressions")
    slates: dict[str, list[tuple[int, int, int, int]]] = {}
    columns = (impressions[name].to_pylist() for name in ("request_id", "position", "item_id", "click", "like"))
    for request_id, *shown in zip(*columns, strict=True):
        slates.setdefault(request_id, []).append(tuple(shown))
    rows = zip(
        *(requests[name].to_pylist() for name in ("user_id", "event_time", "request_id", "candidates")),
        splits["split"].to_pylist(),
        splits["dt"].to_pylist(),
        strict=True,
    )
    by_user: dict[int, list[tuple]] = {}
    for user, *rest in rows:
        by_user.setdefault(user, []).append(tuple(rest))
    days = sorted(set(splits["dt"].to_pylist()))
    for user, asked in by_user.items():
        sequence = [row for row in sorted(true_order[user], key=lambda row: row[0]) if row[1] in known_items]
        times = [time for time, *_ in asked]
        assert all(earlier < later for earlier, later in zip(times, times[1:], strict=False))
        replayed: list[tuple[int, int, int]] = []
        seen: set[int] = set()
        for _, request_id, candidates, split, day in asked:
            slate = slates[request_id]
            assert [position for position, *_ in slate] == list(range(1, len(slate) + 1))
            items = [item for _, item, *_ in slate]
            assert len(set(candidates)) == len(candidates) and set(items) <= set(candidates)
            assert not seen & set(candidates)
            if split == "history":
                assert set(items) == set(candidates) and day == days[0]
            else:
                assert len(items) == LIST_LENGTH
                assert len(candidates) == min(CANDIDATES, len(known_items) - len(seen))
                assert (day == days[-1]) == (split == "test") and (day == days[-2]) == (split == "validation")
            seen |= set(items)
            replayed += [(item, click, like) for _, item, click, like in slate]
        assert replayed == [(item, int(rating >= 4), int(rating == 5)) for _, item, rating in sequence]
        kinds = [split for *_, split, _ in asked]
        assert kinds[-1] == "test" and kinds.count("test") == 1 and "history" in kinds
        assert kinds.count("validation") == int(len(sequence) - len(sequence) // 2 >= 2 * LIST_LENGTH)
        assert len(kinds) - kinds.count("history") == (len(sequence) - len(sequence) // 2) // LIST_LENGTH


def test_synthetic_files_become_logs_of_the_contract(synthetic: tuple[Path, Path, dict]) -> None:
    source, logs, summary = synthetic
    check_contract(logs, summary)
    check_protocol(source, logs)
    items = {row["item_id"]: row for row in read(logs, "items").to_pylist()}
    assert items[7]["title"] == "Café 7 (1999)" and items[7]["topics"] == [7, 10]
    users = {row["user_id"]: row for row in read(logs, "users").to_pylist()}
    assert users[5]["attributes"] == ["gender=M", "age=25", "occupation=5"]


def test_the_slate_has_no_place_of_its_own_among_the_candidates(synthetic: tuple[Path, Path, dict]) -> None:
    _, logs, _ = synthetic
    shown = {row["request_id"]: [] for row in read(logs, "requests").to_pylist()}
    for row in read(logs, "impressions").to_pylist():
        shown[row["request_id"]].append(row["item_id"])
    places = [
        row["candidates"].index(item)
        for row in read(logs, "requests").to_pylist()
        if len(row["candidates"]) == CANDIDATES
        for item in shown[row["request_id"]]
    ]
    assert len(places) > 1000
    assert abs(np.mean(places) - (CANDIDATES - 1) / 2) < 1.0


def test_same_seed_same_logs_other_seed_other_candidates(synthetic: tuple[Path, Path, dict], tmp_path: Path) -> None:
    source, logs, _ = synthetic
    import_movielens(str(source), str(tmp_path / "again"), seed=3)
    import_movielens(str(source), str(tmp_path / "other"), seed=4)
    for table in LOG_TABLES:
        assert read(logs, table).equals(read(tmp_path / "again", table))
    assert not read(logs, "requests").equals(read(tmp_path / "other", "requests"))


def test_both_writes_two_sets_over_the_same_requests(synthetic: tuple[Path, Path, dict], tmp_path: Path) -> None:
    source, logs, _ = synthetic
    summaries = import_movielens(str(source), str(tmp_path / "both"), candidates="both", seed=3)
    for kind, summary in summaries.items():
        check_contract(tmp_path / "both" / kind, summary)
        check_protocol(source, tmp_path / "both" / kind)
    assert read(tmp_path / "both" / "matched", "requests").equals(read(logs, "requests"))
    assert read(tmp_path / "both" / "retrieved", "impressions").equals(read(logs, "impressions"))


def test_movielens_1m_by_the_protocol(real: tuple[Path, Path, dict]) -> None:
    """docs/method.md's counts: 995,154 ratings, 6,022 users, 3,043 items; about 69,000, 5,800 and 6,000 requests."""
    source, logs, summary = real
    counts, splits = summary["counts"], summary["splits"]
    assert summary["protocol"]["core"] == CORE
    assert (counts["ratings"], counts["users"], counts["items"]) == (995_154, 6_022, 3_043)
    assert (splits["train"], splits["validation"], splits["test"]) == (68_911, 5_777, 6_022)
    assert summary["days"]["count"] == TRAIN_DAYS + 3
    check_contract(logs, summary)
    check_protocol(source, logs)


def test_movielens_1m_is_as_hard_as_method_says(real: tuple[Path, Path, dict]) -> None:
    """The figures expected of matched candidates; they depend on the exact factors by a hundredth or so."""
    sanity = real[2]["sanity_on_test"]
    assert sanity["random"]["h@6"] == pytest.approx(0.12, abs=0.01)
    assert sanity["retriever_ascending"]["h@6"] == pytest.approx(0.060, abs=0.01)
    for name, expected in (("h@6", 0.265), ("ndcg@6", 0.225), ("map@6", 0.144)):
        assert sanity["retriever_descending"][name] == pytest.approx(expected, abs=0.01)


# ------------------------------------------------------------------------------------------------------- bad input

RATING = "::".join(("UserID", "MovieID", "Rating", "Timestamp"))
RELEASE = "add it there or take the rating out; both files must be of one release (unpack ml-1m.zip again)"
CORRECT = "correct the line"
CORRECT_OR_SCALE = "correct the line or the scale"
WHOLE = "a whole rating from 1 to 5"
SECONDS = "seconds since 1970, from 631152000 (year 1990) to 4102444800 (year 2100)"
UNIT = "correct the line, or name the time's unit if all of them are in another"
ICONV = "convert it with iconv -t LATIN1, or unpack ml-1m.zip again"

# file, line to replace, its new text, what is found, expected, and how to mend it; line 3 of ratings is user 1's
BAD_LINES = [
    ("ratings", 3, b"1::7::5", "3 fields in '1::7::5'", f"4: {RATING}", CORRECT),
    ("ratings", 3, b"1::7::5::978300000::9", "5 fields in '1::7::5::978300000::9'", f"4: {RATING}", CORRECT),
    ("ratings", 3, b"", "1 field in ''", f"4: {RATING}", CORRECT),
    ("ratings", 3, b"1\t7\t5\t978300000", r"1 field in '1\t7\t5\t978300000'", f"4: {RATING}", CORRECT),
    ("ratings", 3, b"one::7::5::978300000", "UserID 'one'", "an integer", CORRECT),
    ("ratings", 3, b"1::7.5::5::978300000", "MovieID '7.5'", "an integer", CORRECT),
    ("ratings", 3, b"1::7::nan::978300000", "Rating 'nan'", "an integer", CORRECT),
    ("ratings", 3, b"1::7::::978300000", "Rating ''", "an integer", CORRECT),
    ("ratings", 3, b"1::7::5::yesterday", "Timestamp 'yesterday'", "seconds since 1970", CORRECT),
    (
        "ratings",
        3,
        b"1::9999999999999999999::5::978300000",
        "MovieID 9999999999999999999",
        "an integer of 64 bits",
        CORRECT,
    ),
    ("ratings", 3, b"1::7::6::978300000", "rating 6", WHOLE, CORRECT_OR_SCALE),
    ("ratings", 3, b"1::7::0::978300000", "rating 0", WHOLE, CORRECT_OR_SCALE),
    ("ratings", 3, b"1::9999::5::978300000", "MovieID 9999", "one that movies.dat has", RELEASE),
    ("ratings", 3, b"777::7::5::978300000", "UserID 777", "one that users.dat has", RELEASE),
    ("ratings", 3, b"1::7::5::-1", "time -1", SECONDS, UNIT),
    ("ratings", 3, b"1::7::5::978300000000", "time 978300000000", SECONDS, UNIT),
    ("ratings", 1, b"\xff\xfe1\x00:\x00", "UTF-16 or binary data", "latin-1 text", ICONV),
    ("movies", 2, b"2::Jumanji (1995)", "2 fields in '2::Jumanji (1995)'", "3: MovieID::Title::Genres", CORRECT),
    ("movies", 2, b"x::Jumanji (1995)::War", "MovieID 'x'", "an integer", CORRECT),
    ("movies", 2, b"1::Jumanji (1995)::War", "MovieID 1 a second time", "each movie once", "take one of the lines out"),
    ("movies", 2, b"2:: ::War", "an empty Title", "a title", "write one in"),
    ("movies", 2, b"2::Jumanji (1995)::War|Peace", "genre 'Peace'", f"some of {'|'.join(GENRES)}", CORRECT),
    ("movies", 2, "2::Misérables::War".encode(), "UTF-8 text ('2::MisÃ©rables::War')", "latin-1 text", ICONV),
    ("users", 2, b"2::M::25::3", "4 fields in '2::M::25::3'", "5: UserID::Gender::Age::Occupation::Zip-code", CORRECT),
    ("users", 2, b"2::X::25::3::0", "Gender 'X'", "F or M", CORRECT),
    ("users", 2, b"2::M::old::3::0", "Age 'old'", "GroupLens' number for it", CORRECT),
    ("users", 2, b"1::M::25::3::0", "UserID 1 a second time", "each user once", "take one of the lines out"),
]


@pytest.mark.parametrize(("name", "line", "text", "found", "expected", "mend"), BAD_LINES)
def test_a_bad_line_is_refused_by_number(
    tmp_path: Path, name: str, line: int, text: bytes, found: str, expected: str, mend: str
) -> None:
    source = write_files(tmp_path / "ml")
    lines = lines_of(source, name)
    lines[line - 1] = text
    (source / f"{name}.dat").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataRefused) as refused:
        import_movielens(str(source), str(tmp_path / "logs"))
    assert str(refused.value) == f"{source / name}.dat, line {line}: found {found}, expected {expected}; {mend}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml"]


def test_a_rating_given_twice_is_refused_at_the_second(tmp_path: Path) -> None:
    source = write_files(tmp_path / "ml")
    lines = lines_of(source, "ratings")
    user, movie = lines[0].split(b"::")[:2]
    (source / "ratings.dat").write_bytes(b"\n".join([*lines, user + b"::" + movie + b"::1::978400000"]))
    with pytest.raises(DataRefused) as refused:
        import_movielens(str(source), str(tmp_path / "logs"))
    assert str(refused.value) == (
        f"{source / 'ratings.dat'}, line {len(lines) + 1}: found UserID 1 rating MovieID {movie.decode()} "
        "a second time, expected each user and movie once; take one of the lines out"
    )


def test_windows_line_ends_are_read(synthetic: tuple[Path, Path, dict], tmp_path: Path) -> None:
    source = write_files(tmp_path / "ml")
    for name in ("ratings", "movies", "users"):
        (source / f"{name}.dat").write_bytes(b"\r\n".join(lines_of(source, name)) + b"\r\n")
    import_movielens(str(source), str(tmp_path / "logs"), seed=3)
    for table in LOG_TABLES:
        assert read(tmp_path / "logs", table).equals(read(synthetic[1], table))


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    source = write_files(tmp_path / "ml")
    (source / "users.dat").unlink()
    with pytest.raises(DataRefused) as refused:
        import_movielens(str(source), str(tmp_path / "logs"))
    assert str(refused.value) == (
        f"{source / 'users.dat'}: found no such file, expected a file of ratings; check the path"
    )
    (source / "users.dat").write_bytes(b"")
    with pytest.raises(DataRefused) as refused:
        import_movielens(str(source), str(tmp_path / "logs"))
    assert (
        str(refused.value) == f"{source / 'users.dat'}: found an empty file, expected one row a line; download it again"
    )
    with pytest.raises(DataRefused, match="expected the folder with ratings.dat, movies.dat and users.dat"):
        import_movielens(str(source / "ratings.dat"), str(tmp_path / "logs"))


def test_too_few_ratings_are_refused(tmp_path: Path) -> None:
    source = write_files(tmp_path / "ml")
    (source / "ratings.dat").write_bytes(b"\n".join(lines_of(source, "ratings")[:200]))
    with pytest.raises(
        DataRefused, match="200 ratings found, none is left when every user and item must have at least 20"
    ):
        import_movielens(str(source), str(tmp_path / "logs"))


def test_an_occupied_target_is_left_alone(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "ml"), tmp_path / "logs"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(
        UsageError, match="a folder that is not empty, expected a folder that is empty or does not exist"
    ):
        import_movielens(str(source), str(out))
    with pytest.raises(UsageError, match="is a file, expected a folder"):
        import_movielens(str(source), str(out / "mine.txt"))
    assert (out / "mine.txt").read_text() == "keep"
    with pytest.raises(UsageError, match="candidates 'all' found, expected matched, retrieved or both"):
        import_movielens(str(source), str(tmp_path / "new"), candidates="all")


def test_an_empty_target_is_taken(synthetic: tuple[Path, Path, dict], tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    import_movielens(str(synthetic[0]), str(tmp_path / "logs"))
    assert (tmp_path / "logs" / "import.json").exists()


def test_an_import_that_fails_half_way_leaves_nothing(
    synthetic: tuple[Path, Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goalrank import logs_writer

    real_write, written = pq.write_table, []

    def write_until_full(rows: pa.Table, where: os.PathLike, **options: str) -> None:
        written.append(where)
        if len(written) > 20:
            raise OSError(28, "No space left on device")
        real_write(rows, where, **options)

    monkeypatch.setattr(logs_writer.pq, "write_table", write_until_full)
    with pytest.raises(OSError, match="No space left"):
        import_movielens(str(synthetic[0]), str(tmp_path / "logs"))
    assert len(written) == 21 and list(tmp_path.iterdir()) == []


def test_an_import_killed_half_way_leaves_no_logs(synthetic: tuple[Path, Path, dict], tmp_path: Path) -> None:
    """SIGKILL while the days are written: OUT is not there, and the next import is not in the way of what remains."""
    script = (
        "import os, signal, sys; from goalrank.movielens import import_movielens\n"
        "def tell(done, total, note):\n"
        "    if total > 2 and done == total // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "import_movielens(sys.argv[1], sys.argv[2], progress=tell)"
    )
    out = tmp_path / "logs"
    killed = subprocess.run([sys.executable, "-c", script, str(synthetic[0]), str(out)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists() and [path.name[:13] for path in tmp_path.iterdir()] == ["logs.partial-"]
    check_contract(out, import_movielens(str(synthetic[0]), str(out)))


def test_progress_is_told_and_ends(synthetic: tuple[Path, Path, dict], tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    import_movielens(str(synthetic[0]), str(tmp_path / "logs"), progress=lambda *told_now: told.append(told_now))
    done = [now for now, _, _ in told]
    assert done == sorted(done) and told[-1][0] == told[-1][1] and told[-1][2] == "done"
