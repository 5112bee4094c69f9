import os

import numpy as np
import pytest
import torch

from medssl.errors import ConfigError, InputError, OutputError
from medssl.transforms import ImagePool, image_preprocessing
from medssl.transforms.image_pool import EvenSamples

PREPARE = image_preprocessing(4, 1)


@pytest.fixture
def data(tmp_path):
    """Seven images; image n is full of the value n."""
    entries = []
    for number in range(7):
        path = tmp_path / "data" / f"bild ä {number}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.full((5, 6, 1), number, np.uint8))
        entries.append({"image": str(path), "name": path.stem, "label": number % 3})
    return entries


def _tree(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("workers", [1, 4, None])
def test_images_are_kept_in_the_order_of_the_list(data, workers):
    pool = ImagePool(data, np.load, PREPARE, workers=workers)
    assert pool.images.shape == (7, 1, 4, 4)
    assert pool.images.dtype == torch.uint8
    assert pool.images[:, 0, 0, 0].tolist() == list(range(7))
    assert pool.label.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert pool.label.dtype == torch.int64
    assert pool.weight.tolist() == [1] * 7
    assert pool.weight.dtype == torch.float32
    assert pool.targets is None
    assert len(pool) == 7


def test_the_digest_knows_pixels_labels_and_order(data):
    def digest(*entries):
        return ImagePool(entries, np.load, PREPARE).digest()

    first = digest(*data)
    assert digest(*data) == first
    assert digest(*data[::-1]) != first
    assert digest(*data[:-1], {**data[-1], "label": 2}) != first
    np.save(data[0]["image"], np.full((5, 6, 1), 9, np.uint8))
    assert digest(*data) != first
    assert len(digest()) == len(first)


def test_what_an_image_lacks_is_unknown_or_one(data):
    data[0] = {"image": data[0]["image"]}
    data[1]["weight"] = 0.25
    pool = ImagePool(data, np.load, PREPARE)
    assert pool.label.tolist()[:2] == [255, 1]
    assert pool.weight.tolist()[:3] == [1, 0.25, 1]


def test_images_come_out_between_0_and_1(data):
    """D11: 8 bits divided by 255 and nothing else; normalization belongs to the network."""
    pool = ImagePool(data, lambda path: 40 * np.load(path), PREPARE)
    images = pool.at(torch.tensor([6, 0, 3]))
    assert images.dtype == torch.float32
    assert images[:, 0, 0, 0].tolist() == pytest.approx([240 / 255, 0, 120 / 255])


@pytest.mark.parametrize(("samples", "places"), [(3, [0, 2, 4]), (7, [*range(7)]), (99, [*range(7)])])
def test_some_images_are_spread_over_the_pool(data, samples, places):
    pool = ImagePool(data, np.load, PREPARE)
    some = list(EvenSamples(pool, samples))
    assert [float(one["image"][0, 0, 0]) * 255 for one in some] == pytest.approx(places)
    assert [one["label"].tolist() for one in some] == [[place % 3] for place in places]
    assert some[0]["image"].shape == (1, 4, 4)
    assert some[0]["mask"].tolist() == [1]


def test_an_empty_pool_has_no_samples():
    some = EvenSamples(ImagePool([], np.load, PREPARE), 4)
    assert not list(some)
    assert not some.cache


def test_progress_is_told_image_by_image(data):
    told = []
    ImagePool(data, np.load, PREPARE, prepared=lambda *numbers: told.append(numbers))
    assert told == [(done, 7) for done in range(1, 8)]


def test_all_unreadable_images_are_named_in_one_error(data, tmp_path):
    unreadable = InputError("It is a poem.", "Bring a picture.")

    def read(path):
        if path.stem.endswith("3"):
            raise unreadable
        return np.load(path)

    data[1]["image"] = str(tmp_path / "missing.npy")
    told = []
    with pytest.raises(InputError) as caught:
        ImagePool(data, read, PREPARE, prepared=lambda *numbers: told.append(numbers))
    text = str(caught.value)
    assert text.startswith("2 of 7 images cannot be used")
    assert text.count("missing.npy") == 1
    assert "bild ä 3.npy: It is a poem." in text
    assert told[-1] == (7, 7)


def test_a_long_list_is_cut(data):
    with pytest.raises(InputError, match=r"20 of 20 images .* and 10 more"):
        ImagePool(data[:1] * 20, lambda path: np.zeros((3, 3)), PREPARE)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda image: torch.zeros(1, 2 + int(image.max()) // 6, 4, dtype=torch.uint8),
        lambda image: torch.zeros(1, 2, 4) if image.max() == 6 else torch.zeros(1, 2, 4, dtype=torch.uint8),
    ],
)
def test_images_of_another_shape_or_type_are_refused(data, prepare):
    with pytest.raises(InputError, match=r"1 of 7 .* 6\.npy: prepared as .* expected \(1, 2, 4\) uint8"):
        ImagePool(data, np.load, prepare)


