"""Do no harm: a semi-supervised run keeps its labeled-only network and returns the better of the two."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from medssl.engines import TrainingInterrupted
from medssl.errors import InputError, MedsslError, OutputError
from medssl.evaluation.verdict import (
    CANNOT_TELL,
    LEARNED,
    NONE_LEFT,
    ONE_LABELED,
    Verdict,
    nothing_unlabeled,
    overruled,
    verdict,
)
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.files import read_json, require_new_run, require_same_hashes, sha256_once, write_json
from medssl.io.leaks import find_leaks, plain_id
from medssl.io.subjects import TRANSDUCTIVE, Cohort, Subject
from medssl.workflows.anatomy_weight import PROCESSES, SETTING, record, weigh_anatomy, with_weight
from medssl.workflows.budgets import budget_named
from medssl.workflows.factor_check import check_factor
from medssl.workflows.methods import first_cluster, target_rule, uses_anatomy
from medssl.workflows.models import KnownScans, find_weights, known_scans
from medssl.workflows.provenance import file_hashes, moved_hashes, relative
from medssl.workflows.running import (
    CANDIDATES,
    Training,
    finished_training,
    only_trainer,
    promote_parts,
    require_parts,
    stoppable,
)
from medssl.workflows.study import dice_of_run, mean_over_labels
from medssl.workflows.target_example import FILE_NAME as EXAMPLE
from medssl.workflows.train import (
    REGISTRATIONS,
    TrainOptions,
    hold_out,
    named_registrations,
    prepare_run,
    repeat_command,
    settings_seen_from,
    train,
)
from medssl.workflows.watching import Watcher

logger = logging.getLogger(__name__)

PLAN = "plan.json"
"""File by which a checked run is known, and from which it is resumed."""

WEIGHT = "anatomy_weight.json"
"""File with the weight that registered labels have in the targets, and what it was chosen from."""

FACTOR = "anatomy_at_inference.json"
"""File with what registered labels are worth at inference, on the held-out scans."""

FACTOR_NAME = FACTOR.removesuffix(".json")

LABELED_ONLY = "labeled-only"

PROMOTED = ("configs", "models", "metrics.tsv", "rounds.tsv", "rounds.json", "events", EXAMPLE, "LICENSE")
"""What is copied from the better run to the top of the run folder."""

_SAFE_START = 0.3
"""Share of the steps that are labeled-only at least, as in the overlays, for a run that cannot be checked."""

_LONGER = 1.2
"""A semi-supervised step against a labeled-only one, rounded (SSLDEC, `DenseFCN`: docs/performance.md, training)."""

TRANSDUCTIVE_SENTENCE = "Transductive: held-out scans are among the unlabeled ones."

HELD_OUT_SHARE = 4
"""One labeled scan in so many is held out for the check, at least one."""


@dataclass(frozen=True)
class Checked:
    """What a checked training did.

    Args:
        training: The run that is returned.
        verdict: Whether the unlabeled scans helped.
    """

    training: Training
    verdict: Verdict


Say = Callable[[str], None]


def train_checked(
    data: Path,
    out: Path,
    options: TrainOptions,
    watcher: Watcher | None = None,
    *,
    resume: bool = False,
    say: Say = logger.info,
) -> Checked:
    """Train with and without the unlabeled scans, compare on held-out labeled scans, return the better network.

    With labeled scans under 'validation', both networks are compared on them. Without, and with two labeled
    scans or more, both are trained on a part of them first and compared on the rest; what wins is trained on
    all. With one labeled scan nothing can be compared, and both are kept. Both networks have the same budget.
    Without unlabeled scans labeled-only alone is trained, and that is said.

    Args:
        data: As in `train`.
        out: The run folder. It becomes a copy of the better run; all runs lie under ``candidates``.
        options: Of the semi-supervised run.
        watcher: Told about the progress of each training.
        resume: Go on with the run in ``out``.
        say: Told what comes next.

    Raises:
        MedsslError: As in `train`.
    """
    with only_trainer(out, [data]):
        options = _begin(data, out, options, resume)
        with _removed_if_nothing_began(out):
            return _train_checked(data, out, options, watcher, say)


def _train_checked(
    data: Path, out: Path, options: TrainOptions, watcher: Watcher | None, say: Say
) -> Checked:
    scans = read_cohort(data, options.contrasts, mask=options.mask)
    cohort = hold_out(scans, options)
    method = options.method
    baseline, semi_supervised = _labeled_only(options), decided(options, cohort)
    safe = is_safe(semi_supervised, cohort)
    run = _Runner(out, data, scans, cohort, watcher, say)
    if not cohort.unlabeled:
        _tell_cost(planned_runs(cohort, checked=False), options.budget, say)
        run.train(LABELED_ONLY, baseline, None)
        return _finished(data, out, options, LABELED_ONLY, nothing_unlabeled(), run)
    part, why_not = _for_check(cohort, options.seed, _judges(out, cohort, options))
    checked = not why_not
    _tell_cost(planned_runs(cohort, checked=checked), options.budget, say)
    check = _Check(run, part, "" if cohort.validation else "check-", keep_last=not cohort.validation)
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    if checked:
        before = check.dice(LABELED_ONLY, baseline)
        semi_supervised = _weighed(out, check, semi_supervised, automatic=options.prior == "auto")
        after = check.dice(method, semi_supervised)
    found = verdict(method, before, after, safe=safe, why_not=why_not)
    winner = method if found.method_wins else LABELED_ONLY
    if checked and uses_anatomy(semi_supervised, part):
        _check_factor(out, check, winner, after if found.method_wins else before, semi_supervised)
    run.train(LABELED_ONLY, baseline, None)
    if found.method_wins or found.answer == CANNOT_TELL:
        trained = run.train(method, semi_supervised, None)
        if found.method_wins and (why := _no_good(trained, found.answer)):
            found, winner = overruled(found, method, why), LABELED_ONLY
    return _finished(data, out, options, winner, found, run)


def _no_good(run: Path, answer: str) -> str:
    """Say why the network of a semi-supervised run is not one to return; "" where nothing speaks against it."""
    record = read_json(run / "run.json")
    if lost := record.get("vanished"):
        return f"lost {' and '.join(lost)} on the unlabeled scans"
    earlier = (
        (0, 1) if record.get("registered_pairs") == 0 else (1, 1)
    )  # runs of earlier versions tell no more
    reached, scans = record.get("registered_scans", earlier)
    if answer == CANNOT_TELL and 2 * reached < scans:
        those = f"labeled scans can be registered to {reached} of {scans} unlabeled ones only"
        return f"can go wrong unseen where {those if reached else 'no labeled scan can be registered'}"
    return ""


def _tell_cost(runs: int, budget: str, say: Say) -> None:
    labeled_only = (runs + 1) // 2
    hours = (labeled_only + _LONGER * (runs - labeled_only)) * budget_named(budget).minutes / 60
    networks = "one network" if runs == 1 else f"up to {runs} networks"
    say(f"Trains {networks}: about {hours:.1f} hours on two CPU cores, registrations not counted.")


def _finished(
    data: Path, out: Path, options: TrainOptions, winner: str, found: Verdict, run: _Runner
) -> Checked:
    if any(read_json(one).get("transductive") for one in (out / CANDIDATES).glob("*/run.json")):
        found = replace(found, sentence=f"{found.sentence} {TRANSDUCTIVE_SENTENCE}")
    training = _promote(data, out, options, winner, found, run.trainings[winner])
    run.say(found.sentence)
    return Checked(training, found)


def is_safe(options: TrainOptions, cohort: Cohort) -> bool:
    """Tell whether a method may be returned where nothing could be checked.

    It goes on from what the labels taught it, its unlabeled term grows from zero, and its targets take no voxels
    from a cluster because it is large: online training that begins with the labeled term alone and has the method's
    own loss, and not 'dec' where background is a cluster. With the anatomical prior a part of the labeled crops are
    registered scans, from the first step on: their labels are right, their shapes are those of unlabeled scans.
    SSLDEC without it lost against labeled-only in one draw of three (`docs/experiments.md`). Settings of the method
    that nobody has tried count as unsafe too: all but `_HARMLESS_SETTINGS`.
    """
    start = options.settings.get("unlabeled_start", 1.0)
    begins_with_labels = isinstance(start, int | float) and start >= _SAFE_START
    untried = any(_is_of_method(name) for name in options.settings if name not in _HARMLESS_SETTINGS)
    if options.method == "ssldec" and not uses_anatomy(options, cohort):
        return False
    shrinks = target_rule(options) == "dec" and first_cluster(options, cohort) == 0
    rounds = options.settings.get("rounds", options.rounds)
    return begins_with_labels and not untried and not rounds and not shrinks


def is_checked(out: Path) -> bool:
    """Tell whether a run folder belongs to a checked training, finished or not."""
    return (out / PLAN).is_file()


def planned_runs(cohort: Cohort, *, checked: bool) -> int:
    """Return how many trainings of the whole budget a semi-supervised method takes at most.

    Args:
        cohort: Its scans.
        checked: Whether there is a labeled scan to compare the two networks on.
    """
    if not cohort.unlabeled:
        return 1
    return 4 if checked and not cohort.validation else 2


class _Runner:
    """Train the candidates one after another; those that are finished are not trained again."""

    def __init__(
        self, out: Path, data: Path, scans: Cohort, cohort: Cohort, watcher: Watcher | None, say: Say
    ) -> None:
        self.out, self.data, self.watcher, self.say = out, data, watcher, say
        self.scans, self.cohort = scans, cohort  # as they were read, and with those that are held out
        self.trainings: dict[str, Training] = {}

    def train(self, name: str, options: TrainOptions, part: Cohort | None) -> Path:
        """Train a candidate on the data, or on a part of them; return its run folder."""
        run = self.out / CANDIDATES / name
        data, cohort = self.data, self.cohort if part is None else None
        if part is not None:
            data = run.with_name(f"{name}-data") / "datalist.json"
            write_datalist(data, part)
        finished = finished_training(run)
        if finished is not None:
            self.trainings[name] = finished
            return run
        began = (run / "run.json").is_file()
        if not began:  # stopped while it was prepared
            shutil.rmtree(run, ignore_errors=True)
        plan = read_json(self.out / PLAN)
        _require_same_files(plan.get("data_sha256"), self.scans, self.out)
        _require_same_init(plan.get("init_sha256"), options)
        self.say(f"{'Going on with' if began else 'Training'} {name}")
        shared = _registrations(self.out, options)
        self.trainings[name] = train(
            data, run, options, self.watcher, resume=began, registrations=shared, cohort=cohort
        )
        return run


@dataclass(frozen=True)
class _Check:
    """Candidates that are compared on held-out labeled scans.

    Args:
        run: Trains them.
        cohort: With the held-out scans under validation.
        prefix: Of their names.
        keep_last: They do not see the held-out scans; the last step is scored, not the one that is best on them.
    """

    run: _Runner
    cohort: Cohort
    prefix: str
    keep_last: bool

    def dice(self, name: str, options: TrainOptions) -> dict[str, float]:
        """Train a candidate and return the mean Dice of each held-out labeled scan."""
        part = replace(self.cohort, validation=(), test=()) if self.keep_last else None
        run = self.run.train(self.prefix + name, replace(options, hold_out=0) if part else options, part)
        with stoppable():
            per_label = dice_of_run(run, self.cohort.validation, resample=options.resample)
        return mean_over_labels(per_label, self.cohort.validation)


def _weighed(out: Path, check: _Check, options: TrainOptions, *, automatic: bool) -> TrainOptions:
    """Choose the weight of registered labels on the held-out scans, once, and write down what it was chosen from.

    Args:
        out: The run folder; it keeps the choice for a resumed run.
        check: Its labeled-only candidate is trained.
        options: Of the semi-supervised candidates.
        automatic: Whether w = 0 leaves registration out.
    """
    if not uses_anatomy(options, check.cohort) or SETTING in options.settings:
        return options
    path = out / WEIGHT
    if not path.is_file():
        labeled_only = out / CANDIDATES / (check.prefix + LABELED_ONLY)
        watcher = check.run.watcher or Watcher()
        with stoppable("Stopped while labeled scans were registered; registrations that are done are kept."):
            weighed = weigh_anatomy(
                labeled_only, check.cohort, options, _registrations(out, options), watcher.registered
            )
        told = record(weighed, options, automatic=automatic)
        write_json(path, told | (TRANSDUCTIVE if options.transductive else {}))
    found = read_json(path)
    check.run.say(found["sentence"])
    weight = tuple(found["weight"]) if isinstance(found["weight"], list) else found["weight"]
    return with_weight(options, weight, automatic=automatic, cohort=check.cohort)


def _check_factor(
    out: Path, check: _Check, winner: str, without: Mapping[str, float], options: TrainOptions
) -> None:
    """Find out on the held-out scans what registered labels are worth at inference, once, and write it down."""
    path = out / FACTOR
    if not path.is_file():
        try:
            with stoppable("Stopped while held-out scans were scored; registrations that are done are kept."):
                told = check_factor(
                    out / CANDIDATES / (check.prefix + winner),
                    check.cohort.validation,
                    without,
                    _registrations(out, options),
                    resample=options.resample,
                    processes=options.settings.get(PROCESSES),
                    progress=(check.run.watcher or Watcher()).registered,
                )
        except TrainingInterrupted:
            raise
        except MedsslError as error:  # it is advice: no reason to lose the comparison
            check.run.say(f"What registered labels are worth at inference was not found out: {error}")
            return
        write_json(path, told | (TRANSDUCTIVE if options.transductive else {}))
    check.run.say(read_json(path)["sentence"])


def _registrations(out: Path, options: TrainOptions) -> Path:
    """Return the folder that keeps registrations: the run's, or one that the user shares between runs."""
    return named_registrations(options) or out


