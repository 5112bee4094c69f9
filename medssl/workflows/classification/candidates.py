"""Trainings inside a larger one: each in a folder of its own, none done twice, each resumed where it stopped."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from medssl.io.files import read_json
from medssl.io.image_cohort import ImageCohort
from medssl.workflows.classification.calibrate import calibrate
from medssl.workflows.classification.train import ClassifyOptions, prepare_classifier, require_same_images
from medssl.workflows.running import Training, Watcher, run_training

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
"""Told what comes next."""


def train_candidate(
    run: Path,
    cohort: ImageCohort,
    options: ClassifyOptions,
    data: Path,
    watcher: Watcher | None = None,
    say: Say = logger.info,
) -> Training:
    """Train one of the runs under a run folder; one that is finished is not trained again."""
    began = (run / "run.json").is_file()
    if began and read_json(run / "run.json")["finished"]:
        record = read_json(run / "run.json")
        return Training(run, record["steps"], record["best_validation_score"], record["seconds"])
    say(f"{'Going on with' if began else 'Training'} {run.name}")
    if began:
        require_same_images(run)
    else:  # also one that was stopped while it was prepared
        shutil.rmtree(run, ignore_errors=True)
        prepare_classifier(run, cohort, options, data)
    resumable = (run / "checkpoints" / "resume.pt").is_file()
    done = run_training(run, watcher or Watcher(), resume=began and resumable)
    calibrate(run, cohort)
    return done
