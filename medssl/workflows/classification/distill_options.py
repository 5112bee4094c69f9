"""What a user chooses for a distillation, what cannot go together, and the command that says it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medssl.errors import ConfigError, OutputError
from medssl.transforms.image_views import DATA_DISTILLATION, VIEW_PRESETS, image_views
from medssl.workflows.classification.baseline import SUPERVISED, planned
from medssl.workflows.classification.budgets import image_budget, require_steps_for_rounds
from medssl.workflows.classification.methods import distillation
from medssl.workflows.classification.pseudo_labels import KeepRule
from medssl.workflows.classification.teachers import (
    Teacher,
    planned_teachers,
    spoken_teachers,
    teachers_of,
)
from medssl.workflows.classification.train import ClassifyOptions, begun, shared_words
from medssl.workflows.provenance import command_line

TARGETS = ("hard", "soft")
"""What a student learns from the teachers."""

RELABEL = ("remaining", "all")
"""Which unlabeled images a further round labels."""


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """What a user chooses for a distillation.

    Args:
        kind: A key of `methods.DISTILLATIONS`.
        student: What the student is; its budget is that of all trainings added up, its ``method`` is not used.
        teachers: Networks of the teachers, "NETWORK" or "NETWORK=WEIGHTS" (see `teachers.teachers_of`); the student's
            own where none is given.
        views: Further views of an image that teachers look at; none: those that suit the student's preset of
            augmentation, see `transforms.image_views.VIEW_PRESETS`.
        rule: Which of the teachers' labels are kept.
        rounds: Most rounds; with more than one the teachers learn from the kept labels too.
        relabel: "remaining": a further round labels the images of which no label was kept; "all": every image anew,
            and what it keeps takes the place of what was kept before.
        calibrated: Give each teacher the temperature that fits the validation images best before it labels.
        recipe: A key of `RECIPES`, or None; see `with_recipe`.
        targets: "hard": the student learns the labels that are kept; "soft": what the teachers answered for every
            unlabeled image, their doubts included, see `objectives.SoftDistillation`.
        baseline: Train supervised with the whole budget too, and return what is better.
    """

    kind: str = "data"
    student: ClassifyOptions = field(default_factory=ClassifyOptions)
    teachers: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    rule: KeepRule = field(default_factory=KeepRule)
    rounds: int = 1
    relabel: str = "remaining"
    calibrated: bool = False
    recipe: str | None = None
    targets: str = "hard"
    baseline: bool = True

    @property
    def all_teachers(self) -> tuple[Teacher, ...]:
        """Network and weights of each teacher.

        Raises:
            ConfigError: Nothing is said of the weights of one.
        """
        words = self.teachers or (self.student.network,) * distillation(self.kind).teachers
        return teachers_of(words, self.student)

    @property
    def usual_views(self) -> tuple[str, ...]:
        """Views of the teachers where none are given: those of the preset, where the kind has views."""
        return VIEW_PRESETS.get(self.student.preset, ()) if distillation(self.kind).views else ()

    @property
    def name(self) -> str:
        """What the method is called in sentences and records."""
        return f"{self.kind} distillation"

    @property
    def method_of_student(self) -> str:
        """What the student is trained by, a name that `methods.online_method` takes."""
        return "soft-targets" if self.targets == "soft" else SUPERVISED

    def require(self) -> None:
        """Refuse what cannot go together, before a teacher is trained.

        Raises:
            ConfigError: What was found, and what to do.
        """
        self._require_teachers()
        image_views(["identity", *self.views])
        if self.views and not distillation(self.kind).views:
            msg = f"Found --view {self.views[0]} with --kind {self.kind}, whose teachers see each image as it is."
            raise ConfigError(msg, "Leave --view out, or use --kind data or data-model.")
        self._require_rounds()
        if self.targets not in TARGETS or (self.targets == "soft" and self.rounds > 1):
            msg = f"Found targets '{self.targets}' with {self.rounds} rounds; expected hard, or soft with 1 round."
            raise ConfigError(msg, "In rounds, teachers learn from labels that are kept: --targets hard.")
        self._require_rule()

    def _require_rule(self) -> None:
        usual = vars(KeepRule())
        given = [name for name, value in vars(self.rule).items() if value != usual[name]]
        idle = [f"--{name.replace('_', '-')}" for name in [*(["recipe"] if self.recipe else []), *given]]
        if self.targets == "soft" and idle:
            msg = f"Found --targets soft, which keeps no labels, with {', '.join(idle)}."
            raise ConfigError(msg, "Leave one of them out.")
        other, _ = self.rule.as_rule
        if "threshold" in given and "threshold" not in other:
            instead = "--top-k" if self.rule.top_k is not None else "--percentile"
            msg = f"Found --threshold {self.rule.threshold} with {instead}, which decides alone what is kept."
            raise ConfigError(msg, "Leave one of them out.")

    def _require_teachers(self) -> None:
        least, found = distillation(self.kind).teachers, len(self.all_teachers)
        if found < least or (least == 1 and found > 1):
            wanted = "one teacher" if least == 1 else f"at least {least} teachers"
            msg = f"{self.kind} distillation takes {wanted}; found {found}."
            raise ConfigError(msg, "Give --teacher as often as there are teachers.")

    def _require_rounds(self) -> None:
        if self.rounds < 1:
            msg = f"--rounds {self.rounds} is below 1."
            raise ConfigError(msg, "Give 1 or more.")
        require_steps_for_rounds(image_budget(self.student.budget), self.rounds, self.student.steps)
        if self.relabel not in RELABEL:
            msg = f"There is no way to label again '{self.relabel}'. Choose one of: {', '.join(RELABEL)}."
            raise ConfigError(msg)
        if self.relabel == "all" and self.rounds == 1:
            msg = (
                "--relabel all says what further rounds do; found one round, which labels all images anyway."
            )
            raise ConfigError(msg, "Give --rounds 2 or more, or leave --relabel out.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options of a distillation that belong together.

    Args:
        average: Share of the averaged network that a step of each training keeps; 0: no average.
        views: Of the teachers, where the kind of distillation has views; none: by preset.
        balance: See `KeepRule`.
        calibrated: See `DistillOptions`.
    """

    average: float
    views: tuple[str, ...] = ()
    balance: float | None = None
    calibrated: bool = False


