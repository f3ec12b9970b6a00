"""Every number of the simulated world, in one place.

The coefficients are frozen before methods are compared (method.md): a change is a line in docs/experiments.md, with all
tables made again. That an effect exists, and its sign, comes from the literature named beside it. The sizes are ours:
set once, before any method was trained, so that the click rate is a feed's and the best list gains a little more than
LIST_EFFECT_FLOOR over the best order by single-item value; most of that gain is topical fatigue.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import date, timedelta
from typing import Any

from goalrank.errors import DataRefused, UsageError
from goalrank.schema import LIST_LENGTH

LIST_EFFECT_FLOOR = 0.10
"""The best list found must earn at least this share more true reward than the best order by single-item value."""

WORLD_FORMAT = 1


@dataclass(frozen=True)
class Coefficients:
    """How users judge items and lists. Appeal, fatigue, contrast and leaving are in log-odds unless said otherwise."""

    # -- appeal: log-odds of a click on an item shown alone, at the first place, to a user who looks at it.
    # The base is set by the click rate it leads to: about 18% of the impressions of the logging policy, a feed's order.
    base_appeal: float = -2.4
    taste: float = 1.1  # per standard deviation of the user's taste for the item's topics: what personalisation is for
    quality: float = 0.5  # per standard deviation of item quality: what a click rate reveals
    freshness: float = 0.4  # a new item's bonus; recency matters in news and short video (Das et al. 2007)
    freshness_days: float = 4.0  # ... and fades with this time constant
    hidden: float = 0.45  # low-rank user-item matches no logged attribute explains (Koren et al. 2009)
    phone_length: float = 0.25  # phones prefer short items, other devices long ones; per sd of log duration

    # -- taste: shares of the variance of a user's taste for a topic; they sum to 1.
    taste_age: float = 0.12  # shared by an age band: attributes tell a little, not much
    taste_personal: float = 0.48  # lasting and skewed: few loved topics, many indifferent ones
    taste_drift: float = 0.28  # the user's own interest wanders (Koren 2010, temporal dynamics)
    taste_trend: float = 0.12  # topics go in and out of fashion for everybody
    drift_memory: float = 0.90  # correlation of the drift from one day to the next: half is gone after 6.6 days
    trend_memory: float = 0.85

    # -- like and watching, given a click; independent of the place, so that list effects act through clicks alone.
    like_base: float = -1.5
    like_taste: float = 0.5
    like_quality: float = 0.5
    watched_base: float = 0.3  # share of the duration watched
    watched_taste: float = 0.4
    watched_quality: float = 0.3
    watched_length: float = 0.5  # per sd of log duration: long items are left unfinished (Zhan et al. 2022)
    watched_spread: float = 4.0  # a + b of the Beta distribution of the share watched

    # -- attention: probability of looking at place k, for a user who is still there: k ** -attention_decay.
    # Position models find exponents near 1 for search pages, where leaving is part of it (Joachims et al. 2017);
    # here leaving is modelled apart, so the rest is milder, as a feed's places are alike.
    attention_decay: float = 0.30

    # -- topical fatigue: each earlier item sharing a topic lowers appeal; what was seen just before weighs most.
    # Diminishing returns of a topic: Agrawal et al. 2009, Yue & Guestrin 2011; fatigue seen in logs: Ma et al. 2016;
    # boredom that fades with time: Warlop et al. 2018.
    fatigue: float = 0.90  # of an item all of whose topics were those of the item just before
    fatigue_memory: float = 0.75  # per place

    # -- contrast: an item is judged against the one just before (anchoring: Tversky & Kahneman 1974; contrast in
    # choice: Simonson & Tversky 1992; in sequences: Hartzmark & Shue 2018). Share of the difference of appeals that is
    # added; the difference is limited, as the effect saturates.
    contrast: float = 0.25
    contrast_limit: float = 2.0

    # -- leaving after a place (dynamic Bayesian network click model: Chapelle & Zhang 2009): passing by an item costs
    # patience, the more the less it appeals; a click satisfies, and time spent watching uses up the session.
    leave_skip: float = -2.2  # log-odds of leaving after passing by an item of felt appeal 0: 10%
    leave_boredom: float = 0.5  # ... per unit of felt appeal below 0
    leave_patience: float = 0.5  # spread between users
    leave_click: float = 0.03  # probability, after a click, before the time watched counts
    session_minutes: float = 12.0  # watching m minutes ends the session with probability 1 - exp(-m / this)


@dataclass(frozen=True)
class WorldConfig:
    """One world. With it and a day's number everything else follows; nothing is kept on disk.

    Day 0 is `first_day`. `users` and `items` exist on day 0; each later day brings the new ones.
    """

    seed: int = 0
    first_day: date = date(2026, 1, 1)
    users: int = 2500
    items: int = 1200
    new_users_per_day: int = 25
    new_items_per_day: int = 20
    requests_per_day: int = 3000
    candidates: int = 50  # N
    list_length: int = LIST_LENGTH  # L
    topics: int = 24
    hidden_factors: int = 4
    # retriever: what it believes of tastes is some days old, what it believes of quality is a guess
    stale_days: int = 3
    taste_error: float = 0.6  # sd of its lasting error on a user's taste for a topic
    quality_error: float = 0.8  # sd of its lasting error on an item's quality
    score_noise: float = 0.4  # sd of its error on a request's candidate, drawn anew each time
    retrieval_spread: float = 1.0  # scale of the Gumbel noise under which it picks candidates
    discovery_share: float = 0.2  # of the candidates, drawn uniformly from the catalogue: new items get their chance
    # logging policy
    temperature: float = 0.5  # of the Plackett-Luce policy over the retriever's scores
    uniform_share: float = 0.1  # of the requests, ranked uniformly at random
    # arrival
    late_requests: float = 0.01  # share that arrives, impressions and all, in the next day's partition
    late_tails: float = 0.003  # share whose last impressions alone do: the app was closed before it sent them
    coefficients: Coefficients = field(default_factory=Coefficients)

    def __post_init__(self) -> None:
        for name in ("users", "items", "requests_per_day", "list_length", "topics", "hidden_factors"):
            if getattr(self, name) < 1:
                raise UsageError(f"WorldConfig.{name} is {getattr(self, name)}, expected at least 1")
        for name in ("seed", "new_users_per_day", "new_items_per_day", "stale_days"):
            if getattr(self, name) < 0:
                raise UsageError(f"WorldConfig.{name} is {getattr(self, name)}, expected at least 0")
        if not self.list_length <= self.candidates <= self.items:
            raise UsageError(
                f"WorldConfig has list_length {self.list_length}, candidates {self.candidates}, items {self.items}; "
                "expected list_length <= candidates <= items"
            )
        if self.temperature <= 0:
            raise UsageError(f"WorldConfig.temperature is {self.temperature}, expected above 0")
        for name in ("discovery_share", "uniform_share", "late_requests", "late_tails"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"WorldConfig.{name} is {getattr(self, name)}, expected a share between 0 and 1")

    def user_count(self, day: int) -> int:
        """How many users exist on `day`."""
        return self.users + self.new_users_per_day * day

    def item_count(self, day: int) -> int:
        """How many items exist on `day`."""
        return self.items + self.new_items_per_day * day

    def date_of(self, day: int) -> date:
        """The date of `day`."""
        return self.first_day + timedelta(days=day)

    def to_json(self) -> str:
        """The content of LOGS/world.json."""
        document = {"format": WORLD_FORMAT, **asdict(self), "first_day": self.first_day.isoformat()}
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> WorldConfig:
        """Read back what `to_json` wrote.

        Raises:
            DataRefused: not such a document, or of a format this release does not know.
        """
        try:
            document = json.loads(text)
            found = document.pop("format")
            coefficients = _known(Coefficients, document.pop("coefficients"))
            first_day = date.fromisoformat(document.pop("first_day"))
            values = _known(cls, document)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataRefused(
                f"world.json cannot be read ({type(error).__name__}: {error}); expected what write_days wrote: "
                "write the logs anew in an empty folder"
            ) from error
        if found != WORLD_FORMAT:
            raise DataRefused(f"world.json has format {found!r}, expected {WORLD_FORMAT}: write the logs anew")
        return cls(**values, first_day=first_day, coefficients=Coefficients(**coefficients))


def day_number(config: WorldConfig, wanted: str) -> int:
    """The day of a date written YYYY-MM-DD.

    Raises:
        UsageError: not such a date, or before the world began.
    """
    try:
        day = (date.fromisoformat(wanted) - config.first_day).days
    except ValueError:
        raise UsageError(f"date {wanted!r} found, expected YYYY-MM-DD") from None
    if day < 0:
        raise UsageError(f"date {wanted} found, expected {config.first_day} or later: the simulated world begins then")
    return day


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values`, if the dataclass has a field of each name and none is missing; a default must not creep in."""
    names = {entry.name for entry in fields(kind)} - {"first_day", "coefficients"}
    if set(values) != names:
        raise ValueError(f"{kind.__name__} fields differ: {sorted(set(values) ^ names)}")
    return values
