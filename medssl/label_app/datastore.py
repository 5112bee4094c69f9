"""MONAI Label's view of the scans: its interface, our folders behind it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from medssl.errors import OutputError
from medssl.io.subjects import Cohort
from medssl.label_app import checks
from medssl.label_app.scans import Scans


class CohortDatastore(Datastore):
    """Serve a cohort; ids and tags are checked here again, whoever calls.

    Args:
        scans: What is served.
    """

    def __init__(self, scans: Scans) -> None:
        self.scans = scans
        self._notes: dict[str, dict[str, Any]] = {}

    def name(self) -> str:
        """Return the name of the folder."""
        return self.scans.studies.name

    def set_name(self, name: str) -> None:
        """Refuse: the folder has its name."""
        self._refuse("renamed")

    def description(self) -> str:
        """Return what is served."""
        return f"{', '.join(self.scans.contrasts)} scans, labels {self.scans.table.describe()}"

    def set_description(self, description: str) -> None:
        """Refuse: it follows from the scans."""
        self._refuse("described anew")

    def datalist(self) -> list[dict[str, Any]]:
        """Return the labeled scans, as MONAI Label's own trainers want them."""
        found = self.training_cohort()
        return [
            {"image": [str(path) for path in one.images], "label": str(one.label)}
            for one in (*found.training, *found.validation)
        ]

    def training_cohort(self) -> Cohort:
        """Return labeled, validating and unlabeled scans."""
        return self.scans.training_cohort()

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Return tag -> id of the labels of a scan."""
        key = checks.identifier(image_id)
        return {tag.value: key for tag in DefaultLabelTag if self.scans.label(key, tag.value)}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Return the id of a label, which is that of its scan."""
        return self.get_labels_by_image_id(image_id).get(checks.tag(_text(tag)), "")

    def get_image(self, image_id: str, params: Any = None) -> io.BytesIO:
        """Return the bytes of a scan's first contrast."""
        return io.BytesIO(self.scans.image(checks.identifier(image_id)).read_bytes())

    def get_image_uri(self, image_id: str) -> str:
        """Return the file of a scan's first contrast."""
        return str(self.scans.image(checks.identifier(image_id)))

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> io.BytesIO | None:
        """Return the bytes of a label."""
        path = self.get_label_uri(label_id, label_tag)
        return io.BytesIO(Path(path).read_bytes()) if path else None

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the file of a label, or nothing."""
        path = self.scans.label(checks.identifier(label_id, "label"), checks.tag(_text(label_tag)))
        return "" if path is None else str(path)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is known about a scan."""
        path = self.scans.image(checks.identifier(image_id))
        return {**self._notes.get(image_id, {}), "name": path.name, "path": str(path)}

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return the segments of a label, as they were sent."""
        return {
            "label_info": self.scans.segments(
                checks.identifier(label_id, "label"), checks.tag(_text(label_tag))
            )
        }

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the ids of labeled scans."""
        return [key for key, subject in self.scans.subjects().items() if subject.label is not None]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """Return the ids of scans to label."""
        return [key for key, subject in self.scans.subjects().items() if subject.label is None]

    def list_images(self) -> list[str]:
        """Return all ids."""
        return list(self.scans.subjects())

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Refuse: the files lie on this computer."""
        self._refuse("packed")

    def refresh(self) -> None:
        """Do nothing: the folders are read at every request."""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Keep a scan that a viewer sent; return its id."""
        return self.scans.add_image(checks.identifier(image_id), Path(image_filename))

    def remove_image(self, image_id: str) -> None:
        """Refuse: scans are never deleted here."""
        self._refuse("deleted")

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a label that a viewer sent; return its id."""
        key = checks.identifier(image_id)
        segments = checks.plain_object(label_info).get("label_info") or []
        self.scans.save_label(key, Path(label_filename), checks.tag(_text(label_tag)), segments)
        return key

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Take back a label that was saved here."""
        self.scans.remove_label(checks.identifier(label_id, "label"), checks.tag(_text(label_tag)))

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Note something about a scan until the server ends, such as who works on it."""
        self._notes.setdefault(checks.identifier(image_id), {}).update(info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Refuse: a label's segments are saved with it."""
        self._refuse("described anew")

    def status(self) -> dict[str, Any]:
        """Return how many scans there are, and how many are labeled."""
        subjects = self.scans.subjects().values()
        labeled = sum(subject.label is not None for subject in subjects)
        return {
            "total": len(subjects),
            "completed": labeled,
            "label_tags": {"final": labeled} if labeled else {},
        }

    def json(self) -> dict[str, Any]:
        """Return everything, as MONAI Label's clients know it."""
        return self.scans.as_json()

    def _refuse(self, what: str) -> Any:
        msg = f"The scans of this server cannot be {what} from a viewer."
        raise OutputError(msg, "Do it in the folder itself.")


def _text(tag: str) -> str:
    return str(getattr(tag, "value", tag))