def _begin(data: Path, out: Path, options: TrainOptions, resume: bool) -> TrainOptions:
    """Write the plan, or read the one that a resumed run began with.

    Raises:
        OutputError: The folder is in use, or the run is finished.
        InputError: Other data than those the run began with.
    """
    if resume:
        plan = read_json(out / PLAN)
        if (out / "verdict.json").is_file():
            msg = f"The run in {out} is finished."
            raise OutputError(msg, "Choose a new --out for another run.")
        if plan["data"] != relative(data, out):
            msg = (
                f"The run in {out} began with other data: {plan['data']} as seen from its folder, now {data}."
            )
            raise InputError(msg, "Give the same data, or start a new run.")
        kept = plan["options"]
        init = str(out / kept["init"]) if kept["init"] else None
        if named := kept["settings"].get(REGISTRATIONS):
            kept["settings"][REGISTRATIONS] = str(out / named)
        options = TrainOptions(**{**kept, "contrasts": _pair(kept["contrasts"]), "init": init})
        cohort = read_cohort(data, options.contrasts, mask=options.mask)
        _require_same_files(plan.get("data_sha256"), cohort, out)
        return options
    require_new_run(out, [data])
    with TemporaryDirectory() as scratch:  # nothing that can be known now shall turn up after hours
        for number, one in enumerate((_labeled_only(options), options)):
            prepare_run(data, Path(scratch) / str(number), one)
            require_parts(Path(scratch) / str(number))
    init = relative(options.init, out) if options.init else None
    kept = asdict(options) | {"init": init, "settings": settings_seen_from(out, options)}
    hashes = _hashes(read_cohort(data, options.contrasts, mask=options.mask), out)
    plan = {"data": relative(data, out), "data_sha256": hashes, "options": kept}
    if options.init:
        plan["init_sha256"] = sha256_once(find_weights(options.init)[1])
    write_json(out / PLAN, plan)
    return options


