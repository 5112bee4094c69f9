"""Which pseudo-labels count, and how much: threshold rules of consistency training.

A rule is a pure function ``(probabilities, indices, state) -> (weight, state)``: one row an image, those of all
processes together. It returns a new state instead of changing the old one, a few tensors that a checkpoint can
hold. All of it is computed in float64, without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from medssl.errors import ConfigError

State = Mapping[str, Tensor]
Rule = Callable[..., tuple[Tensor, State]]

FLOOR = 1e-12
"""Least share that a logarithm or a quotient counts with."""


def fixed_threshold(
    probabilities: Tensor, indices: Tensor, state: State, *, threshold: float = 0.95
) -> tuple[Tensor, State]:
    r"""Return weight 1 where the confidence reaches a threshold, :math:`\max_c p_{ic} \ge \tau`, else 0.

    Args:
        probabilities: Of the weakly changed view.
        indices: Place of each image in the pool; not looked at.
        state: Not looked at.
        threshold: :math:`\tau`.

    Shapes:
        probabilities: ``(B, K)``; indices: ``(B,)``; return: ``(B,)``

    Source:
        Sohn et al.: FixMatch, NeurIPS 2020, equation 4.
    """
    weight = probabilities.detach().double().amax(1) >= threshold
    return weight.double(), state


def flexmatch_threshold(
    probabilities: Tensor, indices: Tensor, state: State, *, threshold: float = 0.95
) -> tuple[Tensor, State]:
    r"""Lower the threshold of classes that few images of the pool have been sure of so far.

    .. math:: \max_c p_{ic} \ge \tau \frac{\beta_{\hat c}}{2 - \beta_{\hat c}}, \qquad
              \beta_c = \frac{n_c}{\max(\max_k n_k, n_-)}

    Args:
        probabilities: Of the weakly changed view.
        indices: Place of each image in the pool.
        state: ``latest (pool,)``, the class of each image the last time its confidence reached
            :math:`\tau`, -1 where it never did; ``learned (K,)``, :math:`\beta`.
        threshold: :math:`\tau`; no class has a higher one.

    Returns:
        Weights 0 or 1 by the :math:`\beta` of the steps before, and the state after this step.

    Shapes:
        probabilities: ``(B, K)``; indices: ``(B,)``; return: ``(B,)``

    Notes:
        n counts the images of the pool by their latest class, :math:`n_-` those that have none. As long as
        one entry holds the whole pool, :math:`\beta` stays as it is: it starts at 0, where everything counts.

    Source:
        Zhang et al.: FlexMatch, NeurIPS 2021, with warm-up and convex mapping, as in the USB library.
    """
    best, label = probabilities.detach().double().max(1)
    learned, latest = (state[name].to(best.device) for name in ("learned", "latest"))
    weight = best >= threshold * (learned / (2 - learned))[label]
    sure = best >= threshold
    latest = latest.index_put((indices[sure].to(best.device),), label[sure])
    counts = (latest + 1).bincount(minlength=len(learned) + 1).double()
    most = counts.max()
    learned = torch.where(most < len(latest), counts[1:] / most, learned)
    return weight.double(), {"latest": latest, "learned": learned}


def freematch_threshold(
    probabilities: Tensor,
    indices: Tensor,
    state: State,
    *,
    momentum: float = 0.999,
    quantile: float | None = None,
    ceiling: float | None = None,
) -> tuple[Tensor, State]:
    r"""Let the threshold follow the confidence itself, lower for classes that are predicted less.

    .. math:: \max_c p_{ic} \ge \tau \frac{\tilde p_{\hat c}}{\max_k \tilde p_k}, \qquad
              \tau \leftarrow m \tau + (1 - m) \frac{1}{B} \sum_i \max_c p_{ic}

    Args:
        probabilities: Of the weakly changed view.
        indices: Not looked at.
        state: ``level ()``, :math:`\tau`; ``probability (K,)``, the running mean :math:`\tilde p` of p;
            ``histogram (K,)``, that of the predicted classes. All start at 1/K.
        momentum: m, of all three.
        quantile: Of the batch's confidences, in place of their mean.
        ceiling: Highest :math:`\tau`.

    Returns:
        Weights 0 or 1 by the state after this step, and that state.

    Shapes:
        probabilities: ``(B, K)``; indices: ``(B,)``; return: ``(B,)``

    Source:
        Wang et al.: FreeMatch, ICLR 2023; quantile and ceiling are options of the USB library.
    """
    p = probabilities.detach().double()
    best, label = p.max(1)
    state = {name: value.to(p) for name, value in state.items()}
    if len(p):
        center = best.mean() if quantile is None else best.quantile(quantile)
        predicted = label.bincount(minlength=p.shape[1]).double() / len(p)
        now = {"level": center, "probability": p.mean(0), "histogram": predicted}
        state = {name: value.lerp(now[name], 1 - momentum) for name, value in state.items()}
        if ceiling is not None:
            state["level"] = state["level"].clamp_max(ceiling)
    threshold = state["level"] * state["probability"] / state["probability"].max()
    return (best >= threshold[label]).double(), state


def softmatch_weight(
    probabilities: Tensor,
    indices: Tensor,
    state: State,
    *,
    momentum: float = 0.999,
    sigmas: float = 2.0,
) -> tuple[Tensor, State]:
    r"""Weigh by a Gaussian of the confidence that is cut off at its mean.

    .. math:: w_i = \exp\left(-\frac{\min(s_i - \mu, 0)^2}{2 \sigma^2 / n^2}\right), \qquad s_i = \max_c p_{ic}

    Args:
        probabilities: Of the weakly changed view, perhaps aligned (`align_distribution`).
        indices: Not looked at.
        state: ``mean ()`` and ``variance ()``, the running mean :math:`\mu` and unbiased variance
            :math:`\sigma^2` of s; start at 1/K and 1.
        momentum: Share of both that a step keeps.
        sigmas: n.

    Returns:
        Weights in [0, 1] by the state after this step, 1 from the mean on, and that state.

    Shapes:
        probabilities: ``(B, K)``; indices: ``(B,)``; return: ``(B,)``

    Notes:
        A batch of one image has no variance and leaves it as it is.

    Source:
        Chen et al.: SoftMatch, ICLR 2023, as in the USB library.
    """
    s = probabilities.detach().double().amax(1)
    mean, variance = (state[name].to(s) for name in ("mean", "variance"))
    if len(s):
        mean = mean.lerp(s.mean(), 1 - momentum)
    if len(s) > 1:
        variance = variance.lerp(s.var(), 1 - momentum)
    below = (s - mean).clamp_max(0)
    weight = torch.exp(-below.square() * sigmas**2 / (2 * variance.clamp_min(FLOOR)))
    return weight, {"mean": mean, "variance": variance}


RULES: Mapping[str, Rule] = {
    "fixed": fixed_threshold,
    "flexmatch": flexmatch_threshold,
    "freematch": freematch_threshold,
    "softmatch": softmatch_weight,
}
"""Name -> rule."""


def start_state(rule: str, classes: int, pool: int) -> dict[str, Tensor]:
    """Return the state that a rule starts from.

    Args:
        rule: One of `RULES`.
        classes: K; "fixed" does not need it.
        pool: Number of unlabeled images; "flexmatch" needs it.

    Raises:
        ConfigError: The rule is unknown, or lacks one of the numbers.
    """
    if rule not in RULES:
        msg = f"There is no threshold rule '{rule}'. Choose one of: {', '.join(RULES)}."
        raise ConfigError(msg)
    if rule == "fixed":
        return {}
    if classes < 2 or (rule == "flexmatch" and pool < 1):
        msg = f"The threshold rule '{rule}' found classes={classes} and pool={pool}; expected"
        msg += " at least 2 classes" + " and the number of unlabeled images." * (rule == "flexmatch")
        raise ConfigError(msg, "Give both numbers to the objective.")
    share = torch.full((classes,), 1 / classes, dtype=torch.float64)
    if rule == "flexmatch":
        return {"latest": torch.full((pool,), -1), "learned": torch.zeros_like(share)}
    if rule == "freematch":
        return {"level": share[0].clone(), "probability": share, "histogram": share.clone()}
    return {"mean": share[0].clone(), "variance": torch.ones((), dtype=torch.float64)}


def fairness_cross_entropy(log_q: Tensor, weight: Tensor, state: State) -> Tensor:
    r"""Return the cross-entropy between two balances of confidence and frequency, FreeMatch's fairness.

    .. math:: H(t, s) = -\sum_c t_c \log s_c, \qquad t = \mathrm{norm}(\tilde p / \tilde h), \quad
              s = \mathrm{norm}(\bar p / \bar h)

    The sign is that of a cross-entropy: it is least where s equals t. The USB library *subtracts* it
    (:math:`+\lambda_e \sum_c t_c \log s_c` with :math:`\lambda_e` = 0.001), so it drives s away from t; which of
    both the article means is unchecked here, hence `objectives.FixMatch` leaves it out by default.

    Args:
        log_q: The student's log probabilities of the strongly changed view.
        weight: Of the threshold rule; images of weight 0 are left out.
        state: After the step: running means ``probability`` and ``histogram`` of `freematch_threshold`.

    Returns:
        Scalar; 0, with a graph, if no image counts. The gradient goes through :math:`\bar p` alone.

    Shapes:
        log_q: ``(B, K)``; weight: ``(B,)``

    Source:
        Wang et al.: FreeMatch, ICLR 2023, as in the USB library but for the sign.
    """
    q = log_q.exp()[weight > 0]
    if not len(q):
        return log_q.exp().sum() * 0
    predicted = q.argmax(1).bincount(minlength=q.shape[1]).to(q) / len(q)
    s = torch.where(predicted > 0, q.mean(0) / predicted.clamp_min(FLOOR), 0.0)
    histogram = state["histogram"].to(q)
    t = torch.where(histogram > 0, state["probability"].to(q) / histogram.clamp_min(FLOOR), 0.0)
    return -(t / t.sum() * (s / s.sum()).clamp_min(FLOOR).log()).sum()


def align_distribution(probabilities: Tensor, average: Tensor, target: Tensor | None = None) -> Tensor:
    r"""Shift predictions so that on average they have given shares, :math:`\mathrm{norm}(p \, \pi / \bar p)`.

    Args:
        probabilities: p.
        average: :math:`\bar p`, the running mean of p (`running_mean`).
        target: :math:`\pi`, such as the shares of the classes among the labeled images; uniform where not given.

    Shapes:
        probabilities, return: ``(B, K)``; average, target: ``(K,)``

    Source:
        Berthelot et al.: ReMixMatch, ICLR 2020; Chen et al.: SoftMatch, ICLR 2023 (uniform target, for the
        weights alone).
    """
    p = probabilities.detach().double()
    factor = 1 / average.to(p).clamp_min(FLOOR)
    if target is not None:
        factor = factor * target.to(p)
    aligned = p * factor
    return aligned / aligned.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)


def running_mean(average: Tensor, values: Tensor, momentum: float = 0.999) -> Tensor:
    """Move an average towards the mean of new rows; the first ones set it where it is all zero.

    Shapes:
        average, return: ``(K,)``; values: ``(B, K)``
    """
    values = values.detach().double()
    average = average.to(values)
    if not len(values):
        return average
    return torch.where(average.any(), average.lerp(values.mean(0), 1 - momentum), values.mean(0))
