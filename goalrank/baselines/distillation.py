"""The reward model's signal for what learns from the log alone: variants called "...+r".

A reviewers' objection to the paper is that its baselines never got what GoalRank learns from: the reward model's
opinion of lists. Here a method sees the very groups that GoalRank sees (the preset's helper lists and as many lists
around its own scores), each scored by the same frozen guide r_hat, beside its own objective on logged feedback.

What it learns of them is the value it gives a list: within a group, standardised, that shall be r_hat, standardised. Of
a scorer and of NAR4Rec the value is a sum over places of what they think of the item there, so an item's score becomes
its share in r_hat over the groups' lists, as good as a sum can say it; what depends on which items stand together, a
sum cannot say. In PIER both learn, the scorer that it draws by and its list model, which sees the whole list. Groups
count by how far r_hat's spread in them is above its noise, as in GoalRank's objective.

Legend: B requests, G lists of a group, L list length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from goalrank.baselines.harness import Learner, Lesson, Progress, fit, fit_evaluator, part_of
from goalrank.dataset import Feedback, RequestBatch
from goalrank.objective import first_occurrence, group_noise, group_std, signal_weights
from goalrank.policies import Proposal, helper_columns, propose_lists
from goalrank.reward import RewardModel
from goalrank.schema import LIST_LENGTH

WEIGHT = 4.0
"""Of the term beside the method's own objective."""


@dataclass(frozen=True)
class Teacher:
    """A frozen reward model and how it is asked. Not a module: its weights are not the student's to train or keep."""

    guide: RewardModel
    helper_lists: int
    own_lists: int

    def loss(
        self,
        batch: RequestBatch,
        feedback: Feedback,
        own_BGL: Tensor | None,
        chance: torch.Generator,
        *values_of: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The scalar to add to a student's own objective.

        Args:
            batch: of the requests.
            feedback: of which only the shown lists are read, which a helper proposes again.
            own_BGL: lists of the student's; None while measuring, when the groups must stay the same.
            chance: of the helpers that draw.
            values_of: lists_BGL to the student's value_BG of them, of each of its parts that is to learn.
        """
        with torch.no_grad():
            proposal = Proposal(batch, feedback.slate_BL, LIST_LENGTH)
            lists_BGL = propose_lists(proposal, helper_columns(self.helper_lists), chance)
            if own_BGL is not None:
                lists_BGL = torch.cat([lists_BGL, own_BGL], dim=1)
            rewards_HBG = self.guide.score_lists(self.guide.encode(batch), lists_BGL)
            mask_BG = first_occurrence(lists_BGL)
            reward_BG = rewards_HBG.mean(dim=0)
            weight_B = signal_weights(group_std(reward_BG, mask_BG), group_noise(rewards_HBG, mask_BG))
        gap_B = sum(standardised_gap(value_of(lists_BGL), reward_BG, mask_BG) for value_of in values_of)
        return WEIGHT * (weight_B * gap_B).mean()


def standardised_gap(value_BG: Tensor, reward_BG: Tensor, mask_BG: Tensor) -> Tensor:
    """gap_B: the mean over a group of the squared difference of value and reward, either standardised (ddof 0) over the
    lists in mask_BG. It is 2 - 2 times their correlation, so only how the lists compare matters; 0..4."""
    count_B = mask_BG.sum(dim=1).clamp(min=1)
    gap_BG = (_standardised(value_BG, mask_BG) - _standardised(reward_BG, mask_BG)).square()
    return (gap_BG * mask_BG).sum(dim=1) / count_B


class Student(Learner):
    """A part that may have a teacher."""

    teacher: Teacher | None = None


def taught(student: Student, guide: RewardModel, lesson: Lesson, progress: Progress | None = None) -> dict[str, Any]:
    """Make `guide` the lesson's evaluator (or train it as such), then train the student with it; both parts' figures.

    The student ends without its teacher, both in evaluation mode on the CPU.
    """
    parts = 1 if lesson.evaluator is not None else 2
    figures = {"evaluator": fit_evaluator(guide, lesson, part_of(progress, lesson, 0, parts))}
    student.teacher = Teacher(guide.to(lesson.device).eval(), lesson.preset.helper_lists, lesson.preset.on_policy_lists)
    figures["student"] = fit(student, lesson, part_of(progress, lesson, parts - 1, parts))
    student.teacher = None
    guide.to("cpu")
    return figures


def _standardised(value_BG: Tensor, mask_BG: Tensor) -> Tensor:
    count_B1 = mask_BG.sum(dim=1, keepdim=True).clamp(min=1)
    centred_BG = (value_BG - (value_BG * mask_BG).sum(dim=1, keepdim=True) / count_B1) * mask_BG
    return centred_BG / (centred_BG.square().sum(dim=1, keepdim=True) / count_B1 + 1e-8).sqrt()