def _hashes(cohort: Cohort, out: Path) -> dict[str, str]:
    return dict(file_hashes((*cohort.training, *cohort.validation, *cohort.unlabeled), out))


def _require_same_files(before: Mapping[str, str] | None, cohort: Cohort, out: Path) -> None:
    """Refuse to go on with other scans than the candidates that are finished had: they would not be comparable.

    Raises:
        InputError: A file is gone, new or changed since the run began.
    """
    if before is not None:  # otherwise the run is of an earlier version
        require_same_hashes(before, _hashes(cohort, out), f"the run in {out} began")


def _require_same_init(before: str | None, options: TrainOptions) -> None:
    """Refuse to let two networks that are compared begin with different weights.

    Raises:
        InputError: The file of ``--init`` is another one by now.
    """
    if before is None or options.init is None:
        return
    path = find_weights(options.init)[1]
    if sha256_once(path) != before:
        msg = f"The weights of --init, {path}, have changed since the run began, whose networks begin alike."
        raise InputError(msg, "Put the file back as it was and go on with --resume, or start a new run.")


@contextmanager
def _removed_if_nothing_began(out: Path) -> Iterator[None]:
    """Remove the folder of a run whose first candidate did not even begin."""
    try:
        yield
    except Exception:
        if not any((out / CANDIDATES).glob("*/run.json")):
            shutil.rmtree(out, ignore_errors=True)
        raise


