"""Which arm of the objective a training run uses."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from goalrank.errors import UsageError
from goalrank.worded import read_words

Normalisation = Literal["standardised", "centred", "divided", "raw", "ranks"]
Loss = Literal["full_list", "group_renormalised", "reverse_kl", "dpo", "rcpo"]
Duplicates = Literal["once", "each"]
Signal = Literal["reliability", "none"]
Sharpness = Literal["top_weight", "entropy"]
PreferenceReference = Literal["none", "initial"]
MatchedTo = Literal["none", Normalisation]

PREFERENCE_LOSSES = ("dpo", "rcpo")
"""They use the order of the rewards alone: no reference policy of the group, hence no normalisation or temperature."""

UNIT_SPREAD = ("standardised", "divided", "ranks")
"""Arms whose values have standard deviation 1 in every group, so that a temperature means the same in all of them."""

_FIRST = ("normalisation", "temperature", "loss", "duplicates", "signal", "supervised_weight")


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which arm of the objective a training run uses.

    The default is the paper's full-list likelihood at temperature 0.25: the best of the likelihoods in the simulated
    world under guides with logs enough; whether DPO at beta 0.01 has less regret hung on the guide. Under a guide with
    few logs, temperature 0.5, or a supervised term of weight 1, had a little less (docs/experiments.md, ablations).
    """

    normalisation: Normalisation = "standardised"
    temperature: float = 0.25
    loss: Loss = "full_list"
    duplicates: Duplicates = "once"
    """What a list that a group holds twice means: "once" counts the first alone, "each" gives every copy its weight, so
    that what is proposed often is learnt more."""
    signal: Signal = "reliability"
    supervised_weight: float = 0.0
    """Weight of the supervised term beside the group-relative one (the authors' public code mixes 1 and 0.01)."""

    matched_to: MatchedTo = "none"
    """The arm that `temperature` is stated for. Where it is another one, training takes this arm at the one temperature
    for the whole data set at which it is as sharp as that one on average (goalrank/objective/temperature.py)."""
    matched_by: Sharpness = "top_weight"
    matched_group_size: int = 0
    """The group size that `temperature` is stated for; 0: the one that is trained with. Equal temperature is flatter in
    larger groups: the top weight of standardised Gaussian rewards is 0.39 in 8 lists, 0.23 in 20, 0.08 in 100."""

    preference_reference: PreferenceReference = "none"
    """pi_0 of dpo and rcpo: "none" is the uniform policy (it cancels), "initial" the ranker before its first step. Not
    "initial" by default, as in DPO's paper: there it is a fine-tuned model, here a decoder that nobody trained."""
    preference_beta: float = 0.1
    """beta of dpo and rcpo (0.1 in most of the experiments of Rafailov et al., 2023; 0.01 had less regret here)."""
    ranked_choices: int = 3
    """k of rcpo: how many of a group's best lists are choices, best first; 1 is the best alone, G the whole ranking."""

    def __post_init__(self) -> None:
        choices = {
            "normalisation": Normalisation,
            "loss": Loss,
            "duplicates": Duplicates,
            "signal": Signal,
            "matched_to": MatchedTo,
            "matched_by": Sharpness,
            "preference_reference": PreferenceReference,
        }
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise UsageError(f"{name} {getattr(self, name)!r} found, expected one of {', '.join(get_args(kind))}")
        for name in ("temperature", "preference_beta"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} {getattr(self, name)} found, expected a positive number")
        if not 0.0 <= self.supervised_weight < float("inf"):
            raise UsageError(f"supervised_weight {self.supervised_weight} found, expected zero or a positive number")
        if self.ranked_choices < 1:
            raise UsageError(f"ranked_choices {self.ranked_choices} found, expected 1 or more")
        if self.matched_group_size < 0 or self.matched_group_size == 1:
            raise UsageError(f"matched_group_size {self.matched_group_size} found, expected 0 (none) or 2 or more")
        if self.matched and self.loss in PREFERENCE_LOSSES:
            raise UsageError(f"loss {self.loss!r} has no temperature to match, expected neither matched_to nor a size")
        stated_for = self.normalisation if self.matched_to == "none" else self.matched_to
        if self.matched_group_size and stated_for not in UNIT_SPREAD:
            raise UsageError(
                f"matched_group_size for {stated_for!r} rewards, whose spread is not known, expected matched_to to be "
                f"one of {', '.join(UNIT_SPREAD)}"
            )

    @property
    def matched(self) -> bool:
        """Whether the temperature depends on the data or the group size, and has to be found before training."""
        return self.matched_to != "none" or self.matched_group_size > 0

    @property
    def uses_initial_ranker(self) -> bool:
        """Whether the loss needs log-probabilities of the ranker before its first step."""
        return self.loss in PREFERENCE_LOSSES and self.preference_reference == "initial"

    def to_dict(self) -> dict[str, Any]:
        """The fields, for model.json and for telling one run's checkpoints from another's.

        A field that came later is left out at its default: what it names is the run it always was, and the checkpoints
        and models of earlier versions stay recognisable.
        """
        defaults = {entry.name: entry.default for entry in fields(self)}
        return {name: value for name, value in asdict(self).items() if name in _FIRST or value != defaults[name]}


def objective_of(line: str) -> ObjectiveConfig:
    """The objective that a line like `temperature=0.5 supervised_weight=10` says, its words being the fields of
    ObjectiveConfig; what is not named stays the default.

    Raises:
        UsageError: the line cannot be read, a field may not have such a value, or it does nothing beside the others.
    """
    known: dict[str, type] = {name: type(default) for name, default in asdict(ObjectiveConfig()).items()}
    said = read_words(line, known, "objective", "temperature=0.5 supervised_weight=1")
    given: dict[str, Any] = {}
    for name, value in said.items():
        try:
            given[name] = known[name](value)
        except ValueError:
            expected = "a whole number" if known[name] is int else "a number"
            raise UsageError(f"{name}={value} found in objective {line!r}, expected {expected}") from None
    made = ObjectiveConfig(**given)
    for name, does_something, needs in (
        ("ranked_choices", made.loss == "rcpo", "loss=rcpo"),
        ("preference_beta", made.loss in PREFERENCE_LOSSES, "loss=dpo or rcpo"),
        ("preference_reference", made.loss in PREFERENCE_LOSSES, "loss=dpo or rcpo"),
        ("temperature", made.loss not in PREFERENCE_LOSSES, "another loss, which has a reference policy"),
        ("normalisation", made.loss not in PREFERENCE_LOSSES, "another loss, which has a reference policy"),
        ("matched_by", made.matched, "matched_to or matched_group_size"),
    ):
        if name in said and not does_something:
            raise UsageError(f"{name} found in objective {line!r}, where it changes nothing; it needs {needs}")
    return made
