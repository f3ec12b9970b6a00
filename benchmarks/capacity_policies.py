"""Three classes of policies over the lists of a small world, and the member of each that is nearest to pi*.

- F_M, generator only: one network with a hidden layer of M tanh units. At each place it reads the user's features and
  which item stands at which earlier place, and gives every item that is left a logit. A product of such steps can be
  any policy, and with M large enough the network gives any step on these finitely many inputs: the error goes to 0.
- C_alpha^k, mixture: pi(l | u) = sum over j of w_j(u) pi_j(l | u) with k generators pi_j of F_alpha. w(u), the
  evaluator's part, is any distribution over generators, free for every user and not counted as parameters.
- picked: k generators of F_alpha propose a list each, and an evaluator that knows r* itself picks proposal j with
  probability proportional to exp(s r*(l_j | u) / TEMPERATURE), s fitted, lists HOPELESS nats below the best taken as
  equal. No mixture: the weight depends on the lists.

The first two are our reading of theorem 1 (docs/method.md; the paper's proof is not restated here): a generator that is
(alpha, beta)-bounded is read as at most alpha units wide and beta = 1 hidden layer deep, and to mix with an evaluator
as to weigh by user, not by list. The third is what a generator-evaluator does, with the best evaluator there can be.
With as many generators as there are lists (120) any policy is a mixture of constants, so "finite k" is to be read as
few against the lists.

Fitting minimises KL(pi* || pi), exact, mean over users, by L-BFGS; it finds an upper bound of the class's error.

Legend as in benchmarks/capacity_world.py; K generators, W their width, T quadrature nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from benchmarks.capacity_world import LENGTH, TEMPERATURE, SmallWorld

Kind = Literal["generator only", "mixture", "picked"]

ALPHA = 2
"""Width of a generator."""
EXTRA = 2
"""n of the theorem, which it leaves open: one generator more."""

START_SCALES = (0.5, 0.25)
"""Of the first layer's weights, in turn over the starts: a lone network prefers the first, mixtures the second."""
MOST_EAGER = 3.0
"""Greatest s / TEMPERATURE of an evaluator; at 1 it weighs proposals as pi* does."""
HOPELESS = 30.0
"""Nats below a user's best list from which an evaluator tells lists no longer apart."""
NODE_STEP = 0.5
"""Of the quadrature over log time. The integrand falls off doubly exponentially to the right and exponentially to the
left, so that the trapezoid rule is exact to about 1e-8 (the policy's sum is checked)."""
_LEFT, _RIGHT = -20.0, 4.0
_MEMORY = 30  # pairs that L-BFGS keeps


@dataclass(frozen=True)
class PolicyClass:
    """Which policies; `generators` is 1 for generator only."""

    kind: Kind
    generators: int
    width: int

    def parameters(self, world: SmallWorld) -> int:
        """Of all generators together; evaluators are free."""
        return self.generators * sum(math.prod(shape) for shape in self.shapes(world))

    def start(self, world: SmallWorld, seed: int) -> Tensor:
        """A random vector of everything that is fitted."""
        generator = torch.Generator().manual_seed(seed)
        first = START_SCALES[seed % len(START_SCALES)]
        scales = (first, first, first, self.width**-0.5, 0.0)
        parts = [
            scale * torch.randn(self.generators, *shape, generator=generator, dtype=torch.float64)
            for scale, shape in zip(scales, self.shapes(world), strict=True)
        ]
        if self.kind == "mixture":
            users = len(world.features_UF)
            parts.append(0.1 * torch.randn(self.generators, users, generator=generator, dtype=torch.float64))
        if self.kind == "picked":
            parts.append(torch.full((1,), -math.log(MOST_EAGER - 1.0), dtype=torch.float64))  # s = 1
        return torch.cat([part.flatten() for part in parts])

    def shapes(self, world: SmallWorld) -> list[tuple[int, ...]]:
        """Of one generator: features, items before, hidden bias, output, output bias."""
        candidates = world.used_SN.shape[1]
        return [
            (world.features_UF.shape[1], self.width),
            (world.placed_SQ.shape[1], self.width),
            (1, self.width),
            (self.width, candidates),
            (1, candidates),
        ]


@dataclass(frozen=True)
class Fit:
    """What one start ended with."""

    error: float  # KL(pi* || pi), nats, mean over users
    reverse: float  # KL(pi || pi*)
    steps: int
    converged: bool


def beyond(count: int) -> int:
    """M = k alpha + n: the width from which a generator-only model is to be better than any mixture of `count`."""
    return count * ALPHA + EXTRA