def _pair(contrasts: list[str] | None) -> tuple[str, ...] | None:
    return None if contrasts is None else tuple(contrasts)


def decided(options: TrainOptions, cohort: Cohort) -> TrainOptions:
    """Decide what "auto" leaves open on all labeled scans: the check shall judge the method that is returned."""
    if options.method != "ssldec" or options.rounds or options.prior != "auto":
        return options
    return replace(options, prior="anatomical" if uses_anatomy(options, cohort) else "class")


def _labeled_only(options: TrainOptions) -> TrainOptions:
    """Return the strongest baseline of the same budget: softmax head, no unlabeled scans."""
    own = {}
    for name, value in options.settings.items():
        if not _is_of_method(name):
            own[_shared(name)] = value
    own.setdefault("patience", 0)  # semi-supervised methods take all their steps, so the baseline does
    return replace(
        options,
        method="supervised",
        rounds=0,
        target_rule=None,
        schedule=None,
        clustering_head=False,
        prior="auto",
        settings=own,
    )


METHOD_SETTINGS = frozenset(
    {
        *(
            "unlabeled_weight",
            "unlabeled_start",
            "threshold",
            "features",
            "scope",
            "flips",
            "target_rule",
        ),
        *("anatomy_weight", "registered_share", "atlases"),
        *("alpha", "background_cluster", "rounds", "schedule", "turns", "loss"),
        *("network_def#alpha", "network_def#features", "network_def#background"),
    }
)
"""Values of the overlays, which a labeled-only configuration does not have; those under them too."""

