"""The calibration error of a validation, held to that of all its voxels at once."""

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator

from medssl.engines import Calibration
from medssl.functional.calibration import calibration_error


class _Scores(torch.nn.Module):
    """Answer with the image, whose channels are scores."""

    def forward(self, x):
        return x


def _scan(seed, labels=3):
    generator = torch.Generator().manual_seed(seed)
    image = 3 * torch.randn(1, labels, 6, 5, 4, generator=generator)
    label = torch.randint(0, labels, (1, 1, 6, 5, 4), generator=generator)
    label[0, 0, 0] = 255
    mask = (torch.rand(1, 1, 6, 5, 4, generator=generator) > 0.3).float()
    return {"image": image, "label": label, "mask": mask}


def _expected(scans, first):
    confidences, hits = [], []
    for scan in scans:
        for place in scan["mask"][0, 0].nonzero():
            label = int(scan["label"][0, 0][tuple(place)])
            if label == 255 or label < first:
                continue
            q = scan["image"][0, first:][(slice(None), *place)].softmax(0)
            confidences.append(float(q.max()))
            hits.append(int(q.argmax()) + first == label)
    return calibration_error(torch.tensor(confidences), torch.tensor(hits))


@pytest.mark.parametrize("kind", [torch.as_tensor, MetaTensor])
@pytest.mark.parametrize("first", [0, 1])
def test_it_is_that_of_the_known_voxels_of_all_scans_together(first, kind):
    scans = [{name: kind(part) for name, part in _scan(seed).items()} for seed in (1, 2)]
    calibration = Calibration(first)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=scans, network=_Scores(), val_handlers=[calibration]
    )
    for _ in range(2):  # a second validation begins anew
        evaluator.run()
        assert evaluator.state.metrics["val_calibration_error"] == pytest.approx(
            _expected(scans, first), abs=1e-6
        )
