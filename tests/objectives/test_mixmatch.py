import copy
import math

import pytest
import torch
from torch import nn

from medssl.functional.mixing import mixup_shares
from medssl.objectives import MixMatch


@pytest.fixture(autouse=True)
def _known_labels(request):
    for name in ("images", "some_images"):
        if name in request.fixturenames:
            request.getfixturevalue(name).batch["label"][2] = 1


def _views(case, count):
    generator = torch.Generator().manual_seed(count)
    brightness = torch.randn(6, count, 2, 1, 1, generator=generator)
    case.unlabeled["views"] = torch.rand(6, count, 2, 6, 5, generator=generator) + brightness


def _probabilities(network, images):
    with torch.no_grad():
        return network(images.double()).softmax(1)


def _naive(case, guesser, temperature, alpha, seed):
    """Return both terms, guess by guess and sample by sample, with the random numbers of a seed."""
    views = case.unlabeled["views"]
    images, targets = list(case.batch["image"].double()), torch.eye(4)[case.batch["label"][:, 0]].tolist()
    labeled, guesses = len(images), []
    together = _probabilities(guesser, views.flatten(0, 1)).unflatten(0, views.shape[:2])
    for some, rows in zip(views, together.tolist(), strict=True):
        guesses.append([sum(row[c] for row in rows) / len(rows) for c in range(4)])
        powers = [value ** (1 / temperature) for value in guesses[-1]]
        images += list(some.double())
        targets += [[power / sum(powers) for power in powers]] * len(some)
    torch.manual_seed(seed)
    partners, shares = torch.randperm(len(images)).tolist(), mixup_shares(len(images), alpha).tolist()
    mixed = [
        b * images[n] + (1 - b) * images[p] for n, (b, p) in enumerate(zip(shares, partners, strict=True))
    ]
    soft = [
        [b * x + (1 - b) * y for x, y in zip(targets[n], targets[p], strict=True)]
        for n, (b, p) in enumerate(zip(shares, partners, strict=True))
    ]
    q = _probabilities(copy.deepcopy(case.network).double(), torch.stack(mixed)).tolist()
    entropies = [-sum(t * math.log(x) for t, x in zip(soft[n], q[n], strict=True)) for n in range(labeled)]
    squares = [(x - t) ** 2 for n in range(labeled, len(q)) for t, x in zip(soft[n], q[n], strict=True)]
    return sum(entropies) / labeled, sum(squares) / len(squares), guesses


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_terms_equal_the_naive_loop_for_any_number_of_views(images, count, taught):
    """D19: also for one view and for three."""
    _views(images, count)
    guesser = images.teacher if taught else images.network
    guesser = copy.deepcopy(guesser).double().train(not taught)
    labeled, unlabeled, guesses = _naive(images, guesser, 0.5, 0.75, seed=6)
    torch.manual_seed(6)
    objective = MixMatch(images.teacher if taught else None, weight=20.0, end=0.0)
    output = objective(images.network, images.batch)
    assert output["loss_labeled"].item() == pytest.approx(labeled, abs=1e-5)
    assert output["loss_unlabeled"].item() == pytest.approx(unlabeled, abs=1e-6)
    assert output["loss"].item() == pytest.approx(labeled + 20 * unlabeled, abs=1e-4)
    assert output["confidence"].item() == pytest.approx(sum(map(max, guesses)) / 6, abs=1e-6)
    assert output["mass"].sum().item() == pytest.approx(6, abs=1e-5)
    assert len(output["pred"]) == 5 + 6 * count


