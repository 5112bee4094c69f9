import zipfile
from dataclasses import replace

import numpy as np
import pytest
from registered import QUICK, SIDE, anatomy, dice, intensities, positions, scan
from scipy import ndimage

from medssl.errors import RegistrationError
from medssl.geometry import Grid
from medssl.registration import Registration, RegistrationSettings, Scan, pairwise, register
from medssl.registration.scan import to_array

AFFINE_ONLY = RegistrationSettings(deformation="none")


def _identity(displacement, matrix=None):
    grid = Grid(displacement.shape[1:], np.eye(4))
    matrix = np.eye(4) if matrix is None else matrix
    return Registration(grid, grid, matrix, displacement.astype(np.float16), grid, 1.0, 1.0)


def _reference_folding(displacement):
    """Central differences inside, one-sided at the rim, voxel by voxel."""
    u = displacement.astype(np.float64)
    folded = []
    for place in np.ndindex(u.shape[1:]):
        jacobian = np.eye(3)
        for axis in range(3):
            low, high = list(place), list(place)
            low[axis], high[axis] = max(0, place[axis] - 1), min(u.shape[axis + 1] - 1, place[axis] + 1)
            jacobian[:, axis] += (u[(slice(None), *high)] - u[(slice(None), *low)]) / (high[axis] - low[axis])
        folded.append(np.linalg.det(jacobian) <= 0)
    return np.mean(folded)


@pytest.fixture(scope="module")
def pair():
    """Two subjects: another place and size, and a bend that no affine transform takes out."""
    fixed, moving = anatomy(), anatomy((10.0, 13.0, 11.0), (6.0, 8.5, 7.0), bend=2.5)
    return fixed, moving, register(scan(fixed), scan(moving, seed=1), QUICK)


def test_known_affine_is_found_again():
    labels = anatomy()
    known = np.eye(4)
    known[:3, :3] = np.diag([1.08, 0.94, 1.05])
    known[:3, 3] = (-1.5, 2.0, -1.0)
    image = intensities(labels)
    inverse = np.linalg.inv(known)
    moved = ndimage.affine_transform(image, inverse[:3, :3], inverse[:3, 3], order=1, mode="nearest")
    found = register(Scan(image[None], np.eye(4)), Scan(moved[None], np.eye(4)), AFFINE_ONLY)
    corners = np.concatenate([np.array(np.nonzero(labels)), np.ones((1, np.count_nonzero(labels)))])
    assert np.abs((found.matrix - known) @ corners).max() < 0.5
    assert not found.displacement.any()


def test_deformation_beats_affine_and_does_not_fold(pair):
    fixed, moving, deformed = pair
    affine = register(scan(fixed), scan(moving, seed=1), AFFINE_ONLY)
    scores = [
        [dice(one.warp_labels(moving, 3).argmax(0), fixed, k) for k in (1, 2)] for one in (affine, deformed)
    ]
    assert np.mean(scores[1]) > np.mean(scores[0]) + 0.03
    assert deformed.folding == 0
    assert deformed.similarity > affine.similarity


@pytest.mark.parametrize(("deformation", "iterations"), [("diffeomorphic", (15, 10)), ("bspline", (5,))])
def test_other_deformations_match_better_than_affine_too(pair, deformation, iterations):
    fixed, moving, _ = pair
    settings = [AFFINE_ONLY, RegistrationSettings(deformation=deformation, iterations=iterations)]
    found = [register(scan(fixed), scan(moving, seed=1), one) for one in settings]
    assert found[1].similarity > found[0].similarity + 0.01
    assert found[1].folding == 0


def test_same_inputs_same_result_bit_for_bit(pair):
    fixed, moving, first = pair
    second = register(scan(fixed), scan(moving, seed=1), QUICK)
    np.testing.assert_array_equal(first.displacement, second.displacement)
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert first.displacement.any()