RECIPES: Mapping[str, Recipe] = {
    "paper": Recipe(average=0.0, views=DATA_DISTILLATION),
    "ours": Recipe(average=0.999, balance=1.0, calibrated=True),
}
"""Inés et al. 2022 (hard labels above .8, their views, no average of weights), and what we add to it.

The threshold and the hard labels are those of `DistillOptions` anyway. Schedule, augmentation and head of the
trainings are no part of a recipe.
"""


def with_recipe(options: DistillOptions) -> DistillOptions:
    """Return options with what their recipe sets, but for what is given already.

    Raises:
        ConfigError: There is no such recipe.
    """
    if options.recipe is None:
        return options
    if options.recipe not in RECIPES:
        msg = f"There is no recipe '{options.recipe}'. Choose one of: {', '.join(RECIPES)}."
        raise ConfigError(msg)
    recipe, student, rule = RECIPES[options.recipe], options.student, options.rule
    views = recipe.views if distillation(options.kind).views else ()
    return replace(
        options,
        student=replace(student, settings={"average": recipe.average, **student.settings}),
        views=options.views or views,
        rule=replace(rule, balance=recipe.balance if rule.balance is None else rule.balance),
        calibrated=options.calibrated or recipe.calibrated,
    )


def planned_distillation(out: Path) -> DistillOptions:
    """Return the options that a run began with.

    Raises:
        InputError: There is no run to go on with.
        OutputError: The run is no distillation.
    """
    single = (out / "run.json").is_file() and not (out / "plan.json").is_file()
    kept = {} if single else begun(out, "plan.json")["options"]
    if "student" not in kept:
        msg = f"The run in {out} is no distillation."
        raise OutputError(
            msg, f"Go on with: medssl classify train IMAGES --out {shlex.quote(str(out))} --resume"
        )
    named = {"teachers": planned_teachers(kept["teachers"], out), "views": tuple(kept["views"])}
    student = planned(kept["student"], out)
    return DistillOptions(**{**kept, **named, "rule": KeepRule(**kept["rule"]), "student": student})


def distill_command(data: Path, out: Path, options: DistillOptions) -> str:
    """Return the command that repeats a distillation; it names the views that would not come by themselves."""
    bare = with_recipe(replace(options, views=()))
    own_views = distillation(options.kind).views and options.views != (bare.views or bare.usual_views)
    chosen = [
        ("kind", options.kind),
        *[("teacher", word) for word in spoken_teachers(options.teachers, out)],
        *[("view", name) for name in options.views if own_views],
        *options.rule.as_options(),
        ("rounds", options.rounds),
        ("relabel", options.relabel if options.relabel != "remaining" else None),
        ("calibrated", options.calibrated),
        ("recipe", options.recipe),
        ("targets", options.targets if options.targets != "hard" else None),
        ("no-baseline", not options.baseline),
        *shared_words(out, options.student),
    ]
    return command_line("classify distill", [data], out, chosen)