def test_temperature_one_and_alpha_zero_leave_guesses_and_images_alone(some_images):
    some_images.network.eval()
    output = MixMatch(temperature=1.0, alpha=0.0)(some_images.network, some_images.batch)
    images = torch.cat([some_images.batch["image"], some_images.unlabeled["views"].flatten(0, 1)])
    scores = some_images.network(images)
    assert torch.allclose(output["pred"], scores)
    q = scores[5:].softmax(1).view(6, 2, 4)
    expected = (q - q.mean(1, keepdim=True)).square().mean()
    assert output["loss_unlabeled"].item() == pytest.approx(expected.item(), abs=1e-8)
    label = some_images.batch["label"][:, 0]
    assert torch.allclose(output["loss_labeled"], nn.functional.cross_entropy(scores[:5], label))


@pytest.mark.parametrize(
    ("progress", "weight"), [(0.0, 0.0), (0.1, 18.75), (0.2, 37.5), (0.4, 75.0), (1.0, 75.0)]
)
def test_the_weight_rises_from_zero_over_two_fifths_of_the_steps(some_images, progress, weight):
    """D19: a ramp, 0 at the start."""
    output = MixMatch()(some_images.network, {**some_images.batch, "progress": progress})
    assert output["unlabeled_weight"].item() == pytest.approx(weight)
    total = output["loss_labeled"].item() + weight * output["loss_unlabeled"].item()
    assert output["loss"].item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("taught", [False, True])
def test_whole_images_move_batch_norm_once_and_mixed_ones_leave_it_alone(some_images, taught):
    """D19: the running statistics are those of one forward pass over the views, which are not mixed."""
    other = copy.deepcopy(some_images.network)
    seen = []
    some_images.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    MixMatch(some_images.teacher if taught else None)(some_images.network, some_images.batch)
    guessed, _ = seen
    assert torch.equal(guessed, some_images.unlabeled["views"].flatten(0, 1))
    other(guessed)
    for name, value in other.state_dict().items():
        assert torch.equal(some_images.network.state_dict()[name], value), name
    assert all(one.track_running_stats for one in some_images.network.modules() if hasattr(one, "momentum"))


def test_mixed_images_are_normalized_by_their_own_statistics(some_images):
    mixed = []
    some_images.network.register_forward_hook(
        lambda module, inputs, output: mixed.append((inputs[0], output))
    )
    MixMatch()(some_images.network, some_images.batch)
    images, scores = mixed[1]
    assert torch.allclose(copy.deepcopy(some_images.network).train()(images), scores, atol=1e-6)


def test_an_image_alone_is_guessed_with_the_running_statistics(some_images):
    some_images.unlabeled["views"] = some_images.unlabeled["views"][:1, :1]
    before = copy.deepcopy(some_images.network.state_dict())
    guess = MixMatch()._guess(some_images.network, some_images.unlabeled["views"])
    expected = copy.deepcopy(some_images.network).eval()(some_images.unlabeled["views"][0]).softmax(1)
    assert torch.allclose(guess, expected, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in some_images.network.state_dict().items())
    MixMatch()(some_images.network, some_images.batch)  # else nothing would ever move them
    assert any(
        not torch.equal(value, before[name]) for name, value in some_images.network.state_dict().items()
    )


def test_guesses_are_made_without_dropout_and_every_module_gets_its_mode_back(some_images):
    network = nn.Sequential(some_images.network, nn.Dropout(0.5))
    frozen = some_images.network[1].eval()
    objective = MixMatch()
    state = torch.get_rng_state()
    one, two = (objective._guess(network, some_images.unlabeled["views"]) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    assert not one.requires_grad
    assert not frozen.training
    assert all(module.training for module in network.modules() if module is not frozen)


def test_guesses_carry_no_gradient(some_images):
    """The gradient is that of constant targets."""
    views, parameters = some_images.unlabeled["views"], list(some_images.network.parameters())
    objective = MixMatch(end=0.0, alpha=0.0, temperature=1.0)
    guess = objective._guess(some_images.network, views)
    found = torch.autograd.grad(objective(some_images.network, some_images.batch)["loss"], parameters)
    scores = some_images.network(torch.cat([some_images.batch["image"], views.flatten(0, 1)]))
    term = (scores[5:].softmax(1) - guess.repeat_interleave(2, 0)).square().mean()
    loss = nn.functional.cross_entropy(scores[:5], some_images.batch["label"][:, 0]) + 75 * term
    expected = torch.autograd.grad(loss, parameters)
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(found, expected, strict=True))


