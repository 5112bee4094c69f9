"""Trainings inside a larger one: each in a folder of its own, none done twice, each resumed where it stopped."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from medssl.io.image_cohort import ImageCohort
from medssl.workflows.classification.train import ClassifyOptions, prepare_classifier, require_same_images
from medssl.workflows.running import Training, finished_training, run_training
from medssl.workflows.watching import Watcher

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
    files: Mapping[str, Path] | None = None,
) -> Training:
    """Train one of the runs under a run folder; one that is finished is not trained again.

    Args:
        run: Its folder.
        cohort: Its images.
        options: See `ClassifyOptions`.
        data: Where the images come from, for the record.
        watcher: Told about the progress.
        say: Told what comes next.
        files: Name in the run folder -> file that is copied there, so that the folder stands alone.
    """
    finished = finished_training(run)
    if finished is not None:
        return finished
    began = (run / "run.json").is_file()
    say(f"{'Going on with' if began else 'Training'} {run.name}")
    if began:
        require_same_images(run)
    else:  # also one that was stopped while it was prepared
        shutil.rmtree(run, ignore_errors=True)
        prepare_classifier(run, cohort, options, data, files)
    resumable = (run / "checkpoints" / "resume.pt").is_file()
    return run_training(run, watcher or Watcher(), resume=began and resumable)
