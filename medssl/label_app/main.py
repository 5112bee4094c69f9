"""The app that MONAI Label starts: one model to segment, one trainer a method, one order to label in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from medssl import __version__
from medssl.label_app.datastore import CohortDatastore
from medssl.label_app.inference import PairInferTask, viewer_labels
from medssl.label_app.models import ModelStore
from medssl.label_app.next_scan import NAME, LabelNext
from medssl.label_app.scans import Scans
from medssl.label_app.training import MethodTrainTask
from medssl.workflows.labeling.workspace import read_settings
from medssl.workflows.models import model_facts, quiet_libraries

METHODS = ("supervised", "pseudo-label", "ssldec")
"""Methods with a trainer of their own."""

MODEL = "segmentation"
"""Name of the one model that segments; its weights are chosen by ``model_filename``."""


class LabelApp(MONAILabelApp):
    """Labels of infant brains, or of whatever the initial model segments, from several contrasts.

    Args:
        app_dir: Folder that `workspace.lay_out` made.
        studies: Not used: the settings in that folder say it.
        conf: Options of MONAI Label's command line.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        quiet_libraries()
        self.settings = read_settings(Path(app_dir))
        own = self.settings
        self.models = ModelStore(own.model, own.workspace.models, own.cache, own.device)
        facts = model_facts(own.model)
        contrasts = own.contrasts or facts.contrasts
        self.scans = Scans(own.studies, own.workspace, contrasts=contrasts, table=facts.table, mask=own.mask)
        self.scans.write_lists()
        super().__init__(
            app_dir,
            str(own.studies),
            conf,
            name="medssl",
            description=f"Labels {facts.table.describe()} from {', '.join(contrasts)}",
            version=__version__,
            labels=list(viewer_labels(facts.table)),
        )

    def init_datastore(self) -> CohortDatastore:
        """Serve the scans as they lie."""
        return CohortDatastore(self.scans)

    def init_infers(self) -> dict[str, Any]:
        """One model."""
        return {MODEL: PairInferTask(self.models, self.scans)}

    def init_trainers(self) -> dict[str, Any]:
        """One trainer a method."""
        self.trainers = {method: MethodTrainTask(method, self.models, self.settings) for method in METHODS}
        return self.trainers

    def init_strategies(self) -> dict[str, Any]:
        """The ranking first: viewers take the first one."""
        ranked = LabelNext(self.models, self.settings.workspace.ranking)
        self.strategies = {NAME: ranked, "random": Random(), "first": First()}
        return self.strategies

    def init_batch_infer(self) -> Callable[..., Any]:
        """`medssl segment` does all scans at once."""
        return dict