def test_other_voxel_order_of_the_atlas_changes_next_to_nothing(pair):
    fixed, moving, plain = pair
    flip = np.array([[0, -1.0, 0, SIDE - 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = intensities(moving, seed=1).transpose(1, 0, 2)[:, ::-1]
    turned = Scan(np.ascontiguousarray(image)[None], flip)
    found = register(scan(fixed), turned, QUICK)
    label = moving.transpose(1, 0, 2)[:, ::-1]
    difference = np.abs(found.warp_labels(label, 3) - plain.warp_labels(moving, 3))
    assert difference.mean() < 2e-3


def test_second_contrast_shows_what_the_first_does_not():
    fixed, moving = anatomy(), anatomy()
    moving[moving == 2] = 1
    moving[np.sum((positions() - np.reshape((12.2, 11.0, 12.0), (3, 1, 1, 1))) ** 2, 0) < 10] = 2

    def both(labels, seed):
        blind, clear = intensities(labels, (10.0, 80.0, 80.0), seed), intensities(labels, seed=seed)
        return Scan(np.stack([blind, clear]), np.eye(4))

    one, two = both(fixed, 0), both(moving, 1)
    scores = []
    for contrasts in (slice(0, 1), slice(0, 2)):
        found = register(
            Scan(one.image[contrasts], one.affine), Scan(two.image[contrasts], two.affine), QUICK
        )
        scores.append(dice(found.warp_labels(moving, 3).argmax(0), fixed, 2))
    assert scores[1] > scores[0] + 0.02


def test_masked_scans_start_from_their_masks():
    fixed, moving = anatomy(), np.roll(anatomy(), (-4, 4, 5), (0, 1, 2))
    scans = [
        Scan(intensities(labels)[None] * (labels > 0), np.eye(4), labels > 0) for labels in (fixed, moving)
    ]
    centered = RegistrationSettings(affine=False, deformation="none")
    found = register(*scans, centered)
    np.testing.assert_allclose(found.matrix[:3, 3], (-4, 4, 5), atol=1e-3)
    assert found.overlap > 0.95


def test_labels_are_shares_that_sum_to_one_where_the_atlas_reaches():
    shift = np.eye(4)
    shift[0, 3] = 2.5
    label = np.zeros((8, 8, 8), np.uint8)
    label[4:] = 1
    label[0] = 255
    found = _identity(np.zeros((3, 8, 8, 8)), shift).warp_labels(label, 2)
    assert found.shape == (2, 8, 8, 8)
    np.testing.assert_allclose(found[:, 1, 4, 4], (0.5, 0.5))
    np.testing.assert_allclose(found[:, :5].sum(0), 1)
    np.testing.assert_array_equal(found[:, 6:], 0)
    unknown = _identity(np.zeros((3, 8, 8, 8))).warp_labels(label, 2)
    np.testing.assert_array_equal(unknown[:, 0], 0)


def test_displacement_is_in_mm_along_ras():
    grid = Grid((8, 8, 8), np.diag([2.0, 2.0, 2.0, 1.0]))
    u = np.zeros((3, 8, 8, 8))
    u[1] = 4.0
    image = np.arange(512, dtype=np.float32).reshape(8, 8, 8)
    found = Registration(grid, grid, np.eye(4), u.astype(np.float16), grid, 1.0, 1.0).warp_image(image)
    np.testing.assert_array_equal(found[:, :6], image[:, 2:])


def test_folding_equals_the_naive_loop():
    rng = np.random.default_rng(0)
    u = ndimage.gaussian_filter(rng.normal(0, 6, (3, 7, 8, 6)), (0, 1, 1, 1)).astype(np.float16)
    found = _identity(u).folding
    assert 0 < found < 1
    assert found == pytest.approx(_reference_folding(u))


def test_saved_registration_is_the_same_and_holds_no_path(pair, tmp_path):
    _, moving, made = pair
    replace(made, key="abc").save(tmp_path / "pair.npz")
    read = Registration.load(tmp_path / "pair.npz")
    np.testing.assert_array_equal(read.warp_labels(moving, 3), made.warp_labels(moving, 3))
    assert (read.key, read.folding, read.overlap, read.similarity) == (
        "abc",
        made.folding,
        made.overlap,
        made.similarity,
    )
    assert Registration.key_of(tmp_path / "pair.npz") == "abc"
    with zipfile.ZipFile(tmp_path / "pair.npz") as archive:
        assert not any(str(tmp_path).encode() in archive.read(name) for name in archive.namelist())


@pytest.mark.parametrize("content", [None, b"", b"PK no archive", b"numbers"])
def test_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "pair.npz"
    if content is not None:
        path.write_bytes(content)
    assert Registration.key_of(path) is None
    with pytest.raises(RegistrationError, match=r"pair\.npz"):
        Registration.load(path)


def test_array_of_another_grid_is_refused(pair):
    with pytest.raises(RegistrationError, match=r"\(24, 24, 24\)"):
        pair[2].warp_labels(np.zeros((24, 24, 23)), 3)


def test_other_contrasts_are_refused():
    one = scan(anatomy())
    two = Scan(np.concatenate([one.image, one.image]), np.eye(4))
    with pytest.raises(RegistrationError, match="1 contrasts, the moving one 2"):
        register(one, two, QUICK)


def test_too_little_overlap_is_refused():
    labels = anatomy()
    corner = np.zeros(labels.shape, bool)
    corner[8:14, 8:14, 8:14] = True
    with pytest.raises(RegistrationError, match="covers"):
        register(scan(labels), scan(labels, mask=corner), RegistrationSettings(affine=False))


@pytest.mark.parametrize(("masked", "smooth"), [(False, 2), (True, 3)])
def test_scans_that_only_folding_makes_alike_are_refused(masked, smooth):
    rng = np.random.default_rng(0)
    noises = (rng.normal(size=(36, 50, 36)) for _ in "ab")
    one, two = (ndimage.gaussian_filter(noise, smooth).astype(np.float32) for noise in noises)
    mask = np.pad(np.ones((32, 46, 32), bool), 2) if masked else None
    with pytest.raises(
        RegistrationError, match=r"The registration failed.* are folded .*same part of the body"
    ):
        register(*(Scan(1 + (noise - noise.min())[None], np.eye(4), mask) for noise in (one, two)))


def test_scans_without_masks_that_stay_unlike_are_refused(monkeypatch):
    """With masks they may: brains that belong together need not look alike inside."""
    monkeypatch.setattr(pairwise, "similarity", lambda *_: 0.1)
    inside = anatomy() > 0
    register(scan(anatomy(), mask=inside), scan(anatomy(), mask=inside), QUICK)
    with pytest.raises(RegistrationError, match=r"similarity of 0\.10 \(at least 0\.2"):
        register(Scan(intensities(anatomy())[None], np.eye(4)), scan(anatomy()), QUICK)


def test_constant_image_is_refused():
    flat = Scan(np.ones((1, 12, 12, 12), np.float32), np.eye(4))
    with pytest.raises(RegistrationError, match="constant"):
        register(flat, flat, QUICK)


def test_what_itk_gives_up_on_is_an_error_of_ours():
    thin = Scan(intensities(anatomy())[None, :, :, :1], np.eye(4))
    with pytest.raises(RegistrationError, match="could not be registered"):
        register(scan(anatomy()), thin, QUICK)


@pytest.mark.parametrize(
    ("told", "for_good"),
    [
        ("itk::ERROR: Failed to allocate memory for image.\nSee above.", False),
        ("std::bad_alloc", False),
        ("itk::ERROR: All samples map outside the moving image buffer.", True),
    ],
)
def test_only_a_lack_of_memory_may_be_over_the_next_time(monkeypatch, told, for_good):
    def gives_up(*_):
        raise RuntimeError(told)

    monkeypatch.setattr(pairwise, "_registered", gives_up)
    with pytest.raises(RegistrationError) as caught:
        register(scan(anatomy()), scan(anatomy()), QUICK)
    assert pairwise.fails_for_good(caught.value) is for_good


def test_smoothing_follows_the_direction_of_each_voxel_axis():
    """Voxel axes need not run along R, A, S."""
    image = intensities(anatomy())
    turned_affine = np.zeros((4, 4))
    turned_affine[2, 0], turned_affine[0, 1], turned_affine[1, 2], turned_affine[3, 3] = 2, 1, 1, 1
    ras = Scan(image[None], np.diag([1.0, 1.0, 2.0, 1.0]))
    turned = Scan(np.ascontiguousarray(image.transpose(2, 0, 1))[None], turned_affine)
    grid = Grid((8, 24, 24), np.diag([3.0, 1.0, 2.0, 1.0]))  # coarser than the scan along R alone
    (one,), (two,) = (pairwise._images(scan, grid) for scan in (ras, turned))
    np.testing.assert_allclose(to_array(two).transpose(1, 2, 0), to_array(one), atol=1e-5)


def test_similarity_is_read_without_the_transform(tmp_path):
    scan = Scan(intensities(anatomy())[None], np.eye(4))
    found = register(scan, scan, RegistrationSettings(affine=False, deformation="none"))
    found.save(tmp_path / "pair.npz")
    assert Registration.similarity_of(tmp_path / "pair.npz") == found.similarity
    (tmp_path / "pair.npz").write_bytes(b"half a file")
    with pytest.raises(RegistrationError, match="no registration that can be read"):
        Registration.similarity_of(tmp_path / "pair.npz")
