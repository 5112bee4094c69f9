import numpy as np
import pytest
from monai.transforms import Compose

from medssl.transforms import CropDataset
from medssl.transforms.order import shuffled, shuffled_by_class


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_every_pass_takes_each_place_once_in_an_order_of_its_own(size):
    places = shuffled(range(3 * size), size, 4, 0).reshape(3, size)
    assert (np.sort(places) == np.arange(size)).all()
    assert size < 7 or len({tuple(turn) for turn in places.tolist()}) == 3


def test_the_order_is_the_permutation_of_key_and_pass():
    for number in (0, 6, 7, 20, 699):
        turn, place = divmod(number, 7)
        expected = np.random.default_rng((5, 0, turn)).permutation(7)[place]
        assert shuffled([number], 7, 5, 0).tolist() == [expected]


def test_a_place_depends_on_its_number_alone():
    whole = shuffled(range(100), 13, 3)
    assert shuffled([57, 4, 99], 13, 3).tolist() == whole[[57, 4, 99]].tolist()
    assert (shuffled(range(100), 13, 2) != whole).any()


def test_crops_are_drawn_in_the_same_order():
    """One rule: subject and image numbers come from the same function."""
    dataset = CropDataset([{"image": n} for n in range(5)], dict, Compose([]), length=20, seed=9, keys=())
    subjects = [dataset._subject(number)["image"] for number in range(20)]
    assert subjects == shuffled(range(20), 5, 9, 0).tolist()


LABEL = np.array([2] * 11 + [0] * 2 + [5] * 4)


def test_classes_are_drawn_equally_often():
    drawn = LABEL[shuffled_by_class(range(30), LABEL, 1, 3)].reshape(10, 3)
    assert (np.sort(drawn) == [0, 2, 5]).all()
    assert len({tuple(turn) for turn in drawn.tolist()}) > 1


@pytest.mark.parametrize(("name", "size"), [(0, 2), (2, 11), (5, 4)])
def test_a_class_goes_through_its_images_in_passes(name, size):
    places = shuffled_by_class(range(3 * 22), LABEL, 1, 3)
    own = places[LABEL[places] == name]
    passes = own[: size * (len(own) // size)].reshape(-1, size)
    assert (np.sort(passes) == np.flatnonzero(name == LABEL)).all()


def test_classes_of_one_size_have_orders_of_their_own():
    label = np.repeat([0, 1], 20)
    places = shuffled_by_class(range(40), label, 1, 3)
    assert (places[label[places] == 0] != places[label[places] == 1] - 20).any()


def test_balanced_places_depend_on_their_numbers_alone():
    whole = shuffled_by_class(range(60), LABEL, 1, 3)
    assert shuffled_by_class([41, 3, 17], LABEL, 1, 3).tolist() == whole[[41, 3, 17]].tolist()
    assert (shuffled_by_class(range(60), LABEL, 2, 3) != whole).any()


def test_one_class_is_an_order_of_its_own():
    assert sorted(shuffled_by_class(range(4), np.zeros(4, np.int64), 1).tolist()) == [0, 1, 2, 3]
