"""The head replaces the softmax, its centers start where they are told to and take no weight decay."""

import io
import math

import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.functional.clustering import log_soft_assignment
from medssl.networks import DenseFCN, FCDenseNet3D, clustering_head
from medssl.networks.clustering_head import (
    ABSENT,
    STARTS,
    ClusteringHead,
    ClusteringNetwork,
    parameter_groups,
)

THREE_LEVELS = {"levels": 3, "block_layers": 4, "reduction": 2}
SMALL = {"stem_channels": 8, "growth_rate": 4, "block_layers": 2}


@pytest.fixture
def small() -> ClusteringNetwork:
    """Two contrasts, four features, background without a cluster and three labels with one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ClusteringNetwork(DenseFCN(2, 4, **SMALL), 4, 4, alpha=0.5).eval()


def blobs(labels: torch.Tensor, spread: float = 0.1) -> torch.Tensor:
    """Return points ``(B, 2, N)`` around (0, 0), (10, 0), (0, 10) of labels 1 to 3."""
    places = torch.tensor([[5.0, 5.0], [0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    noise = torch.randn(*labels.shape, 2, generator=torch.Generator().manual_seed(0))
    return (places[labels.clamp_max(3)] + spread * noise).movedim(-1, 1)


def flat(features: int = 2, labels: int = 4, *, background: bool = False) -> ClusteringNetwork:
    """Return a network whose embedding is its input."""
    return ClusteringNetwork(nn.Identity(), features, labels, background=background)


@pytest.mark.parametrize(
    ("backbone", "options", "base", "each"),
    [
        (DenseFCN, {}, 1_552_060, 49),
        (FCDenseNet3D, {}, 1_419_296, 177),
        (FCDenseNet3D, THREE_LEVELS, 1_363_344, 225),
    ],
)
def test_parameter_count_is_that_of_the_specification(backbone, options, base, each):
    """Invariant 7: with a head."""
    for features in (3, 8, 16):
        network = ClusteringNetwork(backbone(2, features, **options), features, 4)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count == base + each * features + 3 * features


@pytest.mark.parametrize(
    ("backbone", "options", "counts"),
    [
        (DenseFCN, {}, [1_552_216, 1_552_476, 1_552_892]),
        (FCDenseNet3D, {}, [1_419_836, 1_420_736, 1_422_176]),
        (FCDenseNet3D, THREE_LEVELS, [1_364_028, 1_365_168, 1_366_992]),
    ],
)
def test_totals_for_three_eight_and_sixteen_features(backbone, options, counts):
    """Invariant 7: with a head."""
    networks = [ClusteringNetwork(backbone(2, D, **options), D, 4) for D in (3, 8, 16)]
    assert [sum(parameter.numel() for parameter in network.parameters()) for network in networks] == counts


def test_centers_start_within_the_bound_of_glorot():
    centers = ClusteringHead(200, 300).centers.detach()
    bound = math.sqrt(6 / 500)
    assert 0.99 * bound < centers.abs().max() <= bound
    assert centers.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_centers_are_drawn_anew():
    head = ClusteringHead(3, 4)
    before = head.centers.detach().clone()
    head.reset_parameters()
    assert not torch.equal(head.centers, before)


@pytest.mark.parametrize("size", [(), (3, 2, 4)])
def test_head_equals_the_formula_with_its_alpha(size):
    head = ClusteringHead(3, 4, alpha=2.0)
    z = torch.randn(2, 3, *size)
    torch.testing.assert_close(head(z), log_soft_assignment(z, head.centers, 2.0))


@pytest.mark.parametrize(
    "arguments", [(3, 1, 1.0), (0, 3, 1.0), (3, 3, 0.0), (3, 3, -1.0), (3, 3, math.inf), (3, 3, math.nan)]
)
def test_impossible_heads_are_refused(arguments):
    with pytest.raises(
        ConfigError, match=r"expected a finite alpha > 0, at least one feature and two clusters"
    ):
        ClusteringHead(*arguments)


def test_scores_are_their_own_log_probabilities_background_absent(small):
    with torch.inference_mode():
        scores = small(torch.randn(2, 2, 16, 16, 16))
    assert scores.shape == (2, 4, 16, 16, 16)
    assert torch.all(scores[:, 0] == ABSENT)
    torch.testing.assert_close(scores.log_softmax(1), scores)


def test_background_may_have_a_cluster_of_its_own():
    network = flat(background=True)
    assert network.head.centers.shape == (4, 2)
    assert network(torch.randn(3, 2)).exp().sum(1).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("labels", [3, 4])
def test_images_are_classified_as_voxels_are(labels):
    network = flat(labels=labels, background=True)
    z = torch.randn(5, 2)
    as_voxels = network(z.view(5, 2, 1, 1, 1))
    torch.testing.assert_close(as_voxels.view(5, labels), network(z))


def test_autocast_reaches_the_backbone_but_not_the_head(small):
    embeddings = []
    small.backbone.register_forward_hook(lambda module, inputs, output: embeddings.append(output))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        scores = small(torch.randn(1, 2, 16, 16, 16))
    assert embeddings[0].dtype == torch.bfloat16
    assert scores.dtype == torch.float32
    expected = log_soft_assignment(embeddings[0].float(), small.head.centers, 0.5)
    assert torch.equal(scores[:, 1:], expected)


def test_autocast_around_the_head_equals_float32_on_the_same_embedding():
    head = ClusteringHead(8, 3)
    z = torch.randn(2, 8, 4, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(z)
    (gradient,) = torch.autograd.grad(inside[:, 0].sum(), z)
    (expected,) = torch.autograd.grad(head(z)[:, 0].sum(), z)
    assert torch.equal(inside, head(z))
    assert torch.equal(gradient, expected)


def test_state_keeps_alpha_and_centers(small):
    buffer = io.BytesIO()
    torch.save(small.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert state["head.alpha"] == 0.5
    assert state["head.centers"].shape == (3, 4)
    other = ClusteringNetwork(DenseFCN(2, 4, **SMALL), 4, 4).eval()
    other.load_state_dict(state)
    x = torch.randn(1, 2, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(other(x), small(x))


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("compiler", ["script", "trace"])
def test_torchscript_keeps_scores_and_alpha(compiler, background):
    network = ClusteringNetwork(DenseFCN(2, 4, **SMALL), 4, 4, background=background, alpha=2.0).eval()
    x = torch.randn(1, 2, 16, 16, 16)
    with torch.no_grad():
        compiled = torch.jit.script(network) if compiler == "script" else torch.jit.trace(network, x)
        for volume in (x, torch.randn(2, 2, 20, 16, 33)):
            torch.testing.assert_close(compiled(volume), network(volume))
        for one in (network, compiled):
            one.load_state_dict(network.state_dict() | {"head.alpha": torch.tensor(0.5)})
        torch.testing.assert_close(compiled(x), network(x))


def test_every_parameter_receives_a_gradient(small):
    small.train()(torch.randn(2, 2, 32, 32, 32))[:, 1].mean().backward()
    assert [name for name, parameter in small.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_padding_and_memory_are_those_of_the_backbone(small):
    assert small.multiple == small.backbone.multiple == 16
    assert small.peak_maps == small.backbone.peak_maps
    assert (flat().multiple, flat().peak_maps) == (16, 256)


def test_wide_embeddings_need_more_memory_than_the_backbone():
    network = ClusteringNetwork(DenseFCN(2, 64, **SMALL), 64, 4)
    assert network.peak_maps == 3 * 64 + 4 > network.backbone.peak_maps


def test_centers_take_no_weight_decay(small):
    """Invariant 8."""
    others, centers = parameter_groups(small, 5e-4)
    assert others["weight_decay"] == 5e-4
    assert centers["weight_decay"] == 0
    assert [id(center) for center in centers["params"]] == [id(small.head.centers)]
    assert len(others["params"]) + 1 == len(list(small.parameters()))

    before = small.head.centers.detach().clone()
    for parameter in small.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = small.backbone.stem[0].weight.detach().clone()
    torch.optim.AdamW(parameter_groups(small, 0.5), lr=0.1).step()
    assert torch.equal(small.head.centers, before)
    torch.testing.assert_close(small.backbone.stem[0].weight, 0.95 * weight)


def test_networks_without_centers_have_one_group():
    network = nn.Linear(2, 3)
    (group,) = parameter_groups(network, 0.1)
    assert group["weight_decay"] == 0.1
    assert list(map(id, group["params"])) == list(map(id, network.parameters()))


def test_random_start_leaves_centers_and_reads_nothing():
    network = flat()
    before = network.head.centers.detach().clone()
    counts = network.start_centers("random", (1 / 0 for _ in range(1)))
    assert counts.tolist() == [0, 0, 0]
    assert torch.equal(network.head.centers, before)


@pytest.mark.parametrize("background", [False, True])
def test_class_means_equal_the_naive_means(background):
    labels = torch.tensor([[0, 1, 1, 2, 255], [3, 3, 3, 1, 255]])
    z, network = blobs(labels), flat(background=background)
    counts = network.start_centers("class_means", [(z[b : b + 1], labels[b : b + 1]) for b in range(2)])
    numbers = [0, 1, 2, 3][network.first :]
    assert counts.tolist() == [1, 3, 1, 3][network.first :]
    for center, number in zip(network.head.centers.detach(), numbers, strict=True):
        members = [z[b, :, i].tolist() for b in range(2) for i in range(5) if labels[b, i] == number]
        assert center.tolist() == pytest.approx(
            [sum(axis) / len(members) for axis in zip(*members, strict=True)]
        )


def test_labels_may_be_unsigned_bytes():
    labels = torch.tensor([[0, 1, 2, 3, 255]], dtype=torch.uint8)
    assert flat().start_centers("kmeans", [(blobs(labels.long()), labels)]).tolist() == [1, 1, 1]


@pytest.mark.parametrize("start", ["class_means", "kmeans"])
def test_class_without_labeled_elements_starts_from_its_center(start):
    network = flat()
    network.head.centers.data[2] = torch.tensor([-80.0, -80.0])
    labels = torch.tensor([[1, 2, 1, 2]])
    counts = network.start_centers(start, [(blobs(labels), labels)])
    assert counts.tolist() == [2, 2, 0]
    assert network.head.centers[2].tolist() == [-80.0, -80.0]


def _reference_lloyd(points, centers, iterations):
    start = [list(center) for center in centers]
    for _ in range(iterations):
        near = [min(range(len(centers)), key=lambda j: math.dist(point, centers[j])) for point in points]
        groups = [[p for p, j in zip(points, near, strict=True) if j == k] for k in range(len(centers))]
        centers = [
            [sum(axis) / len(group) for axis in zip(*group, strict=True)] if group else center
            for group, center in zip(groups, centers, strict=True)
        ]
    return [center if group else first for center, group, first in zip(centers, groups, start, strict=True)]


def test_kmeans_equals_the_naive_iterations_and_keeps_the_order_of_the_classes():
    labels = torch.tensor([[3, 1, 2, 1]])
    more = torch.randint(1, 4, (1, 60), generator=torch.Generator().manual_seed(1))
    z, far = blobs(labels), blobs(more, spread=3.0)
    valid = torch.rand(1, 60, generator=torch.Generator().manual_seed(2)) < 0.7
    network = flat()
    network.start_centers("class_means", [(z, labels)])
    means = network.head.centers.tolist()
    counts = network.start_centers("kmeans", [(z, labels)], [(far, valid)])
    points = z[0].T.tolist() + far[0].T[valid[0]].tolist()
    expected = torch.tensor(_reference_lloyd(points, means, clustering_head.ITERATIONS))
    torch.testing.assert_close(network.head.centers.detach(), expected)
    assert counts.tolist() == [2, 1, 1]
    assert torch.cdist(expected, torch.tensor(means)).argmin(1).tolist() == [0, 1, 2]


def test_kmeans_looks_at_the_mask_only():
    labels = torch.tensor([[1, 2, 3, 0, 255]])
    z = blobs(labels)
    z[..., 3:] = 1e6  # background and unknown elements
    unlabeled = torch.tensor([[[1.0, 1e6], [1.0, -1e6]]])
    network = flat()
    network.start_centers("kmeans", [(z, labels)], [(unlabeled, torch.tensor([[True, False]]))])
    assert network.head.centers.abs().max() < 12


def test_cluster_that_kmeans_empties_keeps_its_class_mean():
    labels = torch.tensor([[1, 1, 2, 3]])
    z = torch.tensor(
        [[[0.0, 10.0, 1.0, 9.0], [0.0, 0.0, 0.0, 0.0]]]
    )  # class 1 lies on both sides of the others
    network = flat()
    network.start_centers("kmeans", [(z, labels)])
    assert network.head.centers.tolist() == [[5.0, 0.0], [0.5, 0.0], [9.5, 0.0]]


def test_cluster_that_moves_before_kmeans_empties_it_gets_its_class_mean_back():
    labels = torch.tensor([[1, 1, 1, 2, 2, 3, 3]])
    z = torch.tensor([[[13.0, 14, 0, 20, 3, 18, 18], [9.0, 6, 16, 15, 17, 7, 8]]])
    network = flat()
    network.start_centers("kmeans", [(z, labels)])
    expected = torch.tensor([[9.0, 31 / 3], [1.5, 16.5], [16.6, 9.0]])  # the first had moved to (6.5, 12.5)
    torch.testing.assert_close(network.head.centers.detach(), expected)


def test_kmeans_without_points_is_no_error():
    network = flat()
    before = network.head.centers.detach().clone()
    assert network.start_centers("kmeans", []).tolist() == [0, 0, 0]
    assert torch.equal(network.head.centers, before)


def test_kmeans_draws_a_seeded_uniform_sample(monkeypatch):
    monkeypatch.setattr(clustering_head, "MOST_POINTS", 300)
    samples = [clustering_head._Sample(1) for _ in range(2)]
    for sample in samples:
        for start in range(0, 3_000, 500):
            stream = torch.arange(start, start + 500.0).view(1, 1, -1)
            sample.add(stream, torch.ones(1, 500, dtype=torch.bool))
    kept = samples[0].kept.flatten()
    assert torch.equal(kept, samples[1].kept.flatten())
    assert len(kept.unique()) == 300
    for place, end in ((kept, 3_000), (kept % 500, 500)):  # in the stream, in its batch
        shares = torch.histc(place, bins=6, min=0, max=end) / 300
        assert shares.tolist() == pytest.approx([1 / 6] * 6, abs=0.07)


@pytest.mark.parametrize("start", STARTS)
def test_starting_leaves_modes_and_statistics_alone_and_reads_each_stream_once(small, start):
    small.train()
    small.backbone.stem.eval()
    modes = [module.training for module in small.modules()]
    state = {name: value.clone() for name, value in small.state_dict().items() if name != "head.centers"}
    x, labels = torch.randn(2, 2, 16, 16, 16), torch.randint(0, 4, (2, 16, 16, 16))
    small.start_centers(start, iter([(x, labels)]), iter([(x, labels > 0)]))
    assert [module.training for module in small.modules()] == modes
    assert all(torch.equal(small.state_dict()[name], value) for name, value in state.items())
    assert torch.isfinite(small.head.centers).all()
    assert small.head.centers.requires_grad


def test_modes_come_back_after_an_error():
    network = flat().train()
    with pytest.raises(ZeroDivisionError):
        network.start_centers("kmeans", (1 / 0 for _ in range(1)))
    assert network.training


def test_unknown_start_is_refused():
    with pytest.raises(ConfigError, match=r"found 'means'.*'random', 'class_means', 'kmeans'"):
        flat().start_centers("means", [])