def test_a_resumed_run_goes_on_bit_for_bit(some_images):
    """Torch's own CPU random numbers are what a resume point holds."""
    network, objective = some_images.network, MixMatch()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)

    def steps(count):
        losses = []
        for _ in range(count):
            optimizer.zero_grad()
            output = objective(network, some_images.batch)
            output["loss"].backward()
            optimizer.step()
            losses.append(output["loss"].item())
        return losses

    torch.manual_seed(3)
    steps(2)
    saved = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    through = steps(3)
    network.load_state_dict(saved[0])
    torch.manual_seed(99)
    torch.set_rng_state(saved[1])
    assert steps(3) == through
    network.load_state_dict(saved[0])
    assert steps(3) != through


def test_either_kind_of_images_makes_a_step(some_images):
    labeled = MixMatch()(some_images.network, some_images.only("image", "label"))
    scores = some_images.network(some_images.batch["image"])
    expected = nn.functional.cross_entropy(scores, some_images.batch["label"][:, 0])
    assert torch.allclose(labeled["loss"], expected)
    assert "loss_unlabeled" not in labeled
    unlabeled = MixMatch()(some_images.network, some_images.only("unlabeled"))
    assert "loss_labeled" not in unlabeled
    assert unlabeled["loss"].item() == pytest.approx(75 * unlabeled["loss_unlabeled"].item())
    unlabeled["loss"].backward()


def test_only_the_loss_and_the_prediction_carry_a_graph(images):
    output = MixMatch()(images.network, images.batch)
    assert {name for name, value in output.items() if value.requires_grad} == {"loss", "pred"}
    names = {"loss_labeled", "loss_unlabeled", "unlabeled_weight", "confidence", "mass"}
    assert set(output) == names | {"loss", "pred", "n_labeled", "n_unlabeled"}
    views = images.batch["unlabeled"]["views"]
    assert output["n_labeled"] == len(images.batch["image"])
    assert output["n_unlabeled"] == views.shape[:2].numel()


def test_a_wrapped_network_gives_the_same_and_takes_the_mixed_images_alone(images):
    """As in distributed training, whose wrapper sees one forward pass a backward pass."""
    outputs, seen = [], []
    wrapped = nn.DataParallel(images.network)
    wrapped.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for network in (copy.deepcopy(images.network), wrapped):
        torch.manual_seed(1)
        outputs.append(MixMatch()(network, images.batch))
    assert torch.equal(outputs[0]["loss"], outputs[1]["loss"])
    assert len(seen) == 1


def test_steps_fit_the_labels(some_images):
    torch.manual_seed(0)
    objective, optimizer = MixMatch(weight=1.0), torch.optim.Adam(some_images.network.parameters(), 0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        output = objective(some_images.network, some_images.batch)
        output["loss"].backward()
        optimizer.step()
        losses.append(output["loss_labeled"].item())
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_labeled_image_of_weight_zero_has_no_part_in_the_labeled_term(images):
    _views(images, 2)
    objective = MixMatch(alpha=0.0)
    weight = torch.ones(len(images.batch["image"]), 1)
    weight[0] = 0
    one = objective(images.network, {**images.batch, "weight": weight})["loss_labeled"]
    images.batch["label"][0] = (images.batch["label"][0] + 1) % 4
    other = objective(images.network, {**images.batch, "weight": weight})["loss_labeled"]
    assert one.item() == pytest.approx(other.item(), abs=1e-6)
    assert objective(images.network, images.batch)["loss_labeled"].item() != pytest.approx(
        other.item(), abs=1e-4
    )
