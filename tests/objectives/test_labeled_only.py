import torch

from medssl.labels import UNKNOWN
from medssl.objectives import LabeledOnly, SupervisedLoss


def test_it_is_the_supervised_loss(case):
    output = LabeledOnly()(case.network, case.only("image", "label"))
    scores, label = case.network(case.batch["image"]), case.batch["label"]
    known = torch.where(label < case.first, UNKNOWN, label)
    assert torch.equal(output["loss"], SupervisedLoss()(scores, known))
    assert torch.equal(output["pred"], scores)


def test_it_does_not_look_at_unlabeled_crops(case):
    alone = LabeledOnly()(case.network, case.only("image", "label"))
    case.unlabeled["strong"] = torch.full_like(case.unlabeled["strong"], torch.nan)
    beside = LabeledOnly()(case.network, case.batch)
    assert set(beside) == {"pred", "loss", "loss_labeled", "n_labeled"}
    assert all(torch.equal(alone[name], beside[name]) for name in alone)
