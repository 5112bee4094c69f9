import logging

import numpy as np
import pytest
import torch
from phantoms import save

from medssl.errors import InputError, LabelError
from medssl.labels import BRAIN_TISSUES, UNKNOWN, LabelTable
from medssl.transforms.loading import DecodeLabelsd, EncodeLabelsd, ForeignKeySafeSpacingd, LoadSubjectd

NINE = LabelTable.from_rows([{"index": value, "name": f"s{value}"} for value in (3, 17, 200)])


@pytest.fixture
def files(tmp_path, affine_oblique):
    t1 = np.zeros((6, 7, 8), np.float32)
    t1[1:5, 1:6, 1:7] = 3
    t2 = t1 * 2
    t2[2, 2, 2] = 0
    label = (t1 > 0).astype(np.uint8)
    names = {"T1w": t1, "T2w": t2, "dseg": label}
    return {
        name: str(save(tmp_path / f"sub-1_{name}.nii.gz", data, affine_oblique))
        for name, data in names.items()
    }


def test_contrasts_become_channels_and_the_first_makes_the_mask(files):
    sample = LoadSubjectd()({"image": [files["T1w"], files["T2w"]], "label": files["dseg"]})
    assert sample["image"].shape == (2, 6, 7, 8)
    assert sample["label"].shape == (1, 6, 7, 8)
    assert sample["native_mask"].sum() == 4 * 5 * 6


def test_one_contrast_may_come_as_a_single_path(files):
    assert LoadSubjectd()({"image": files["T1w"]})["image"].shape == (1, 6, 7, 8)


def test_mask_none_counts_every_voxel(files):
    assert LoadSubjectd()({"image": [files["T1w"]], "mask": "none"})["native_mask"].all()


def test_a_given_mask_wins(files, tmp_path, affine_oblique):
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[2:4] = 1
    path = str(save(tmp_path / "mask.nii.gz", mask, affine_oblique))
    assert LoadSubjectd()({"image": [files["T1w"]], "mask": path})["native_mask"].sum() == 2 * 7 * 8


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    path = str(save(tmp_path / "a.nii.gz", np.ones((4, 5, 6, 1), np.float32), np.eye(4)))
    assert LoadSubjectd()({"image": [path]})["image"].shape == (1, 4, 5, 6)


def test_resample_brings_the_other_contrast_to_the_first_grid(tmp_path, caplog):
    ramp = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((8, 8, 8), np.float32) + 1
    first = save(tmp_path / "x_T1w.nii.gz", ramp, np.eye(4))
    other = save(tmp_path / "x_T2w.nii.gz", ramp[::2, ::2, ::2].copy(), np.diag([2.0, 2, 2, 1]))
    with caplog.at_level(logging.INFO):
        sample = LoadSubjectd()({"subject": "sub-x", "image": [str(first), str(other)], "resample": True})
    assert torch.allclose(sample["image"][1, :7, :7, :7], sample["image"][0, :7, :7, :7], atol=1e-4)
    assert "from shape (4, 4, 4) to (8, 8, 8)" in caplog.text


def test_stored_values_become_channels_and_back(tmp_path):
    stored = np.array([0, 3, 17, 200, UNKNOWN], np.uint8).reshape(5, 1, 1)
    path = str(save(tmp_path / "l.nii.gz", stored, np.eye(4)))
    sample = LoadSubjectd(keys=("image", "label"))({"image": [path], "label": path})
    decoded = DecodeLabelsd(("label",), NINE)(sample)
    assert decoded["label"].flatten().tolist() == [0, 1, 2, 3, UNKNOWN]
    encoded = EncodeLabelsd(("label",), NINE)({"label": decoded["label"][:, :4]})
    assert encoded["label"].flatten().tolist() == [0, 3, 17, 200]


def test_iseg_values_become_the_channels_of_the_same_tissues(tmp_path):
    path = str(save(tmp_path / "l.nii.gz", np.array([0, 10, 150, 250], np.uint8).reshape(4, 1, 1), np.eye(4)))
    sample = LoadSubjectd()({"image": [path], "label": path, "encoding": "iseg"})
    assert DecodeLabelsd(("label",), BRAIN_TISSUES)(sample)["label"].flatten().tolist() == [0, 3, 1, 2]


def test_a_value_outside_the_table_is_refused(tmp_path):
    path = str(save(tmp_path / "l.nii.gz", np.array([0, 7], np.uint8).reshape(2, 1, 1), np.eye(4)))
    sample = LoadSubjectd()({"subject": "sub-9", "image": [path], "label": path})
    with pytest.raises(LabelError, match=r"sub-9: the label volume holds 7"):
        DecodeLabelsd(("label",), BRAIN_TISSUES)(sample)


def test_spacing_leaves_foreign_keys_alone(files):
    sample = LoadSubjectd(keys=("image",))({"image": [files["T1w"]]})
    foreign = {"image_path": "a/b.nii.gz", "image_id": 3, "label_name": "x"}
    result = ForeignKeySafeSpacingd(keys=("image",), pixdim=(1.0, 1.0, 1.0))({**sample, **foreign})
    assert {name: result[name] for name in foreign} == foreign
    assert result["image"].pixdim.tolist() == pytest.approx([1, 1, 1])


def test_one_path_stands_for_all_contrasts_where_they_are_named(tmp_path):
    files = [save(tmp_path / f"x_{name}.nii.gz", np.full((4, 5, 6), value, np.int16), np.eye(4))
             for value, name in ((1, "T1w"), (2, "T2w"))]  # fmt: skip
    for path in files:
        image = LoadSubjectd(contrasts=("T1w", "T2w"))({"image": str(path), "image_path": str(path)})["image"]
        assert image.shape == (2, 4, 5, 6)
        assert [float(channel.mean()) for channel in image] == [1.0, 2.0]
    assert LoadSubjectd(contrasts=("T1w",))({"image": str(files[0])})["image"].shape == (1, 4, 5, 6)


def test_a_contrast_missing_beside_the_path_is_named(tmp_path):
    path = save(tmp_path / "x_T1w.nii.gz", np.ones((4, 5, 6), np.int16), np.eye(4))
    with pytest.raises(InputError, match=r"x_T2w\.nii\.gz is missing"):
        LoadSubjectd(contrasts=("T1w", "T2w"))({"image": str(path)})


def test_monai_label_finds_all_keys_of_the_loader_in_what_it_hands_in():
    assert LoadSubjectd(keys=("image", "mask")).keys == ("image",)
    assert LoadSubjectd(keys=("image", "label", "mask")).keys == ("image", "label")