def log_policy(policies: PolicyClass, world: SmallWorld, values: Tensor) -> Tensor:
    """log pi_UP of the member of the class that has these values."""
    shapes = policies.shapes(world)
    sizes = [policies.generators * math.prod(shape) for shape in shapes]
    *weights, rest = values.split([*sizes, len(values) - sum(sizes)])
    log_prob_KUP = _log_generators(
        world, *(part.view(policies.generators, *shape) for part, shape in zip(weights, shapes, strict=True))
    )
    if policies.kind == "mixture":
        log_weight_KU = torch.log_softmax(rest.view(policies.generators, -1), dim=0)
        return torch.logsumexp(log_weight_KU.unsqueeze(-1) + log_prob_KUP, dim=0)
    if policies.kind == "picked":
        return _log_picked(world, log_prob_KUP, MOST_EAGER * torch.sigmoid(rest))
    return log_prob_KUP.squeeze(0)


def fit(policies: PolicyClass, world: SmallWorld, seed: int, steps: int) -> Fit:
    """The nearest policy to pi* that L-BFGS finds from a random start in at most so many steps."""

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.from_numpy(values.copy()).requires_grad_()
        error = divergences(world, log_policy(policies, world, leaf))[0]
        error.backward()
        return float(error.detach()), leaf.grad.numpy()

    options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": _MEMORY, "ftol": 1e-11, "gtol": 1e-8}
    found = minimize(loss, policies.start(world, seed).numpy(), jac=True, method="L-BFGS-B", options=options)
    with torch.no_grad():
        error, reverse = divergences(world, log_policy(policies, world, torch.from_numpy(found.x)))
    return Fit(float(error), float(reverse), int(found.nit), bool(found.success))


def divergences(world: SmallWorld, log_pi_UP: Tensor) -> tuple[Tensor, Tensor]:
    """KL(pi* || pi) and KL(pi || pi*) in nats, means over users."""
    optimal_UP = torch.from_numpy(world.optimal_UP)
    gap_UP = optimal_UP.log() - log_pi_UP
    return (optimal_UP * gap_UP).sum(dim=1).mean(), -(log_pi_UP.exp() * gap_UP).sum(dim=1).mean()


def _log_generators(
    world: SmallWorld, features_KFW: Tensor, placed_KQW: Tensor, bias_K1W: Tensor, out_KWN: Tensor, out_bias_K1N: Tensor
) -> Tensor:
    """log pi_KUP of K networks."""
    user_KUW = torch.from_numpy(world.features_UF) @ features_KFW + bias_K1W
    prefix_KSW = torch.from_numpy(world.placed_SQ) @ placed_KQW
    hidden_KUSW = torch.tanh(user_KUW.unsqueeze(2) + prefix_KSW.unsqueeze(1))
    logits_KUSN = torch.einsum("kusw,kwn->kusn", hidden_KUSW, out_KWN) + out_bias_K1N.unsqueeze(1)
    logits_KUSN = logits_KUSN.masked_fill(torch.from_numpy(world.used_SN), -torch.inf)
    steps_KUX = torch.log_softmax(logits_KUSN, dim=-1).flatten(2)
    at_PL = torch.from_numpy(world.prefix_PL * world.used_SN.shape[1] + world.lists_PL)
    return steps_KUX[:, :, at_PL.flatten()].unflatten(2, (-1, LENGTH)).sum(dim=-1)


def _log_picked(world: SmallWorld, log_prob_KUP: Tensor, sharpness_1: Tensor) -> Tensor:
    """log pi_UP of "k proposals, one picked with probability proportional to exp(s r*)", exact.

    Picking in proportion to e^a is a race: proposal j arrives at an exponential time of rate e^a_j, the first is taken.
    So pi(l) = sum_j pi_j(l) * integral of e^a(l) exp(-t e^a(l)) prod_{m != j} E[exp(-t e^a(l_m))] dt, and the
    expectations are sums over the P lists: one integral instead of sums over all P^k combinations of proposals.
    """
    reward_UP = torch.from_numpy(world.reward_UP)
    below_UP = (reward_UP - reward_UP.amax(dim=1, keepdim=True)) / TEMPERATURE
    score_UP = (sharpness_1 * below_UP).clamp_min(-HOPELESS)
    nodes_T = torch.arange(_LEFT, HOPELESS + _RIGHT, NODE_STEP, dtype=torch.float64)
    rate_UPT = torch.exp(score_UP.unsqueeze(-1) + nodes_T)  # e^a t
    alive_UPT = torch.exp(-rate_UPT)
    prob_KUP = log_prob_KUP.exp()
    log_alive_KUT = torch.einsum("kup,upt->kut", prob_KUP, alive_UPT).clamp_min(1e-300).log()
    others_KUT = torch.exp(log_alive_KUT.sum(dim=0, keepdim=True) - log_alive_KUT)
    first_KUP = torch.einsum("upt,kut->kup", rate_UPT * alive_UPT * NODE_STEP, others_KUT)  # dt = t d(log t)
    return (prob_KUP * first_KUP).sum(dim=0).clamp_min(1e-300).log()
