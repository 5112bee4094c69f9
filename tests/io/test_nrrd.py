import nibabel as nib
import numpy as np
import pytest

from medssl.errors import InputError
from medssl.geometry import Grid
from medssl.io.nifti import read_grid
from medssl.io.nrrd import is_nrrd, nrrd_to_nifti, write_labels_nrrd


def test_voxels_and_affine_survive_the_way_there_and_back(tmp_path, affine_oblique):
    values = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    grid = Grid(values.shape, affine_oblique)
    write_labels_nrrd(tmp_path / "x.nrrd", values, grid)
    nrrd_to_nifti(tmp_path / "x.nrrd", tmp_path / "x.nii.gz")
    assert np.array_equal(np.asarray(nib.load(tmp_path / "x.nii.gz").dataobj), values)
    assert grid.difference(read_grid(tmp_path / "x.nii.gz", "x")) is None


def test_the_space_is_written_as_viewers_read_it(tmp_path):
    values = np.zeros((2, 3, 4), np.uint8)
    affine = np.diag([2.0, 3, 4, 1])
    affine[:3, 3] = (10, 20, 30)
    write_labels_nrrd(tmp_path / "x.nrrd", values, Grid(values.shape, affine))
    head = (tmp_path / "x.nrrd").read_bytes().split(b"\n\n")[0].decode()
    assert "space: left-posterior-superior" in head
    assert "space origin: (-10,-20,30)" in head
    assert "sizes: 2 3 4" in head


def test_damaged_files_and_those_of_other_dimensions_are_refused(tmp_path):
    import SimpleITK as sitk  # noqa: N813

    (tmp_path / "bad.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(InputError, match="no readable"):
        nrrd_to_nifti(tmp_path / "bad.nrrd", tmp_path / "x.nii.gz")
    four = sitk.GetImageFromArray(np.zeros((2, 2, 2, 3), np.uint8), isVector=True)
    sitk.WriteImage(four, str(tmp_path / "four.nrrd"))
    with pytest.raises(InputError, match="3 numbers a voxel"):
        nrrd_to_nifti(tmp_path / "four.nrrd", tmp_path / "x.nii.gz")


@pytest.mark.parametrize("field", ["data file", "datafile", "Data File"])
def test_a_header_that_points_to_another_file_is_refused(tmp_path, field):
    (tmp_path / "secret").write_bytes(bytes(8))
    head = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n{field}: secret\n\n"
    (tmp_path / "x.nrrd").write_text(head)
    with pytest.raises(InputError, match="without voxels"):
        nrrd_to_nifti(tmp_path / "x.nrrd", tmp_path / "x.nii.gz")
    assert not (tmp_path / "x.nii.gz").exists()


def test_detached_headers_are_no_nrrd_here(tmp_path):
    assert is_nrrd(tmp_path / "x.NRRD")
    assert not is_nrrd(tmp_path / "x.nhdr")
