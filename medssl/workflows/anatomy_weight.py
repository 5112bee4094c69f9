"""The exponent w of registered labels, chosen on labeled scans that the network was not trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medssl.functional.anatomy_weight import HeldOutScan, Weight, WeightChoice, choose_weight
from medssl.functional.clustering import RULES
from medssl.inference.predictor import Predictor
from medssl.io.subjects import Cohort
from medssl.transforms.crops import counted_labels
from medssl.workflows.atlases import Progress
from medssl.workflows.methods import first_cluster, target_rule
from medssl.workflows.models import Model, load_model
from medssl.workflows.registered_prior import RegisteredPrior, anatomy_defaults, prepared_with_labels

if TYPE_CHECKING:
    from medssl.workflows.train import TrainOptions

logger = logging.getLogger(__name__)

MOST_VOXELS = 200_000
"""Of a scan, evenly spread, that w is chosen on."""

SETTING = "anatomy_weight"
"""Id in the configuration."""

PROCESSES = "train#dataset#registered#processes"
"""Id of how many processes register at a time."""


@dataclass(frozen=True)
class Weighed:
    """What was chosen, and on which scans.

    Args:
        choice: None where no labeled scan could be laid over a held-out one.
        scans: Held-out scans that it was chosen on.
        without: Held-out scans over which no labeled scan could be laid, or without a labeled voxel.
    """

    choice: WeightChoice | None
    scans: tuple[str, ...]
    without: tuple[str, ...] = ()


_REGISTERED = ("anatomy_weight", "registered_share", "atlases", "train#dataset#registered")
"""How settings begin that only a run with registered labels has."""


def weigh_anatomy(
    run: Path, cohort: Cohort, options: TrainOptions, folder: Path, progress: Progress | None = None
) -> Weighed:
    """Choose w by the likelihood of the truth of held-out labeled scans under the targets they would get.

    An honest q exists only for scans that the network did not see: those under validation. Training scans
    are registered to them.

    Args:
        run: Labeled-only network that was trained on the cohort's training scans.
        cohort: With held-out labeled scans under validation.
        options: Of the semi-supervised run that w is for.
        folder: ``registrations/`` in it keeps every pair.
        progress: Told about the registrations of each held-out scan.

    Notes:
        A scan over which no labeled one could be laid speaks neither for nor against registration, and is left out.
    """
    model = load_model(run)
    prepared = {
        name: prepared_with_labels(subjects, model.table, model.spacing, options.resample)
        for name, subjects in (("atlases", cohort.training), ("held out", cohort.validation))
    }
    first = first_cluster(options, cohort)
    prior = RegisteredPrior(
        prepared["atlases"],
        len(model.table),
        folder,
        options.settings.get(PROCESSES),
    )
    pi = counted_labels(prepared["atlases"], len(model.table))[first:]
    found = [_held_out(model, sample, prior, pi, first, progress) for sample in prepared["held out"]]
    scans = {one.key: scan for one, scan in zip(cohort.validation, found, strict=True)}
    informed = {key: scan for key, scan in scans.items() if scan is not None}
    choice = choose_weight(list(informed.values()), _rule(options), first=1 - first) if informed else None
    return Weighed(choice, tuple(informed), tuple(key for key in scans if key not in informed))


def with_weight(options: TrainOptions, weight: Weight, *, automatic: bool, cohort: Cohort) -> TrainOptions:
    """Return the options of a run whose targets carry a prior with this w.

    Args:
        options: Of a run with registered labels.
        weight: One number, or one a cluster.
        automatic: Whether w = 0 also leaves registration out (``--prior auto``).
        cohort: Tells whether background has a cluster.
    """
    if weight == 0 and automatic:
        kept = {name: one for name, one in options.settings.items() if not name.startswith(_REGISTERED)}
        return replace(options, prior="class", settings=kept)
    value: Any = weight
    if isinstance(weight, tuple):  # one a label; background has no cluster where a mask bounds the scan
        value = [*[0.0] * first_cluster(options, cohort), *weight]
    return replace(options, settings={**options.settings, SETTING: value})


def record(weighed: Weighed, options: TrainOptions, *, automatic: bool) -> dict[str, Any]:
    """Return what a run's record says about the choice."""
    choice = weighed.choice
    told = {"held_out": list(weighed.scans), "target_rule": _rule(options)}
    if weighed.without:
        told["without_registration"] = list(weighed.without)
    if choice is None:
        weight = float(anatomy_defaults()[SETTING])
        said = "No labeled scan could be laid over a held-out one, so nothing is known about the weight of registered "
        return {"weight": weight, "sentence": f"{said}labels: w = {weight:g}.", **told, "candidates": []}
    return {
        "weight": list(choice.weight) if isinstance(choice.weight, tuple) else choice.weight,
        "sentence": sentence(choice, len(weighed.scans), automatic=automatic),
        **told,
        "candidates": [
            {
                "weight": list(weight) if isinstance(weight, tuple) else weight,
                "log_likelihood": choice.likelihood[weight],
                "dice": choice.dice[weight],
            }
            for weight in choice.likelihood
        ],
    }


def sentence(choice: WeightChoice, scans: int, *, automatic: bool) -> str:
    """Say what was chosen."""
    where = f"{scans} held-out labeled scan{'s' if scans > 1 else ''}"
    if choice.weight == 0:
        left_out = "scans are not registered" if automatic else "targets carry no prior"
        return f"Registered labels make the truth of {where} no likelier (w = 0): {left_out}."
    before = choice.dice[0.0]
    after = choice.dice[choice.weight]
    told = (
        " ".join(f"{w:g}" for w in choice.weight)
        if isinstance(choice.weight, tuple)
        else f"{choice.weight:g}"
    )
    return (
        f"Registered labels have the weight w = {told} in the targets, under which the truth of {where} is "
        f"likeliest; the targets' Dice there is {after:.3f}, without them {before:.3f}."
    )


def _held_out(
    model: Model, sample: Any, prior: RegisteredPrior, pi: torch.Tensor, first: int, progress: Progress | None
) -> HeldOutScan | None:
    """Predict a held-out scan and register the others to it; keep its labeled voxels in the mask.

    None where none of the others has a say, or none of its voxels a label.
    """
    laid = prior.laid_over(sample, progress)
    a, bounds = laid.prior, laid.bounds
    image, mask = sample["image"].as_tensor(), sample["mask"].as_tensor()[0] > 0.5
    label = sample["label"].as_tensor()[0][bounds].long()
    known = mask[bounds] & (label >= first) & (label < len(model.table))
    places = known.flatten().nonzero().flatten()
    if not laid.atlases or not len(places):
        return None
    places = places[:: max(1, -(-len(places) // MOST_VOXELS))]
    q = Predictor(network=model.network).predict_box(image, mask).whole()
    tiny = torch.finfo(torch.float32).tiny
    log_q = (
        q[(slice(first, None), *bounds)].flatten(1)[:, places].float().clamp_min(tiny).log().log_softmax(0)
    )
    return HeldOutScan(log_q, a[first:].flatten(1)[:, places], label.flatten()[places] - first, pi)


def _rule(options: TrainOptions) -> str:
    """Return the target rule that w is judged under: one-hot targets have no likelihood, what they come from has."""
    rule = target_rule(options)
    return rule if rule in RULES else "soft"