METHOD_PARTS = (
    "train#dataset#registered",
    "train#unlabeled",
    "train#sampler#mixture",
    "train#best_model#begin",
    "train#targets",
    "train#rounds",
    "train#center_start",
    "lr_scheduler#ends",
)
"""Parts of the configuration that the overlays add or change; a labeled-only one has none, or its own."""


_HARMLESS_SETTINGS = ("unlabeled_start", "target_rule", "background_cluster", REGISTRATIONS, PROCESSES)
"""Settings of a method that change nothing of what it learns, or that are looked at one by one."""


def _shared(setting: str) -> str:
    """Return what a setting of the backbone under a clustering head is called where there is no head."""
    return setting.replace("network_def#backbone#", "network_def#")


def _is_of_method(setting: str) -> bool:
    """Tell whether a setting belongs to the semi-supervised method alone."""
    name = _shared(setting)
    return bool({name, name.partition("#")[0]} & METHOD_SETTINGS) or name.startswith(METHOD_PARTS)


def _judges(out: Path, cohort: Cohort, options: TrainOptions) -> list[str]:
    """Return the subjects that may judge, in the order of their names; the plan keeps them for a resumed run.

    A scan that the weights of ``--init`` have learned from is no judge.
    """
    plan = read_json(out / PLAN)
    if "judges" not in plan:
        known = KnownScans() if options.init is None else known_scans(find_weights(options.init)[0])
        if any((out / CANDIDATES).glob("check-*")):  # begun by a version that asked no weights
            known = KnownScans()
        some = cohort.validation or cohort.training
        taught = {plain_id(one.subject) for one in some if known.holds(one)}
        if taught:
            logger.warning(
                "The weights of --init know, so that they do not judge: %s", ", ".join(sorted(taught))
            )
        plan = {**plan, "judges": [name for name in _persons(some) if name not in taught]}
        write_json(out / PLAN, plan)
    judges: list[str] = plan["judges"]
    return judges


def _for_check(cohort: Cohort, seed: int, judges: Sequence[str]) -> tuple[Cohort, str]:
    """Return the scans with those for the check under validation, and why there are none, "" where there are.

    Args:
        cohort: All scans.
        seed: Chooses among the labeled ones, where none are under validation.
        judges: Subjects that may be chosen.
    """
    if cohort.validation:
        some = tuple(one for one in cohort.validation if plain_id(one.subject) in judges)
        return replace(cohort, validation=some), "" if some else LEARNED
    if len(_persons(cohort.training)) < 2:
        return cohort, ONE_LABELED
    if not judges:
        return cohort, LEARNED
    part = _held_out_for_check(cohort, seed, judges)
    for judge in judges:  # one whose sessions are not all the unlabeled scans there are
        if part.training and part.unlabeled:
            break
        part = _held_out_for_check(cohort, seed, [judge])
    if part.training and not part.unlabeled:
        return part, NONE_LEFT
    return (
        part,
        "" if part.training else ONE_LABELED,
    )  # none is left where all labeled scans are copies of one


