"""The Open Bandit Dataset's files, read as they are: one row an item shown at one place, with its propensity.

Saito, Aihara, Matsutani & Narita 2020, "Open Bandit Dataset and Pipeline" (arXiv 2008.07146): a fashion shop showed
items by a uniform policy (`random`) and by Bernoulli Thompson sampling (`bts`) side by side. The rows of one screen are
not joined, so a row stands for itself and only item-level estimates are possible. User ids are not in the files: each
row is a cluster of its own.

Legend: n rows, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from goalrank.errors import DataRefused
from goalrank.off_policy.estimation import Estimation
from goalrank.off_policy.item_level import dr, ips, snips
from goalrank.off_policy.propensities import require_propensities

COLUMNS = {"item_id": pa.int64(), "position": pa.int64(), "click": pa.int64(), "propensity_score": pa.float64()}

FOLDS = 5
"""Cross-fitting of the control variate: a row's item rate comes from the other four fifths."""

PRIOR_ROWS = 100.0
"""An item's click rate is shrunk towards the overall one as if it had been shown this often with it: at a click rate of
half a percent an item shown 300 times has one or two clicks, which say little."""


@dataclass(frozen=True)
class OpenBanditLog:
    """One campaign under one policy."""

    item_n: np.ndarray  # 0..I-1
    position_n: np.ndarray  # 1, 2, 3
    click_n: np.ndarray  # float64 0/1
    propensity_n: np.ndarray
    items: int  # I

    def __len__(self) -> int:
        return len(self.item_n)


def read_log(folder: str | Path, policy: str, campaign: str) -> OpenBanditLog:
    """Read `<policy>_<campaign>.csv.gz` and count the items of `item_context_<policy>_<campaign>.csv`.

    Args:
        folder: where the files lie.
        policy: "random" or "bts".
        campaign: "men" or "women".

    Raises:
        DataRefused: a file or column is missing, an item is none of the campaign's, a click is neither 0 nor 1, or a
            propensity is none.
    """
    table = _read(Path(folder) / f"{policy}_{campaign}.csv.gz", COLUMNS)
    items = len(_read(Path(folder) / f"item_context_{policy}_{campaign}.csv", {"item_id": pa.int64()}))
    column = {name: table.column(name).to_numpy() for name in COLUMNS}
    item_n, click_n = column["item_id"], column["click"]
    if len(item_n) and not 0 <= item_n.min() <= item_n.max() < items:
        raise DataRefused(f"item_id {item_n.min()}..{item_n.max()} found, expected 0..{items - 1}: files do not match")
    if not np.isin(click_n, (0, 1)).all():
        raise DataRefused(f"clicks {np.unique(click_n)[:5]} found, expected 0 and 1")
    propensity_n = require_propensities(column["propensity_score"], f"propensity_score of {policy}_{campaign}")
    return OpenBanditLog(item_n, column["position"], click_n.astype(np.float64), propensity_n, items)


def uniform_policy(log: OpenBanditLog) -> list[Estimation]:
    """What a uniform choice among the campaign's items would have been clicked, by three item-level estimators.

    The doubly robust one's model is the item's click rate, shrunk and cross-fitted; under a uniform choice its
    expectation is the mean over items.
    """
    target_n = np.full(len(log), 1 / log.items)
    model_n, value_n = _click_rates(log)
    logged = (log.click_n, target_n, log.propensity_n)
    return [ips(*logged), snips(*logged), dr(*logged, model_n, value_n, self_normalised=True)]


def _click_rates(log: OpenBanditLog) -> tuple[np.ndarray, np.ndarray]:
    """Model of each row's item and its mean over items [n], from the folds the row is not in."""
    fold_n = np.arange(len(log)) % FOLDS
    model_n, value_n = np.empty(len(log)), np.empty(len(log))
    for fold in range(FOLDS):
        others = fold_n != fold
        shown_I = np.bincount(log.item_n[others], minlength=log.items)
        clicked_I = np.bincount(log.item_n[others], weights=log.click_n[others], minlength=log.items)
        overall = log.click_n[others].mean()
        rate_I = (clicked_I + PRIOR_ROWS * overall) / (shown_I + PRIOR_ROWS)
        model_n[~others], value_n[~others] = rate_I[log.item_n[~others]], rate_I.mean()
    return model_n, value_n


def _read(path: Path, columns: dict[str, pa.DataType]) -> pa.Table:
    options = pacsv.ConvertOptions(include_columns=list(columns), column_types=columns)
    try:
        return pacsv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataRefused(
            f"{path.name} cannot be read as a file of the Open Bandit Dataset ({error}); expected {', '.join(columns)}"
        ) from None
