import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from phantoms import ellipsoid_labels, orthogonal

from medssl.errors import GridError
from medssl.geometry import Grid
from medssl.reporting.contact_sheet import Entry, plot_contact_sheet

SHAPE = (20, 24, 28)
VOXEL = (4, 15, 9)


def entry(affine=None, data=None, voxel=VOXEL, title="1. sub-01"):
    image = np.full(SHAPE, 100.0, np.float32) if data is None else data
    affine = np.diag([2.0, 3.0, 1.5, 1.0]) if affine is None else affine
    return Entry(title, "uncertain at the GM/WM border", image, Grid(image.shape, affine), voxel)


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    return found + [text.get_text() for axis in figure.axes for text in axis.texts]


def rings(figure):
    return [tuple(float(x[0]) for x in axis.lines[0].get_data()) for axis in figure.axes]


def test_every_scan_has_a_row_of_three_slices_with_its_words():
    figure = plot_contact_sheet([entry(), entry(title="2. sub-07")], "a note")
    assert len(figure.axes) == 6
    said = texts(figure)
    assert {"1. sub-01", "2. sub-07"} <= set(said)
    assert any("a note" in text and "radiological" in text for text in said)
    assert [text for text in said if "slice" in text][:3] == [
        "axial, slice 9 of 28",
        "coronal, slice 15 of 24",
        "sagittal, slice 4 of 20",
    ]


def test_the_slices_run_through_the_place_and_the_ring_marks_it():
    data = np.full(SHAPE, 100.0, np.float32)
    data[VOXEL] = 900.0
    figure = plot_contact_sheet([entry(data=data)])
    for axis, (x, y) in zip(figure.axes, rings(figure), strict=True):
        picture = np.asarray(axis.images[0].get_array())[..., 0]
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        _, across, _, up = axis.images[0].get_extent()
        assert picture.max() > 1.5 * np.median(picture)
        assert x == pytest.approx((column + 0.5) * across / picture.shape[1])
        assert y == pytest.approx((row + 0.5) * up / picture.shape[0])


def test_voxel_order_does_not_change_the_page():
    data = ellipsoid_labels(SHAPE).astype(np.float32) * 100
    data[VOXEL] = 900.0
    plain = plot_contact_sheet([entry(data=data)])
    turned = np.flip(data, 0).transpose(2, 0, 1)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 1.5, -2.0, 3.0, 1.0
    affine[0, 3] = 2.0 * (SHAPE[0] - 1)
    other = plot_contact_sheet([entry(affine, turned, (VOXEL[2], SHAPE[0] - 1 - VOXEL[0], VOXEL[1]))])
    assert rings(plain) == rings(other)
    for first, second in zip(plain.axes, other.axes, strict=True):
        assert np.array_equal(first.images[0].get_array(), second.images[0].get_array())


def test_an_oblique_scan_can_be_rendered(affine_oblique):
    figure = plot_contact_sheet([entry(orthogonal(affine_oblique, (2.0, 1.8, 2.2)))])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba())[..., 3].any()


@pytest.mark.parametrize("voxel", [(20, 0, 0), (0, -1, 0)])
def test_a_place_outside_is_refused(voxel):
    with pytest.raises(GridError, match=r"sub-01.*voxel inside"):
        plot_contact_sheet([entry(voxel=voxel)])
