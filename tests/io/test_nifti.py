import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import GridError, InputError, LabelError, OutputError
from medssl.geometry import Grid
from medssl.io import nifti
from medssl.labels import BRAIN_TISSUES, LabelTable

GEOMETRY = (
    "qform_code",
    "sform_code",
    "xyzt_units",
    "pixdim",
    "qoffset_x",
    "quatern_b",
    "quatern_d",
    "srow_x",
)

Save = Callable[..., Path]


def _change_header(path: Path, **fields: object) -> Path:
    """Overwrite header fields in the file itself, past what nibabel would repair."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


def _with_spacing(path: Path, spacing: tuple[float, float, float]) -> Path:
    return _change_header(path, pixdim=[1, *spacing, 0, 0, 0, 0])


@pytest.fixture
def t1w(tmp_path: Path, save: Save, scan: np.ndarray) -> Path:
    return save(tmp_path / "sub-01_T1w.nii.gz", scan)


def test_volume_keeps_voxel_order_grid_and_values(
    t1w: Path, scan: np.ndarray, affine_oblique: np.ndarray
) -> None:
    volume = nifti.read_volume(t1w, "sub-01")
    np.testing.assert_array_equal(volume.data, scan)
    assert volume.data.dtype == np.float32
    np.testing.assert_allclose(volume.grid.affine, affine_oblique, atol=1e-6)
    assert volume.grid.axcodes == "LAS"
    assert nifti.read_grid(t1w, "sub-01").difference(volume.grid) is None


def test_stored_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    stored = np.frombuffer(raw[352:], np.int16).reshape((2, 2, 2), order="F")
    expected = stored * 0.5 + 10
    np.testing.assert_allclose(nifti.read_volume(tmp_path / "a.nii", "a").data, expected)


def test_trailing_axes_of_one_are_dropped(tmp_path: Path, save: Save, scan: np.ndarray) -> None:
    path = save(tmp_path / "a.nii.gz", scan[..., None, None])
    assert nifti.read_volume(path, "sub-01").data.shape == scan.shape


def test_missing_file_names_subject_and_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sub-01: a\.nii\.gz is missing.*Put it there"):
        nifti.read_volume(tmp_path / "a.nii.gz", "sub-01")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file_is_refused(
    tmp_path: Path, save: Save, scan: np.ndarray, name: str, kept: float
) -> None:
    path = save(tmp_path / name, scan)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError, match=rf"sub-01: {name} .*(truncated|no readable).*Copy"):
        nifti.read_volume(path, "sub-01")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n" + bytes(600)])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.hdr"])
def test_file_that_is_no_nifti_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"sub-01: {name} is no readable NIfTI.*Copy or convert"):
        nifti.read_volume(tmp_path / name, "sub-01")


def test_surface_is_no_volume(tmp_path: Path) -> None:
    nib.save(nib.GiftiImage(), tmp_path / "a.gii")
    with pytest.raises(InputError, match=r"sub-01: a\.gii holds no volume but GiftiImage"):
        nifti.read_volume(tmp_path / "a.gii", "sub-01")


@pytest.mark.parametrize(("value", "what"), [(0, "all zero"), (7, r"constant \(7\)")])
def test_image_without_content_is_refused(tmp_path: Path, save: Save, value: int, what: str) -> None:
    path = save(tmp_path / "a.nii.gz", np.full((4, 4, 4), value, np.int16))
    with pytest.raises(InputError, match=rf"sub-01: a\.nii\.gz is {what}; expected an image.*again"):
        nifti.read_volume(path, "sub-01")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted(tmp_path: Path, save: Save, scan: np.ndarray, value: float) -> None:
    data = scan.astype(np.float32)
    data[3, 4, :2] = value
    path = save(tmp_path / "a.nii.gz", data)
    with pytest.raises(
        InputError, match=r"sub-01: a\.nii\.gz has 2 NaN or infinite voxels of 8640; expected none"
    ):
        nifti.read_volume(path, "sub-01")


def test_series_is_refused(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "a.nii.gz", np.ones((4, 5, 6, 3), np.int16))
    with pytest.raises(
        InputError, match=r"sub-01: a\.nii\.gz is 4D, shape \(4, 5, 6, 3\); expected one 3D.*Extract"
    ):
        nifti.read_volume(path, "sub-01")


def test_single_slice_is_refused(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "a.nii.gz", np.ones((4, 5), np.int16))
    with pytest.raises(InputError, match=r"is 2D, shape \(4, 5\)"):
        nifti.read_volume(path, "sub-01")


def test_colors_are_refused(tmp_path: Path, save: Save) -> None:
    data = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    path = save(tmp_path / "a.nii.gz", data)
    with pytest.raises(
        InputError, match=r"sub-01: a\.nii\.gz holds RGB colors; expected one number a voxel.*gray"
    ):
        nifti.read_volume(path, "sub-01")


def test_complex_values_are_refused(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "a.nii.gz", np.ones((4, 4, 4), np.complex64))
    with pytest.raises(InputError, match="holds values of type complex64"):
        nifti.read_volume(path, "sub-01")


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, float("nan"))])
def test_spacing_that_is_not_positive_is_refused(t1w: Path, spacing: tuple[float, float, float]) -> None:
    _with_spacing(t1w, spacing)
    with pytest.raises(
        GridError, match=r"sub-01: sub-01_T1w.* spacing \(.*\) mm; expected three sizes above 0.*header"
    ):
        nifti.read_volume(t1w, "sub-01")


def test_bad_spacing_is_found_in_nifti2_too(tmp_path: Path, scan: np.ndarray) -> None:
    image = nib.Nifti2Image(scan, np.eye(4))
    image.header.structarr["pixdim"][1] = 0
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + scan.tobytes(order="F"))
    with pytest.raises(GridError, match="spacing"):
        nifti.read_volume(tmp_path / "a.nii", "sub-01")


def test_flat_sform_is_refused(t1w: Path) -> None:
    _change_header(t1w, srow_x=[0, 0, 0, 5], sform_code=1)
    with pytest.raises(GridError, match=r"spacing|sheared"):
        nifti.read_volume(t1w, "sub-01")


def test_sheared_affine_is_refused(tmp_path: Path, save: Save, scan: np.ndarray) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.1
    path = save(tmp_path / "a.nii.gz", scan, affine)
    with pytest.raises(GridError, match=r"sub-01: a\.nii\.gz has a sheared affine.*right angles.*Resample"):
        nifti.read_volume(path, "sub-01")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_labels_come_as_uint8_whatever_they_are_stored_as(
    tmp_path: Path, save: Save, labels: np.ndarray, dtype: type
) -> None:
    labels[0, 0, 0] = 255
    volume = nifti.read_labels(save(tmp_path / "a_dseg.nii.gz", labels.astype(dtype)), "a", BRAIN_TISSUES)
    np.testing.assert_array_equal(volume.data, labels)
    assert volume.data.dtype == np.uint8


def test_label_200_of_nine_structures_survives(tmp_path: Path, save: Save, labels: np.ndarray) -> None:
    table = LabelTable.from_rows([{"index": index, "name": f"part {index}"} for index in (*range(1, 9), 200)])
    labels[labels == 3] = 200
    volume = nifti.read_labels(save(tmp_path / "a_dseg.nii.gz", labels), "a", table)
    assert set(np.unique(volume.data)) == {0, 1, 2, 200}


def test_label_values_outside_the_table_are_listed(tmp_path: Path, save: Save, labels: np.ndarray) -> None:
    labels[labels == 3] = 7
    path = save(tmp_path / "sub-01_dseg.nii.gz", labels)
    expected = r"sub-01: .*sub-01_dseg.* values 7; .*'braintissues' \(0 BG, 1 GM, 2 WM, 3 CSF\).*dseg\.tsv"
    with pytest.raises(LabelError, match=expected):
        nifti.read_labels(path, "sub-01", BRAIN_TISSUES)


@pytest.mark.parametrize(
    ("value", "found"), [(0.5, "fractions such as 0.5"), (-1, "-1 to 3"), (300, "0 to 300")]
)
def test_label_values_that_are_none_are_refused(
    tmp_path: Path, save: Save, labels: np.ndarray, value: float, found: str
) -> None:
    data = labels.astype(np.float32)
    data[0, 0, 0] = value
    with pytest.raises(LabelError, match=rf"a: the label image a_dseg\.nii\.gz has .*{found}.*expected"):
        nifti.read_labels(save(tmp_path / "a_dseg.nii.gz", data), "a", BRAIN_TISSUES)


@pytest.mark.parametrize("value", [0, 255])
def test_empty_label_image_is_refused(tmp_path: Path, save: Save, value: int) -> None:
    path = save(tmp_path / "a_dseg.nii.gz", np.full((4, 4, 4), value, np.uint8))
    with pytest.raises(LabelError, match=r"a: the label image a_dseg\.nii\.gz is empty.*'unlabeled'"):
        nifti.read_labels(path, "a", BRAIN_TISSUES)


def test_iseg_labels_are_mapped_by_name(iseg: Path, labels: np.ndarray) -> None:
    """Invariant 9."""
    path = iseg / "iSeg-2017-Training/subject-1-label.hdr"
    volume = nifti.read_labels(path, "sub-1", BRAIN_TISSUES, encoding="iseg")
    np.testing.assert_array_equal(volume.data, labels)


def test_table_values_in_an_iseg_file_are_refused(tmp_path: Path, save: Save, labels: np.ndarray) -> None:
    path = save(tmp_path / "subject-1-label.nii", labels)
    with pytest.raises(LabelError, match=r"values 1, 2, 3; .* stored as 0, 10, 150, 250"):
        nifti.read_labels(path, "sub-1", BRAIN_TISSUES, encoding="iseg")


def test_mask_is_true_where_it_is_not_zero(tmp_path: Path, save: Save, labels: np.ndarray) -> None:
    path = save(tmp_path / "a_mask.nii.gz", labels)
    np.testing.assert_array_equal(nifti.read_mask(path, "a").data, labels != 0)


def test_empty_mask_is_refused(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "a_mask.nii.gz", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"a: the brain mask a_mask\.nii\.gz is empty"):
        nifti.read_mask(path, "a")


def test_resampling_by_header_brings_a_marked_voxel_to_its_place(
    affine_oblique: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    grid = Grid((20, 24, 18), affine_oblique)
    shifted = affine_oblique.copy()
    shifted[:3, 3] += affine_oblique[:3, :3] @ (2, -3, 1)
    data = np.zeros((30, 30, 30), np.float32)
    data[5, 9, 7] = 100
    volume = nifti.Volume(data, Grid(data.shape, shifted), Path("sub-01_T2w.nii.gz"))
    with caplog.at_level(logging.INFO):
        moved = nifti.resample(volume, grid, "sub-01")
    assert moved.data[7, 6, 8] == pytest.approx(100, rel=1e-4)
    assert moved.data.shape == grid.shape
    assert "sub-01: sub-01_T2w.nii.gz resampled by header (linear) from shape (30, 30, 30)" in caplog.text


def _reference(tmp_path: Path, scan: np.ndarray, affine: np.ndarray, codes: tuple[int, int]) -> Path:
    image = nib.Nifti1Image(scan, affine)
    image.set_sform(affine if codes[1] else None, codes[1])
    image.set_qform(affine, codes[0])
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "ref.nii.gz")
    return tmp_path / "ref.nii.gz"


@pytest.mark.parametrize("codes", [(1, 1), (0, 4), (2, 0), (1, 3), (0, 0)])
def test_labels_are_written_on_the_reference_grid_bit_for_bit(
    tmp_path: Path, scan: np.ndarray, labels: np.ndarray, affine_oblique: np.ndarray, codes: tuple[int, int]
) -> None:
    reference = _reference(tmp_path, scan, affine_oblique, codes)
    nifti.write_labels(tmp_path / "out/a_dseg.nii.gz", labels, reference)
    written, expected = nib.load(tmp_path / "out/a_dseg.nii.gz"), nib.load(reference)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels)
    np.testing.assert_array_equal(written.affine, expected.affine)
    for field in GEOMETRY:
        np.testing.assert_array_equal(written.header[field], expected.header[field])
    assert written.get_data_dtype() == np.uint8


def test_qform_and_sform_that_differ_are_both_kept(
    tmp_path: Path, scan: np.ndarray, labels: np.ndarray
) -> None:
    image = nib.Nifti1Image(scan, np.eye(4))
    image.set_sform(np.diag([2.0, 2, 2, 1]), 4)
    image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    nib.save(image, tmp_path / "ref.nii.gz")
    nifti.write_labels(tmp_path / "a.nii.gz", labels, tmp_path / "ref.nii.gz")
    written = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(written.get_sform(), np.diag([2.0, 2, 2, 1]))
    np.testing.assert_array_equal(written.get_qform(), np.diag([-1.0, 1, 1, 1]))


def test_probabilities_have_a_fourth_axis(tmp_path: Path, t1w: Path) -> None:
    probabilities = np.random.default_rng(0).random((20, 24, 18, 4), np.float32)
    nifti.write_probabilities(tmp_path / "a_probseg.nii.gz", probabilities, t1w)
    written = nib.load(tmp_path / "a_probseg.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), probabilities)
    np.testing.assert_array_equal(written.affine, nib.load(t1w).affine)


def test_nifti2_reference_gives_nifti2(tmp_path: Path, scan: np.ndarray, labels: np.ndarray) -> None:
    affine = np.diag([0.1, 0.2, 0.3, 1.0])
    nib.save(nib.Nifti2Image(scan, affine), tmp_path / "ref.nii.gz")
    nifti.write_labels(tmp_path / "a.nii.gz", labels, tmp_path / "ref.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii.gz").affine, affine)


def test_analyze_reference_keeps_shape_and_affine(iseg: Path, tmp_path: Path, labels: np.ndarray) -> None:
    """Invariant 9: (x, y, z, 1) out, on the geometry of T1."""
    reference = iseg / "iSeg-2017-Training/subject-1-T1.hdr"
    nifti.write_labels(tmp_path / "a.nii.gz", labels, reference)
    written, expected = nib.load(tmp_path / "a.nii.gz"), nib.load(reference)
    assert written.shape == expected.shape == (20, 24, 18, 1)
    np.testing.assert_allclose(written.affine, expected.affine)
    assert (written.header["sform_code"], written.header["qform_code"]) == (1, 1)


def test_result_of_another_shape_is_refused(tmp_path: Path, t1w: Path) -> None:
    with pytest.raises(GridError, match=r"shape \(18, 24, 20\); sub-01_T1w\.nii\.gz has \(20, 24, 18\)"):
        nifti.write_labels(tmp_path / "out/a.nii.gz", np.zeros((18, 24, 20), np.uint8), t1w)
    assert not (tmp_path / "out").exists()


def test_file_that_reads_back_otherwise_is_refused_and_removed(
    tmp_path: Path, t1w: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = nib.Nifti1Image(np.zeros_like(labels), np.eye(4)).to_bytes()

    def write_other(image: nib.Nifti1Image, stream: object) -> None:
        stream.write(other)

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", write_other)
    with pytest.raises(
        OutputError, match=r"a\.nii\.gz reads back otherwise.*affine, voxels differ.*Check the disk"
    ):
        nifti.write_labels(tmp_path / "out/a.nii.gz", labels, t1w)
    assert list((tmp_path / "out").iterdir()) == []


def test_interrupted_writing_leaves_no_file(
    tmp_path: Path, t1w: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(image: nib.Nifti1Image, stream: object) -> None:
        stream.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nifti.write_labels(tmp_path / "out/a.nii.gz", labels, t1w)
    assert list((tmp_path / "out").iterdir()) == []


def test_new_file_is_the_same_bytes_every_time(
    tmp_path: Path, scan: np.ndarray, affine_oblique: np.ndarray
) -> None:
    for name in ("a", "b"):
        nifti.save_new(tmp_path / name / "sub-01_T1w.nii.gz", scan, affine_oblique)
    first, second = (tmp_path / name / "sub-01_T1w.nii.gz" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4), "the gzip header holds no time"
    image = nib.load(first)
    np.testing.assert_allclose(image.affine, affine_oblique, atol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms(), (0.9, 1.1, 1.5), rtol=1e-6)
    assert (image.get_data_dtype(), image.header["sform_code"], image.header["qform_code"]) == (
        np.int16,
        1,
        1,
    )


def test_orientation_is_known_from_either_code(tmp_path: Path, scan: np.ndarray, iseg: Path) -> None:
    eye = np.eye(4)
    assert nifti.has_orientation(_reference(tmp_path, scan, eye, (1, 0)))
    assert not nifti.has_orientation(_reference(tmp_path, scan, eye, (0, 0)))
    assert nifti.has_orientation(iseg / "iSeg-2017-Training/subject-1-T1.hdr")