def _held_out_for_check(cohort: Cohort, seed: int, judges: Sequence[str] | None = None) -> Cohort:
    """Move whole subjects of the labeled scans to validation.

    Their unlabeled sessions are left out, and so is every other scan that is one of theirs under another name.

    Args:
        cohort: All scans.
        seed: Chooses the subjects.
        judges: Subjects to choose from; None: all labeled ones.
    """
    names = _persons(cohort.training) if judges is None else list(judges)
    order = np.random.default_rng(seed).permutation(len(names))
    held = {names[place] for place in order[: max(1, len(names) // HELD_OUT_SHARE)]}

    def is_held(subject: Subject) -> bool:
        return plain_id(subject.subject) in held

    part = replace(
        cohort,
        training=tuple(subject for subject in cohort.training if not is_held(subject)),
        validation=tuple(subject for subject in cohort.training if is_held(subject)),
        unlabeled=tuple(subject for subject in cohort.unlabeled if not is_held(subject)),
    )
    leaks = find_leaks(part, sections_checked=[("training", "validation"), ("unlabeled", "validation")])
    copies = {leak.one.key for leak in leaks}
    if copies:
        logger.warning("Left out of the check, being held-out scans too: %s", ", ".join(sorted(copies)))
    return replace(
        part,
        training=tuple(one for one in part.training if one.key not in copies),
        unlabeled=tuple(one for one in part.unlabeled if one.key not in copies),
    )


def _persons(scans: Iterable[Subject]) -> list[str]:
    """Return the subjects, each once however it is spelled, in the order of the names as they are."""
    names = sorted(scan.subject for scan in scans)
    return list(dict.fromkeys(plain_id(name) for name in names))


def _promote(
    data: Path, out: Path, options: TrainOptions, winner: str, found: Verdict, training: Training
) -> Training:
    """Copy the better run to the top of the run folder; the verdict comes last and says that all is done."""
    source = out / CANDIDATES / winner
    promote_parts(source, out, PROMOTED)
    others = [out / CANDIDATES / name / EXAMPLE for name in (options.method, f"check-{options.method}")]
    example = next((path for path in others if path.is_file()), None)
    if example is not None and not (out / EXAMPLE).is_file():  # worth a look where it did not help, too
        shutil.copyfile(example, out / EXAMPLE)
    write_datalist(out / "datalist.json", read_cohort(source))
    told: dict[str, Any] = dict(read_json(source / "run.json"))
    told["command"] = repeat_command(data, out, options, checked=True)
    told["data"] = relative(data, out)
    told["data_sha256"] = moved_hashes(told["data_sha256"], source, out)
    if named := told.get("registrations"):
        told["registrations"] = relative(source / named, out)
    for one in sorted(
        (out / CANDIDATES).glob("*/run.json")
    ):  # the comparison is transductive, whoever won it
        if seen := read_json(one).get("transductive"):
            told["transductive"] = seen
    said: Mapping[str, Any] = {
        "returned": winner,
        "answer": found.answer,
        "sentence": found.sentence,
        "difference": found.difference,
        "patience": options.settings.get("patience", 0),
        "dice": {
            scan: {LABELED_ONLY: before, "semi-supervised": after}
            for scan, (before, after) in found.dice.items()
        },
    }
    anatomy = {path.stem: read_json(path) for path in (out / WEIGHT, out / FACTOR) if path.is_file()}
    if anatomy.get(FACTOR_NAME, {}).get("network", winner).removeprefix("check-") != winner:
        del anatomy[FACTOR_NAME]  # it was measured with the network that is not returned
    stamp = {"transductive": told["transductive"]} if "transductive" in told else {}
    write_json(out / "run.json", told | anatomy | {"verdict": said})
    write_json(out / "verdict.json", {**said, **stamp})
    return replace(training, run=out)
