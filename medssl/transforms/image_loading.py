"""From the path of an image file to the network's input, as a step of MONAI's dictionary transforms."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray
from torch import Tensor


class PreparedImaged(MapTransform):
    """Read an image and prepare it.

    Args:
        keys: Entries that hold paths. Beside them ``name`` may say what the image is called in outputs.
        read: Path to array ``(H, W, C)`` (`io.images.read_image`).
        preprocessing: Array to uint8 tensor ``(C, S, S)`` (`transforms.classification.image_preprocessing`).

    Notes:
        The result is float32 in [0, 1]. Its meta data say which file it came from and nothing of its space: what
        a classifier answers has none.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        read: Callable[[Path], NDArray[Any]],
        preprocessing: Callable[[NDArray[Any]], Tensor],
    ) -> None:
        super().__init__(keys)
        self.read, self.preprocessing = read, preprocessing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the entries with the images in place of their paths."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            path = Path(str(changed[key]))
            image = self.preprocessing(self.read(path)).float() / 255
            changed[key] = MetaTensor(image, meta={"filename_or_obj": str(data.get("name", path))})
        return changed