def test_mistakes_in_the_code_are_not_taken_for_bad_images(data):
    def read(path):
        raise KeyError(path)

    with pytest.raises(KeyError):
        ImagePool(data, read, PREPARE)


def test_no_images_are_a_pool_of_none():
    pool = ImagePool([], np.load, PREPARE)
    assert len(pool) == len(pool.images) == len(pool.label) == 0


def test_many_images_go_into_a_file_that_is_used_again(data, tmp_path):
    cache = tmp_path / "a" / "cache"
    options = {"cache": str(cache), "memory_limit": 7 * 16 - 1}
    before = _tree(tmp_path / "data")
    first = ImagePool(data, np.load, PREPARE, **options)
    in_memory = ImagePool(data, np.load, PREPARE, memory_limit=7 * 16)
    assert torch.equal(first.images, in_memory.images)
    assert len(_tree(cache)) == 1
    assert _tree(tmp_path / "data") == before

    def never(path):
        raise AssertionError(path)

    told = []
    again = ImagePool(data, never, PREPARE, **options, prepared=lambda *numbers: told.append(numbers))
    assert torch.equal(again.images, first.images)
    assert again.label.tolist() == first.label.tolist()
    assert told == [(7, 7)]


def test_few_images_need_no_file(data, tmp_path):
    ImagePool(data, np.load, PREPARE, cache=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_changed_file_list_or_step_is_prepared_anew(data, tmp_path):
    options = {"cache": str(tmp_path / "cache"), "memory_limit": 0}
    ImagePool(data, np.load, PREPARE, **options)
    ImagePool(data, np.load, image_preprocessing(5, 1), **options)
    ImagePool(data[:-1], np.load, PREPARE, **options)
    ImagePool(data[::-1], np.load, PREPARE, **options)
    assert len(_tree(tmp_path / "cache")) == 4
    np.save(data[2]["image"], np.full((5, 6, 1), 200, np.uint8))
    os.utime(data[2]["image"], (1, 1))
    assert ImagePool(data, np.load, PREPARE, **options).images[2].max() == 200
    assert len(_tree(tmp_path / "cache")) == 5


def test_labels_are_not_part_of_the_file(data, tmp_path):
    options = {"cache": str(tmp_path / "cache"), "memory_limit": 0}
    ImagePool(data, np.load, PREPARE, **options)
    relabeled = [{**entry, "label": 2} for entry in data]
    assert ImagePool(relabeled, np.load, PREPARE, **options).label.tolist() == [2] * 7
    assert len(_tree(tmp_path / "cache")) == 1


@pytest.mark.parametrize("error", [InputError, KeyError, KeyboardInterrupt])
def test_nothing_half_written_is_left(data, tmp_path, error):
    def read(path):
        if path.stem.endswith("5"):
            raise error(path)
        return np.load(path)

    with pytest.raises(error):
        ImagePool(data, read, PREPARE, cache=str(tmp_path / "cache"), memory_limit=0, workers=1)
    assert _tree(tmp_path / "cache") == []


def test_what_is_written_to_the_tensor_does_not_reach_the_file(data, tmp_path):
    options = {"cache": str(tmp_path / "cache"), "memory_limit": 0}
    ImagePool(data, np.load, PREPARE, **options).images.fill_(99)
    assert ImagePool(data, np.load, PREPARE, **options).images.max() == 6


def test_too_many_images_without_a_folder_for_them_are_refused(data):
    with pytest.raises(ConfigError, match=r"7 images of \(1, 4, 4\) .* Name a folder"):
        ImagePool(data, np.load, PREPARE, memory_limit=50)


def test_a_step_without_a_telling_text_cannot_name_a_file(data, tmp_path):
    def prepare(image):
        return PREPARE(image)

    assert len(ImagePool(data, np.load, prepare)) == 7
    with pytest.raises(ConfigError, match="does not say what it does"):
        ImagePool(data, np.load, prepare, cache=str(tmp_path))


def test_a_folder_that_cannot_be_written_to_is_named(data, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cache"):
        ImagePool(data, np.load, PREPARE, cache=str(tmp_path / "cache"), memory_limit=0)
