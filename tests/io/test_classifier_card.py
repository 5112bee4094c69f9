import pytest
import torch
from image_trees import write_tree

from medssl.errors import CheckpointError, ConfigError
from medssl.io.checkpoint import ModelCard, card_of, load_weights, read_checkpoint, start_from, temperature_of
from medssl.io.classifier_card import ClassifierCard, classifier_card_of
from medssl.io.image_cohort import class_names
from medssl.labels import BRAIN_TISSUES

FACTS = {
    "classes": ("zoster", "akne", "Größe 2"),
    "network": {"name": "vgg-small-28", "in_channels": 1, "sizes": (28, 28)},
    "size": 28,
    "channels": 1,
    "interpolation": "bilinear",
}
CARD = ClassifierCard(**FACTS, temperature=1.5, extra={"seed": 3})


def network(outputs=3):
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.Linear(3, outputs))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(CARD.attached_to(network().state_dict()), path)
    return path


def test_the_card_travels_in_a_flat_state_dict(weights):
    content = read_checkpoint(weights)
    assert list(content) == list(network().state_dict())
    assert classifier_card_of(content) == CARD
    assert card_of(content) is None


def test_the_order_of_classes_survives_saving_whatever_the_folders_are(weights, tmp_path):
    """D15: the order is read from the file, never derived from names or folders."""
    write_tree(tmp_path / "data", {"train/akne": 1, "train/Größe 2": 1, "train/zoster": 1})
    found = classifier_card_of(read_checkpoint(weights))
    assert found.classes == ["zoster", "akne", "Größe 2"]
    assert class_names(tmp_path / "data") != found.classes
    assert set(class_names(tmp_path / "data")) == set(found.classes)


def test_everything_else_survives_too(weights):
    found = classifier_card_of(read_checkpoint(weights))
    assert (found.temperature, found.extra, found.network["sizes"]) == (1.5, {"seed": 3}, [28, 28])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ("akne", "zoster", "Größe 2")}, "list of classes, in this order"),
        ({"classes": ("akne", "zoster")}, "list of classes"),
        ({"network": {"name": "resnet18"}}, "network is"),
        ({"size": 32}, "input size in pixels is 28, expected 32"),
        ({"channels": 3}, "number of channels"),
        ({"interpolation": "nearest"}, "interpolation"),
    ],
)
def test_another_card_is_refused(weights, change, words):
    other = ClassifierCard(**FACTS | change)
    with pytest.raises(CheckpointError, match=words):
        other.load_state_dict(CARD.state_dict())
    with pytest.raises(CheckpointError, match=words):
        load_weights(network(len(other.classes)), weights, other)


def test_temperature_and_extra_may_differ(weights):
    ClassifierCard(**FACTS).load_state_dict(CARD.state_dict())
    load_weights(network(), weights, ClassifierCard(**FACTS))


def test_a_start_leaves_out_the_head_of_other_classes(weights):
    """The same number of classes in another order is another head."""
    other = ClassifierCard(**FACTS | {"classes": ("akne", "zoster", "Größe 2")})
    fresh = network()
    assert start_from(fresh, str(weights), other) == ["1.weight", "1.bias"]
    assert torch.equal(fresh[0].weight, read_checkpoint(weights)["0.weight"])
    assert start_from(fresh, str(weights), CARD) == []


def test_a_start_from_other_channels_or_another_task_is_refused(weights):
    with pytest.raises(CheckpointError, match="trained on 1 channels; this run has 3 channels"):
        start_from(network(), str(weights), ClassifierCard(**FACTS | {"channels": 3}))
    with pytest.raises(CheckpointError, match="carries a ClassifierCard; expected a ModelCard"):
        load_weights(network(), weights, ModelCard(("T1w",), BRAIN_TISSUES.rows(), (1, 1, 1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ("a",)}, "expected 2 to 255 different names"),
        ({"classes": ("a", "a")}, "expected 2 to 255 different names"),
        ({"temperature": 0}, "temperature of a classifier is 0"),
        ({"temperature": float("nan")}, "temperature of a classifier is nan"),
        ({"extra": {"score": float("nan")}}, "extra of a classifier's card holds what JSON has no name for"),
        ({"network": {"build": torch.nn.Linear}}, "network of a classifier's card"),
    ],
)
def test_a_card_that_cannot_be_kept_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        ClassifierCard(**FACTS | change)


def test_a_card_of_a_newer_version_is_refused():
    state = {"json": CARD.state_dict()["json"].replace('"format": 2', '"format": 3')}
    with pytest.raises(CheckpointError, match="has format 3; this version of medssl reads 2"):
        CARD.load_state_dict(state)


def test_the_temperature_is_read_from_the_weights_alone(tmp_path):
    assert temperature_of(tmp_path / "none.pt") == 1
    torch.save({"weight": torch.zeros(1)}, tmp_path / "plain.pt")
    assert temperature_of(tmp_path / "plain.pt") == 1
    card = ClassifierCard(**FACTS | {"temperature": 2.5})
    torch.save(card.attached_to({"weight": torch.zeros(1)}), tmp_path / "model.pt")
    assert temperature_of(tmp_path / "model.pt") == 2.5
