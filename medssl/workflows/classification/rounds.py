"""SSLDEC for images in rounds: the network clusters the pool, its sharpened assignments teach the next round."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import torch
from torch import Tensor

from medssl.engines.checkpoints import save_atomically
from medssl.engines.metrics_table import TRANSDUCTIVE, measured
from medssl.engines.watching import warn_of_dead_clusters
from medssl.errors import ConfigError, DatalistError
from medssl.functional.clustering import RULES, cluster_mass, log_target_distribution
from medssl.io.files import read_json, read_tsv, write_json, write_tsv
from medssl.io.image_cohort import ImageCohort
from medssl.self_training import self_train
from medssl.transforms.mixture import SCHEDULES
from medssl.workflows.classification.budgets import image_budget, require_steps_for_rounds
from medssl.workflows.classification.candidates import Say, train_candidate
from medssl.workflows.classification.given_weights import INIT_FILE
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import predict_passes
from medssl.workflows.classification.train import ClassifyOptions, share_of
from medssl.workflows.devices import choose_device
from medssl.workflows.rounds import LOSSES
from medssl.workflows.running import Training
from medssl.workflows.watching import Watcher

logger = logging.getLogger(__name__)

CENTER_START = "train#center_start#start"
"""Setting that says where the centers of the clusters start, see `engines.CenterStart`."""


@dataclass(frozen=True)
class PoolTargets:
    """What a round learns from the unlabeled images.

    Args:
        log_p: Log target distribution.
        label: Likeliest class of the teacher.
        path: Where the targets lie.

    Shapes:
        log_p: ``(N, K)``; label: ``(N,)``
    """

    log_p: Tensor
    label: Tensor
    path: Path


def train_method(
    run: Path, cohort: ImageCohort, options: ClassifyOptions, data: Path, watcher: Watcher | None, say: Say
) -> Training:
    """Train one method in a folder: in rounds where they are asked for, else in one go."""
    if options.rounds:
        return train_in_rounds(run, cohort, options, data, watcher, say)
    return train_candidate(run, cohort, options, data, watcher, say)


def train_in_rounds(
    run: Path, cohort: ImageCohort, options: ClassifyOptions, data: Path, watcher: Watcher | None, say: Say
) -> Training:
    """Fit on the labels, then in rounds on labels and targets; all stages share the budget.

    Args:
        run: Folder that becomes a copy of the last stage; all stages lie beside it as ``<run>-round-<number>``.
        cohort: Labeled and unlabeled images.
        options: ``rounds``, ``target_rule`` and ``schedule`` say how; ``method`` is "ssldec".
        data: Where the images come from, for the record.
        watcher: Told about the progress.
        say: Told what comes next.

    Raises:
        ConfigError: There is no such rule or schedule, or another method than SSLDEC.
        DatalistError: There are no unlabeled images.

    Source:
        Enguehard et al., IEEE Access 2019 ("dec", "union_reinit").

    Notes:
        ``<run>-round/rounds.tsv`` has a row a network: its best score on the validation images and its mean losses on
        labeled and unlabeled images; and the targets that it makes for the round that follows, where one does.
    """
    require_rounds(options, cohort)
    stages = _Stages(run.with_name(f"{run.name}-round"), cohort, options, data, watcher, say)
    outcome = self_train(
        fit=stages.fit, predict=stages.predict, changed=stages.changed, rounds=options.rounds
    )
    stages.record_last(outcome.rounds)
    done = stages.trainings[outcome.rounds]
    if not (run / "run.json").is_file():
        told = {"method": options.method, "rounds": outcome.rounds, "steps_of_rounds": stages.spent}
        _copy_stage(done.run, run, told)
    write_json(run.with_name(f"{run.name}-round") / "rounds.json", vars(outcome))
    say(f"{outcome.rounds} rounds: {outcome.reason}")
    return replace(done, run=run)


def _copy_stage(stage: Path, run: Path, told: Mapping[str, object]) -> None:
    """Copy a stage to the folder of its method, which is there whole or not at all.

    Both lie beside each other, so that relative paths stay right.
    """
    partial = run.with_name(f".partial-{run.name}")
    for folder in (partial, run):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stage, partial)
    write_json(partial / "run.json", {**read_json(partial / "run.json"), **told})
    partial.rename(run)


class _Stages:
    """The trainings of all rounds and the targets between them."""

    def __init__(
        self,
        folder: Path,
        cohort: ImageCohort,
        options: ClassifyOptions,
        data: Path,
        watcher: Watcher | None,
        say: Say,
    ) -> None:
        self.folder, self.cohort, self.options = folder, cohort, options
        self.data, self.watcher, self.say = data, watcher, say
        self.steps = options.steps or image_budget(options.budget).steps
        self.share = share_of(self.steps, options.rounds + 1)
        self.trainings: dict[int, Training] = {}
        self.rows: list[dict[str, object]] = []

    def fit(self, stage: int, targets: PoolTargets | None) -> None:
        """Train a stage: the first one on the labels, with the same head; the last one has the steps that are left."""
        steps = self.share if stage < self.options.rounds else self.steps - stage * self.share
        own = replace(self.options, steps=steps, seed=self.options.seed + stage, target_rule=None)
        cohort, files = self.cohort, {}
        if targets is None:
            cohort = replace(cohort, unlabeled=())
        else:
            files["targets.pt"] = targets.path
            settings = dict(own.settings)
            settings["alternate"] = self.options.schedule == "alternate"
            if self.options.schedule != "union_reinit":
                files[INIT_FILE] = self._run(stage - 1) / "models" / "model.pt"
                settings |= {
                    "init_weights": f"$@bundle_root + '/{INIT_FILE}'",
                    CENTER_START: "random",
                }  # have started
            own = replace(own, method="stored-targets", settings=settings)
        self.trainings[stage] = train_candidate(
            self._run(stage), cohort, own, self.data, self.watcher, self.say, files
        )

    @property
    def spent(self) -> int:
        """Steps that all stages took."""
        return sum(training.steps for training in self.trainings.values())

    def predict(self, number: int) -> PoolTargets:
        """Cluster the pool with the network of the stage before, and sharpen."""
        device = choose_device(self.options.device)
        model = load_classifier(self._run(number - 1), device).uncalibrated()
        q = predict_passes(self.cohort.unlabeled, [model], ["identity"])[0].double()
        log_q = q.clamp_min(1e-12).log()
        mass = cluster_mass(q, torch.ones(len(q), dtype=torch.bool))
        known = torch.tensor([self.cohort.number(item) for item in self.cohort.training])
        prior = known.bincount(minlength=len(self.cohort.classes)).double()
        log_p = log_target_distribution(log_q, self.options.target_rule or "prior", mass, prior).float()
        path = self.folder / f"targets-{number}.pt"
        save_atomically({"log_p": log_p}, path)
        warn_of_dead_clusters(number, mass, self.cohort.classes, "unlabeled image")
        self._record(number, q, mass)
        return PoolTargets(log_p, q.argmax(1), path)

    def changed(self, before: PoolTargets, now: PoolTargets) -> float:
        """Return the share of images whose likeliest class is another one."""
        share = float((before.label != now.label).double().mean())
        self.rows[-1]["changed"] = share
        self._write()
        return share

    def record_last(self, rounds: int) -> None:
        """Append the row of the last network where it made no targets."""
        if len(self.rows) == rounds:
            self.rows.append(self._row(rounds + 1))
            self._write()

    def _run(self, stage: int) -> Path:
        return self.folder.with_name(f"{self.folder.name}-{stage}")

    def _record(self, number: int, q: Tensor, mass: Tensor) -> None:
        shares = (mass / mass.sum()).tolist()
        named = {f"share_{name}": share for name, share in zip(self.cohort.classes, shares, strict=True)}
        self.rows.append(self._row(number) | {"confidence": float(q.amax(1).mean()), **named})
        self._write()

    def _row(self, number: int) -> dict[str, object]:
        """Say how the network did that makes the targets of a round; of these nothing is known yet."""
        training = self.trainings[number - 1]
        curve = read_tsv(training.run / "metrics.tsv")
        return {
            "round": number,
            **dict.fromkeys(
                ("changed", "confidence", *(f"share_{name}" for name in self.cohort.classes)), nan
            ),
            "val_f1": nan if training.best is None else training.best,
            **{part: _mean(measured(curve, part)) for part in LOSSES},
            **(TRANSDUCTIVE if self.options.transductive else {}),
        }

    def _write(self) -> None:
        write_tsv(self.folder / "rounds.tsv", self.rows, list(self.rows[0]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else nan


def require_rounds(options: ClassifyOptions, cohort: ImageCohort) -> None:
    """Refuse rounds that cannot be run.

    Raises:
        ConfigError: Another method than SSLDEC, no such rule or schedule, or fewer steps than stages.
        DatalistError: There are no unlabeled images.
    """
    if options.method != "ssldec":
        msg = f"--rounds belongs to --method ssldec; found {options.method}."
        raise ConfigError(msg, "Teachers of other methods: medssl classify distill.")
    for what, found, known in (
        ("target rule", options.target_rule or "prior", RULES),
        ("schedule", options.schedule, SCHEDULES),
    ):
        if found not in known:
            msg = f"There is no {what} '{found}' for images. Choose one of: {', '.join(known)}."
            raise ConfigError(msg)
    if not cohort.unlabeled:
        msg = f"{cohort.root.name} holds no unlabeled image, so there is nothing to cluster."
        raise DatalistError(msg, "Put images into unlabelled/, or use --method supervised.")
    require_steps_for_rounds(image_budget(options.budget), options.rounds, options.steps)
    share_of(options.steps or image_budget(options.budget).steps, options.rounds + 1)
