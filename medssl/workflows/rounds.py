"""Self-training in rounds, as a bundle's configuration runs it: predictions to files, stages of one budget."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from medssl.engines import is_distributed, torch_rank
from medssl.engines.calibration import METRIC
from medssl.engines.checkpoints import BestModelSaver, save_atomically, share_buffers
from medssl.engines.metrics_table import measured
from medssl.engines.watching import COUNTS, warn_of_dead_clusters
from medssl.errors import CheckpointError, ConfigError
from medssl.functional.anatomy import anatomy_weights, log_anatomical_factor, weights_from
from medssl.functional.clustering import center_distances, fused_assignment
from medssl.io.files import read_tsv, write_json, write_tsv
from medssl.io.subjects import TRANSDUCTIVE
from medssl.networks import reinitialize
from medssl.networks.clustering_head import ClusteringHead
from medssl.self_training import TOLERANCE, Outcome, self_train
from medssl.transforms import CropDataset, Targets
from medssl.transforms.mixture import SCHEDULES

logger = logging.getLogger(__name__)

LOSSES = ("loss_labeled", "loss_unlabeled")
"""Parts of the loss that ``rounds.tsv`` has the mean of, over the stage that trained the network of a row.

Beside them stand the voxels that they ran over in that stage, added up (`COUNTS`).
"""


class Rounds:
    """Fit on labels, then in rounds on labels and targets; all within the trainer's own budget of epochs.

    Everything is resumable: stages are told apart by the trainer's step, targets lie in files.

    Args:
        trainer: Takes the steps.
        network: The one that is trained and predicts.
        optimizer: Its moments are forgotten between stages.
        unlabeled: Crops of the unlabeled scans; its volumes are predicted.
        targets: Filled anew in each round.
        ends: Epochs at which the stages end, the labeled-only first one included.
        inferer: How whole volumes are predicted.
        saver: Of the best step; each stage forgets those before it. None where nothing saves one.
        folder: ``targets/`` with the predictions, ``rounds.tsv`` and ``rounds.json`` go there; the curve
            ``metrics.tsv`` is there.
        names: Names of all labels, background included.
        schedule: One of `SCHEDULES`; "union_reinit" starts each round from new weights.
        seed: Of new weights and of dropout in each stage.
        flips: Average the prediction with that of the mirrored scan.
        tolerance: See `self_train`.
        prior: Share of each class among the labeled voxels, for the target rule "prior"; None for the targets' own.
        anatomy_weight: w of the anatomical prior a, one number or one a label, background included; used where
            unlabeled samples bring a ``prior (K, I, J, K)`` over all labels. Predictions are stored with the factor
            a^w in them, so that frequencies of either scope, changed labels and confidence are those of the fused q.
        transductive: Whether held-out scans may be among the unlabeled; ``rounds.tsv`` then says so in every row.

    Raises:
        ConfigError: There is no such schedule, or w has the wrong number of values.
    """

    def __init__(  # noqa: PLR0913 (a configuration hands its parts in by name)
        self,
        *,
        trainer: Engine,
        network: nn.Module,
        optimizer: Optimizer,
        unlabeled: CropDataset,
        targets: Targets,
        ends: Sequence[int],
        inferer: Inferer,
        saver: BestModelSaver | None = None,
        folder: str,
        names: Sequence[str],
        schedule: str = "union_warm",
        seed: int = 0,
        flips: bool = False,
        tolerance: float = TOLERANCE,
        prior: Tensor | None = None,
        anatomy_weight: float | Sequence[float] = 0.5,
        transductive: bool = False,
    ) -> None:
        if schedule not in SCHEDULES:
            msg = f"There is no schedule '{schedule}'. Choose one of: {', '.join(SCHEDULES)}."
            raise ConfigError(msg)
        self.trainer = trainer
        self.network, self.optimizer = network, optimizer
        self.unlabeled, self.targets = unlabeled, targets
        if prior is not None:
            targets.prior = prior
        self.ends = [0, *ends]
        self.inferer, self.saver = inferer, saver
        self.folder = Path(folder)
        self.names = list(names)
        self.schedule, self.seed, self.flips, self.tolerance = schedule, seed, flips, tolerance
        self.stamp = TRANSDUCTIVE if transductive else {}
        self.first = int(getattr(getattr(network, "module", network), "first", 0))
        self.anatomy_weight = anatomy_weights(anatomy_weight, len(self.names))
        self.priors: dict[str, Tensor] = {}

    def run(self) -> Outcome:
        """Run all stages; record why no further round was fitted."""
        if self.trainer.state.iteration == 0 and torch_rank() == 0:
            shutil.rmtree(self.folder / "targets", ignore_errors=True)
            (self.folder / "rounds.tsv").unlink(missing_ok=True)
        _wait_for_all()
        self._take_priors()
        rounds = len(self.ends) - 2 if self.unlabeled.cache else 0
        if not self.unlabeled.cache:
            logger.warning("No unlabeled scans: supervised only, the whole budget goes to the labeled ones.")
            self.ends = [0, self.ends[-1]]
        outcome = self_train(
            fit=self.fit,
            predict=self.predict,
            changed=_changed,
            rounds=rounds,
            tolerance=self.tolerance,
        )
        if torch_rank() == 0:
            if (
                outcome.rounds and self._last("val_dice") != "n/a"
            ):  # of the last student, which makes no targets
                self._append(outcome.rounds + 1, self._row)
            told = {"rounds": outcome.rounds, "reason": outcome.reason}
            write_json(self.folder / "rounds.json", told | self.stamp)
        _wait_for_all()
        logger.info("Self-training ended after %d rounds: %s", outcome.rounds, outcome.reason)
        return outcome

    def fit(self, stage: int, targets: Targets | None) -> None:
        """Train to the end of a stage; return at once if that is reached already."""
        state = self.trainer.state
        begin, end = self.ends[stage], self.ends[stage + 1]
        if state.epoch >= end:
            return
        if stage > 0 and state.iteration == begin * state.epoch_length:
            self._start_stage(stage)
        self.trainer.total_epochs = self.ends[-1]
        state.max_epochs = end
        try:
            self.trainer.run()
        finally:
            state.max_epochs = self.ends[-1]

    def predict(self, number: int) -> Targets:
        """Predict every unlabeled scan, or read the predictions that are there, and fill the targets."""
        folder = self.folder / "targets" / f"round-{number:02d}"
        if self.trainer.state.epoch > self.ends[number + 1]:
            return Targets("soft")
        share_buffers(self.network)
        world = torch.distributed.get_world_size() if is_distributed() else 1
        for place, sample in enumerate(self.unlabeled.cache):
            if place % world == torch_rank() and not (folder / f"{sample['subject']}.pt").is_file():
                self._predict_one(sample, folder / f"{sample['subject']}.pt")
        _wait_for_all()
        made = Targets(self.targets.rule, self.targets.scope, self.targets.threshold, self.targets.prior)
        self._restore(made, folder)
        self.targets.log_q, self.targets.mass = made.log_q, made.mass
        if number > 1:
            shutil.rmtree(self.folder / "targets" / f"round-{number - 2:02d}", ignore_errors=True)
        self._record(number, made)
        return made

    def last_targets(self) -> tuple[Mapping[str, Any], Tensor, Tensor, Tensor] | None:
        """Return a scan with registered labels, and what the last round has for it; None where there is no such scan.

        Returns:
            The sample; log q of the teacher alone, up to a constant; a; the target, all zero where it is unsure.

        Shapes:
            log q, a, target: ``(K - first, N)``, the N voxels of the mask in the order of `IndexMaskd`
        """
        known = (one for one in self.unlabeled.cache if str(one["subject"]) in self.priors)
        sample = next((one for one in known if str(one["subject"]) in self.targets.log_q), None)
        if sample is None:
            return None
        subject = str(sample["subject"])
        fused = self.targets.log_q[subject].float()
        factor = self._log_anatomy(subject)
        log_q = fused if factor is None else fused - factor[0]
        target = self.targets.look_up(subject, torch.arange(fused.shape[1]))
        return sample, log_q, self.priors[subject].float(), target

    def _start_stage(self, stage: int) -> None:
        if self.saver is not None:
            self.saver.begin = self.trainer.state.iteration
        if self.schedule == "union_reinit":
            reinitialize(getattr(self.network, "module", self.network), self.seed + stage)
        self.optimizer.state.clear()
        torch.manual_seed(self.seed + 7919 * stage + torch_rank())

    @torch.no_grad()
    def _predict_one(self, sample: Mapping[str, Any], path: Path) -> None:
        place = torch.as_tensor(sample["place"])[0]
        device = next(self.network.parameters()).device
        image = torch.as_tensor(sample["image"])[None].to(device)
        q = self._probabilities(image)
        if self.flips:
            q = (q + self._probabilities(image.flip(2)).flip(2)) / 2
        packed = q[0][:, (place >= 0).to(device)].cpu().double().log()
        packed = fused_assignment(packed[None], self._log_anatomy(str(sample["subject"])))[0].float()
        keeper = Targets("soft")
        keeper.put("one", packed)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"log_q": keeper.log_q["one"], "mass": keeper.mass["one"]}
        save_atomically(content, path, every_process=True)

    def _take_priors(self) -> None:
        """Keep the anatomical priors inside the masks; as part of the samples every crop would copy them whole."""
        for sample in self.unlabeled.cache:
            if "prior" in sample:
                inside = torch.as_tensor(sample["place"])[0] >= 0
                packed = sample.pop("prior")[self.first :, inside]
                self.priors[str(sample["subject"])] = self.unlabeled.store.keep({"prior": packed})["prior"]

    def _log_anatomy(self, subject: str) -> Tensor | None:
        """Return the log of the factor a^w, ``(1, K, N)``, or None where no scans were registered."""
        if subject not in self.priors:
            return None
        return log_anatomical_factor(
            self.priors[subject][None], weights_from(self.anatomy_weight, self.first)
        )

    def _probabilities(self, image: Tensor) -> Tensor:
        network = getattr(self.network, "module", self.network).eval()  # no process waits for another's scans
        scores = self.inferer(image, network)
        scores = scores.as_tensor() if hasattr(scores, "as_tensor") else scores
        return scores[:, self.first :].float().softmax(1)

    def _record(self, number: int, targets: Targets) -> None:
        """Append a row to ``rounds.tsv``, once a round, and the same numbers to TensorBoard."""
        warn_of_dead_clusters(
            number, targets.frequencies(), self.names[self.first :], "voxel of the unlabeled scans"
        )
        if torch_rank() != 0:
            return
        before = self.folder / "targets" / f"round-{number - 1:02d}"
        self._append(
            number,
            lambda number: self._row(
                number, targets, self._restore(Targets("soft"), before) if before.is_dir() else None
            ),
        )

    def _row(
        self, number: int, targets: Targets | None = None, before: Targets | None = None
    ) -> dict[str, Any]:
        """Say how good the network is that makes the targets of a round, and how these are, where there are any."""
        shares = None if targets is None else targets.frequencies() / targets.frequencies().sum()
        return {
            "round": number,
            "step": self.trainer.state.iteration,
            "changed": _text(None if targets is None or before is None else targets.changed(before)),
            "confidence": _text(None if targets is None else targets.confidence()),
            **{
                f"share_{name}": _text(None if shares is None else float(shares[cluster]))
                for cluster, name in enumerate(self.names[self.first :])
            },
            "val_dice": self._last("val_dice"),
            METRIC: self._last(METRIC),
            **{part: _text(_mean(self._of_stage(part, number - 1))) for part in LOSSES},
            **{count: _whole(self._of_stage(count, number - 1)) for count in COUNTS},
            **self._distances(),
            **self.stamp,
        }

    def _append(self, number: int, row_of: Callable[[int], dict[str, Any]]) -> None:
        """Add a row to the table and to TensorBoard, once a round; a resumed run finds it there."""
        path = self.folder / "rounds.tsv"
        rows = [dict(one) for one in read_tsv(path)] if path.is_file() else []
        if any(int(one["round"]) == number for one in rows):
            return
        row = row_of(number)
        rows.append(row)
        write_tsv(path, rows, list(dict.fromkeys(name for one in rows for name in one)))
        with SummaryWriter(str(self.folder / "events")) as writer:
            for name, value in row.items():
                if name not in ("round", "step", *self.stamp) and value != "n/a":
                    writer.add_scalar(f"round_{name}", float(value), row["round"])

    def _restore(self, targets: Targets, folder: Path) -> Targets:
        """Fill targets with the predictions of every unlabeled scan that a folder keeps.

        Raises:
            CheckpointError: A prediction is of another mask than the scan has now.
        """
        for sample in self.unlabeled.cache:
            path = folder / f"{sample['subject']}.pt"
            stored = torch.load(path, weights_only=True)
            _require_same_mask(sample, stored["log_q"], path)
            targets.restore(str(sample["subject"]), stored["log_q"], stored["mass"])
        return targets

    def _distances(self) -> dict[str, str]:
        """Return the distance between the centers of each two classes, where the network has centers."""
        head = getattr(getattr(self.network, "module", self.network), "head", None)
        if not isinstance(head, ClusteringHead):
            return {}
        pairs = combinations(self.names[self.first :], 2)
        found = center_distances(head.centers).tolist()
        return {
            f"distance_{one}_{other}": _text(value) for (one, other), value in zip(pairs, found, strict=True)
        }

    def _of_stage(self, part: str, stage: int) -> list[float]:
        """Return what the epochs of a stage have of a part of the loss, from the curve."""
        epochs = range(self.ends[stage] + 1, self.ends[stage + 1] + 1)
        return measured((row for row in self._curve() if int(row["epoch"]) in epochs), part)

    def _last(self, metric: str) -> str:
        """Return a metric of the last validation from the curve, which a resumed run has too."""
        values = measured(self._curve(), metric)
        return _text(values[-1] if values else None)

    def _curve(self) -> list[dict[str, str]]:
        path = self.folder / "metrics.tsv"
        return read_tsv(path) if path.is_file() else []


def _changed(before: Targets, now: Targets) -> float:
    """Return the share of labels that changed; of rounds that a resumed run has behind it: all."""
    return now.changed(before) if before.log_q and now.log_q else 1.0


def _require_same_mask(sample: Mapping[str, Any], log_q: Tensor, path: Path) -> None:
    found, expected = log_q.shape[1], int((torch.as_tensor(sample["place"]) >= 0).sum())
    if found != expected:
        msg = f"{path} holds targets of {found} mask voxels of {sample['subject']}; the mask has {expected} now."
        raise CheckpointError(msg, "Put scan and mask back as they were, or begin another run.")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _whole(counts: Sequence[float]) -> str:
    return f"{sum(counts):.0f}" if counts else "n/a"


def _text(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.5f}"


def _wait_for_all() -> None:
    if is_distributed():
        torch.distributed.barrier()
