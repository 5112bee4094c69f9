"""Distillation: teachers label the unlabeled images they are sure of, a student learns from both kinds of labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from medssl.engines.checkpoints import save_atomically
from medssl.errors import ConfigError, DatalistError, OutputError
from medssl.evaluation.audit import class_warnings
from medssl.evaluation.classification_verdict import ClassificationVerdict, without_baseline
from medssl.functional.distillation import mean_probabilities
from medssl.io.files import read_json, require_new_run, write_json
from medssl.io.image_cohort import ImageCohort, ImageItem
from medssl.io.pseudo_label_table import KeptLabel, kept_labels
from medssl.io.subjects import TRANSDUCTIVE
from medssl.self_training import Outcome, self_train
from medssl.workflows.classification.audit import AUDIT_FILE, run_audit
from medssl.workflows.classification.baseline import (
    SUPERVISED,
    compare_runs,
    kept_options,
    promote,
    shared_settings,
    write_plan,
)
from medssl.workflows.classification.budgets import image_budget
from medssl.workflows.classification.calibrate import LEAST_IMAGES, calibrated
from medssl.workflows.classification.candidates import Say, train_candidate
from medssl.workflows.classification.distill_options import (
    DistillOptions,
    distill_command,
    planned_distillation,
    with_recipe,
)
from medssl.workflows.classification.given_weights import keep
from medssl.workflows.classification.methods import distillation
from medssl.workflows.classification.models import ImageModel, load_classifier
from medssl.workflows.classification.predict import mean_energies, passes_of, predict_passes, scores_of
from medssl.workflows.classification.pseudo_labels import Answers, write_pseudo_labels
from medssl.workflows.classification.teachers import keep_teachers
from medssl.workflows.classification.train import (
    ClassifyOptions,
    cohort_of_run,
    folders_of_inputs,
    prepare_classifier,
    require_unchanged,
    share_of,
    usable_cohort,
    with_input_of,
)
from medssl.workflows.devices import choose_device
from medssl.workflows.running import CANDIDATES, Training, only_trainer, require_parts
from medssl.workflows.watching import Watcher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Distilled:
    """What a distillation did.

    Args:
        training: The run that is returned.
        verdict: Whether the student is better than supervised training of the whole budget, where that was trained.
        outcome: Rounds, and why there was no further one.
    """

    training: Training
    verdict: ClassificationVerdict
    outcome: Outcome


@dataclass(frozen=True)
class PseudoLabels:
    """Labels that teachers gave to the unlabeled images.

    Args:
        labels: Image -> label, of those that are kept after a round.
    """

    labels: Mapping[str, KeptLabel]


def distill(
    data: Path,
    out: Path,
    options: DistillOptions,
    watcher: Watcher | None = None,
    *,
    resume: bool = False,
    say: Say = logger.info,
) -> Distilled:
    """Train teachers on the labels, let them label the unlabeled images, train a student on both kinds.

    All trainings share one budget of steps; the supervised baseline, unless the
    options leave it out, has all of it for the student's network.

    Args:
        data: As in `train_classifier`.
        out: The run folder; it becomes a copy of the better of student and baseline, or of the student.
        options: See `DistillOptions`.
        watcher: Told about the progress of each training.
        resume: Go on with the run in ``out``.
        say: Told what comes next.

    Raises:
        MedsslError: As in `train_classifier`.
        ConfigError: The options do not go together.
    """
    with only_trainer(out, folders_of_inputs(data, options.student)):
        return _distill(data, out, options, watcher, resume, say)


def _distill(
    data: Path,
    out: Path,
    options: DistillOptions,
    watcher: Watcher | None,
    resume: bool,
    say: Say,
) -> Distilled:
    if resume:
        options = planned_distillation(out)
    else:
        options = with_recipe(options)
        options.require()
    if (out / "verdict.json").is_file():
        msg = f"The run in {out} is finished."
        raise OutputError(msg, "Choose a new --out for another run.")
    if not resume:
        cohort = usable_cohort(data, options.student)
        student = with_input_of(cohort, options.student)
        options = replace(options, student=student, views=options.views or options.usual_views)
        _begin(out, cohort, options, data)
        options = planned_distillation(out)
    else:
        require_unchanged(out, read_json(out / "plan.json"))
    cohort = cohort_of_run(out, read_json(out / "plan.json")["classes"])
    room = _Room(data, out, cohort, options, watcher, say)
    outcome = self_train(
        fit=room.fit,
        predict=room.predict,
        changed=room.changed,
        rounds=options.rounds,
        tolerance=room.tolerance,
    )
    winner = student = room.train_student(outcome)
    found = without_baseline(options.name)
    device = choose_device(options.student.device)
    if options.baseline:
        baseline = room.train_baseline()
        found = compare_runs(options.name, cohort, baseline.run, student.run, device)
        winner = student if found.method_wins else baseline
    write_json(out / AUDIT_FILE, run_audit(out, cohort, cohort.classes))
    promote(out, winner.run, winner.run.name, found, distill_command(data, out, options), device)
    say(found.sentence)
    return Distilled(replace(winner, run=out), found, outcome)


class _Room:
    """The trainings and predictions of one distillation, each in a folder of its own, none done twice."""

    tolerance = 1e-9
    """Stop when no image gets another label."""

    def __init__(
        self,
        data: Path,
        out: Path,
        cohort: ImageCohort,
        options: DistillOptions,
        watcher: Watcher | None,
        say: Say,
    ) -> None:
        self.data, self.out, self.cohort, self.options = data, out, cohort, options
        self.teachers, self.watcher, self.say = options.all_teachers, watcher, say
        self.steps = options.student.steps or image_budget(options.student.budget).steps
        self.share = share_of(self.steps, len(self.teachers) * options.rounds + 1)
        self.spent = 0
        self.kept: PseudoLabels | None = None

    def fit(self, stage: int, targets: PseudoLabels | None) -> None:
        """Train the teachers of a stage, if the next round asks them; after the last stage the student follows."""
        self.kept = targets
        if stage == self.options.rounds or not self._asks(stage + 1):
            return
        cohort = with_labels(self.cohort, targets)
        for number, teacher in enumerate(self.teachers):
            own = replace(
                self.options.student,
                method=SUPERVISED,
                **teacher._asdict(),
                steps=self.share,
                seed=self.options.student.seed + 1000 * (number + 1),
                settings=shared_settings(self.options.student),
            )
            own = _stamped(own) if targets is not None else own
            run = self._teacher(stage, number)
            train_candidate(run, cohort, own, self.data, self.watcher, self.say)
            self.spent += self.share

    def predict(self, number: int) -> PseudoLabels:
        """Let the teachers of the round before label the images whose label is open; the record is a CSV."""
        path = self._table(number)
        if self._asks(number) and not path.is_file():
            self._write_labels(path, number, self._open(number))
        return PseudoLabels(self._kept(number))

    def _open(self, number: int) -> list[ImageItem]:
        """Return the images that a round labels: all of them, or those without a label that was kept."""
        kept = self._still_kept(number)
        return [item for item in self.cohort.unlabeled if item.name not in kept]

    def _still_kept(self, number: int) -> dict[str, KeptLabel]:
        """Return the labels of earlier rounds that a round leaves as they are."""
        return {} if self.options.relabel == "all" else self._kept(number - 1)

    def _asks(self, number: int) -> bool:
        """Tell whether a round has images to label, and teachers that learned other labels than those before."""
        before, kept = self._kept(number - 2), self._kept(number - 1)
        return bool(self._open(number)) and (number == 1 or kept != before)

    @staticmethod
    def changed(before: PseudoLabels, now: PseudoLabels) -> float:
        """Return the share of labels that are new, gone or other ones, or that count otherwise."""
        names = before.labels.keys() | now.labels.keys()
        same = sum(before.labels.get(name) == now.labels.get(name) for name in names)
        return 1 - same / len(names) if names else 0.0

    def train_student(self, outcome: Outcome) -> Training:
        """Train the student on the given labels and on those that were kept, or on all that the teachers answered.

        It has the steps that the teachers left, so that the whole has those of the baseline.
        """
        left = self.steps - self.spent
        own = _stamped(replace(self.options.student, method=self.options.method_of_student, steps=left))
        run = self.out / CANDIDATES / "student"
        if self.options.targets == "soft":
            cohort, files = self.cohort, {"targets.pt": self._answers()}
            told = (
                f"The teachers' answers for all {len(cohort.unlabeled)} unlabeled images teach the student."
            )
        else:
            cohort, files = with_labels(self.cohort, self.kept), {}
            kept = len(self.kept.labels) if self.kept else 0
            told = f"{kept} labels of the teachers were kept: {outcome.reason}"
        self.say(told)
        done = train_candidate(run, cohort, own, self.data, self.watcher, self.say, files)
        how = {
            "command": distill_command(self.data, self.out, self.options),
            "method": self.options.name,
            "rounds": outcome.rounds,
            "targets": self.options.targets,
        }
        write_json(run / "run.json", {**read_json(run / "run.json"), **how})
        return done

    def train_baseline(self) -> Training:
        """Train supervised with the steps of teachers and student together."""
        options = self.options.student
        whole = replace(options, method=SUPERVISED, steps=self.steps, settings=shared_settings(options))
        run = self.out / CANDIDATES / SUPERVISED
        return train_candidate(run, self.cohort, whole, self.data, self.watcher, self.say)

    def _teacher(self, stage: int, number: int) -> Path:
        return self.out / "teachers" / f"round-{stage}-teacher-{number + 1}-{self.teachers[number].network}"

    def _answers(self) -> Path:
        return self.out / "teachers" / "answers.pt"

    def _table(self, number: int) -> Path:
        return self.out / "pseudo_labels" / f"round-{number}.csv"

    def _kept(self, last: int) -> dict[str, KeptLabel]:
        """Return the labels that are kept after a round."""
        tables = [self._table(number) for number in range(1, last + 1)]
        return kept_labels(*[table for table in tables if table.is_file()])

    def _write_labels(self, path: Path, number: int, items: Sequence[ImageItem]) -> None:
        options = self.options
        models = self._models(number)
        views = ("identity", *options.views) if distillation(options.kind).views else ("identity",)
        answers = self._answered(items, models, views)
        if options.targets == "soft":
            labeled = predict_passes(self.cohort.training, models, views)
            told = {"log_p": answers.passes, "log_p_labeled": labeled}
            save_atomically({name: _log_mean(one) for name, one in told.items()}, self._answers())
        facts = {
            "distillation": options.kind,
            "targets": options.targets,
            "relabel": options.relabel,
            "views": views,
            "seed": options.student.seed,
            **vars(options.rule),
            **(TRANSDUCTIVE if options.student.transductive else {}),
        }
        write_json(
            path.with_suffix(".json"),
            {
                **facts,
                "teachers_sha256": [model.weights_sha256 for model in models],
                "temperatures": [model.card.temperature for model in models],
            },
        )
        write_pseudo_labels(  # last: this table says that the round has labeled
            path,
            items,
            models[0].card.classes,
            answers,
            options.rule,
            labeled=len(self.cohort.training),
            round_number=number,
            before=Counter(label.label for label in self._still_kept(number).values()),
            transductive=options.student.transductive,
        )
        if options.targets == "hard":
            self._warn_of_classes(number, models[0].card.classes)

    def _models(self, number: int) -> list[ImageModel]:
        """Return the teachers whom a round asks, calibrated on the validation images where that is asked for."""
        device = choose_device(self.options.student.device)
        folders = [self._teacher(number - 1, place) for place in range(len(self.teachers))]
        models = [load_classifier(folder, device).uncalibrated() for folder in folders]
        if not self.options.calibrated:
            return models
        return [calibrated(model, self.cohort.validation) for model in models]

    def _answered(
        self, items: Sequence[ImageItem], models: Sequence[ImageModel], views: Sequence[str]
    ) -> Answers:
        """Ask the teachers; where the rule wants energies, the same scores tell them.

        Held-out images are the reference: teachers know those that they learned too well.
        """
        if self.options.rule.energy_percentile is None:
            return Answers(predict_passes(items, models, views), len(views))
        scores = scores_of(items, models, views)
        held_out = scores_of(self.cohort.validation or self.cohort.training, models, views[:1])
        return Answers(passes_of(scores, models), len(views), mean_energies(scores), mean_energies(held_out))

    def _warn_of_classes(self, number: int, classes: Sequence[str]) -> None:
        """Say at once which classes all labels up to a round leave out or drown in (D23)."""
        kept = Counter(own.label for own in self._kept(number).values())
        given = Counter(item.label for item in self.cohort.training)
        for said in class_warnings(
            classes, [kept[name] for name in classes], [given[name] for name in classes]
        ):
            logger.warning("Round %d: %s", number, said)


def _stamped(options: ClassifyOptions) -> ClassifyOptions:
    """Let the table of a training say where held-out images may be among those that teachers labeled for it."""
    if not options.transductive:
        return options
    return replace(options, settings={**options.settings, "transductive": True})


def _log_mean(passes: Tensor) -> Tensor:
    return mean_probabilities(passes).clamp_min(1e-12).log().float()


def with_labels(cohort: ImageCohort, labels: PseudoLabels | None) -> ImageCohort:
    """Add unlabeled images with the labels of the teachers, and the weights of these, to the training images."""
    if labels is None:
        return replace(cohort, unlabeled=())
    kept = labels.labels
    taught = tuple(
        ImageItem(item.path, item.name, kept[item.name].label, item.group, kept[item.name].weight)
        for item in cohort.unlabeled
        if item.name in kept
    )
    return replace(cohort, training=cohort.training + taught, unlabeled=())


def _begin(out: Path, cohort: ImageCohort, options: DistillOptions, data: Path) -> None:
    """Write which images are used for what, so that a resumed run uses them alike."""
    require_new_run(out, folders_of_inputs(data, options.student))
    if not cohort.unlabeled:
        msg = f"{cohort.root.name} holds no unlabeled image, so teachers have nothing to label."
        raise DatalistError(msg, "Put images into unlabelled/, or use medssl classify train.")
    if options.calibrated and len(cohort.validation) < LEAST_IMAGES:
        logger.warning(
            "%d validation images are too few to calibrate teachers (%d are asked for): temperatures stay 1.",
            len(cohort.validation),
            LEAST_IMAGES,
        )
    given, classes = options.rule.threshold, cohort.classes
    if isinstance(given, Sequence) and len(given) != len(classes):
        msg = f"Found {len(given)} thresholds for {len(classes)} classes: {', '.join(classes)}."
        raise ConfigError(msg, "Give one for all, or one a class in this order.")
    with TemporaryDirectory() as scratch:  # nothing that can be known now shall turn up after hours
        student = replace(options.student, method=options.method_of_student)
        shared = {"method": SUPERVISED, "settings": shared_settings(student)}
        teachers = [replace(student, **teacher._asdict(), **shared) for teacher in options.all_teachers]
        for number, own in enumerate((student, *teachers)):
            prepare_classifier(Path(scratch) / str(number), cohort, own, data)
            require_parts(Path(scratch) / str(number), ("loss", "network_def", "optimizer"))
    keep(options.student, out)
    student = kept_options(options.student, out)
    teachers = keep_teachers(options.teachers, out)
    kept = {**vars(options), "rule": vars(options.rule), "student": student, "teachers": teachers}
    write_plan(out, cohort, kept)
