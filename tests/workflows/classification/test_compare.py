import csv
import math

import numpy as np
import pytest

from medssl.errors import ConfigError, InputError, OutputError
from medssl.evaluation.ranks import compare_treatments
from medssl.workflows.classification.compare import CompareOptions, compare, compare_table

NETWORKS = {"ResNet50": 0.0, "MixNet": 0.02, "SqueezeNet": -0.05}
METHODS = {"base": 0.0, "data_distillation": 0.03, "mixmatch": -0.1}
FAMILIES = {"ResNet50": "standard", "MixNet": "compact", "SqueezeNet": "compact"}


def write(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["dataset", "family", "network", "method", "seed", "accuracy", "precision", "recall", "f1"]
        )
        writer.writerows(rows)
    return path


def row(dataset, network, method, seed, f1):
    """Macro means: precision, recall and F1 that no two classes have."""
    return [dataset, FAMILIES[network], network, method, seed, 0.9, 0.9, round(0.9 * f1, 4), f1]


@pytest.fixture
def rows():
    """Eight data sets, three networks, three methods, two seeds."""
    rng = np.random.default_rng(0)
    return [
        row(f"set {number}", network, method, seed, round(0.8 + a + b + rng.normal(0, 0.012), 4))
        for number in range(8)
        for network, a in NETWORKS.items()
        for method, b in METHODS.items()
        for seed in range(2)
    ]


@pytest.fixture
def table(tmp_path, rows):
    return write(tmp_path / "results.csv", rows)


def names(found):
    return [one.name for one in found.comparison.treatments]


def cells(rows, network, method):
    """Mean over seeds in each data set, by a loop."""
    found = {}
    for line in rows:
        if (line[2], line[3]) == (network, method):
            found.setdefault(line[0], []).append(line[8])
    return [sum(values) / len(values) for values in found.values()]


def test_networks_under_base(table, rows):
    """Analysis (a): seeds are averaged first, data sets are the blocks."""
    found = compare_table(table, CompareOptions())
    values = np.array([cells(rows, network, "base") for network in sorted(NETWORKS)]).T
    expected = compare_treatments(values, sorted(NETWORKS), [f"set {n}" for n in range(8)])
    assert str(found.comparison) == str(expected)
    assert found.comparison.friedman.n == 8
    assert names(found) == ["MixNet", "ResNet50", "SqueezeNet"]
    assert "MixNet has the best mean rank in f1" in found.sentence
    assert "post hoc" in found.sentence


def test_all_pairs(table):
    """Analysis (b)."""
    found = compare_table(table, CompareOptions(analysis="pairs"))
    assert len(found.comparison.treatments) == 9
    assert names(found)[0] == "MixNet + data_distillation"
    some = compare_table(table, CompareOptions(analysis="pairs", methods=("base", "mixmatch")))
    assert len(some.comparison.treatments) == 6


def test_methods_are_means_over_the_chosen_networks_and_held_against_base(table, rows):
    """Analysis (c)."""
    found = compare_table(table, CompareOptions(analysis="methods", families=("compact",)))
    assert found.comparison.control == "base"
    assert not found.comparison.post_hoc
    assert "post hoc" not in found.sentence
    assert names(found) == ["data_distillation", "base", "mixmatch"]
    expected = [np.mean([cells(rows, network, "base") for network in ("MixNet", "SqueezeNet")])]
    assert found.comparison.treatments[1].mean == pytest.approx(expected[0])
    assert (
        "Significantly worse than base (Holm): mixmatch" in found.sentence
        or "Not significantly" in found.sentence
    )


def test_a_method_that_lacks_a_network_somewhere_has_no_mean_there(tmp_path, rows):
    """A mean over other networks cannot be compared."""
    kept = [line for line in rows if line[:4] != ["set 3", "compact", "SqueezeNet", "mixmatch"]]
    found = compare_table(write(tmp_path / "some.csv", kept), CompareOptions(analysis="methods"))
    assert found.comparison.dropped == {"set 3": ("mixmatch",)}
    assert len(found.comparison.blocks) == 7


def test_two_pairs(table, rows):
    """Analysis (d): the second one is the control."""
    options = CompareOptions(analysis="two", pair=("MixNet+data_distillation", "ResNet50 + base"))
    found = compare_table(table, options)
    difference = np.subtract(cells(rows, "MixNet", "data_distillation"), cells(rows, "ResNet50", "base"))
    np.testing.assert_allclose(found.differences, difference)
    assert found.comparison.control == "ResNet50 + base"
    assert found.comparison.friedman is None
    assert f"{100 * difference.mean():+.1f} points of f1 in the mean (95 % interval +" in found.sentence
    assert "exact signed-rank p = 0.008. They differ significantly." in found.sentence
    assert "post hoc" not in found.sentence


def test_not_significant_is_not_equivalent(tmp_path):
    rows = [row(f"set {n}", network, "base", 0, 0.8 + 0.01 * ((n + place) % 3)) for n in range(6)
            for place, network in enumerate(NETWORKS)]  # fmt: skip
    path = write(tmp_path / "even.csv", rows)
    many = compare_table(path, CompareOptions()).sentence
    assert (
        "do not differ significantly (Iman-Davenport p = 1.000), which does not show that they are equival"
        in many
    )
    two = CompareOptions(analysis="two", pair=("MixNet + base", "ResNet50 + base"))
    assert "do not differ significantly, which does not show" in compare_table(path, two).sentence


def test_the_control_can_be_named(table):
    found = compare_table(table, CompareOptions(control="SqueezeNet"))
    assert found.comparison.control == "SqueezeNet"
    assert "Significantly better than SqueezeNet (Holm): MixNet" in found.sentence


def test_d24_all_zero_rows_count_unless_they_are_said_to_be_missing(tmp_path, rows):
    """Spec 8, D24: failed runs are flagged, and a failed run is no zero."""
    for line in rows:
        if line[:4] == ["set 2", "standard", "ResNet50", "base"]:
            line[6:] = [0, 0, 0]
    path = write(tmp_path / "zeros.csv", rows)
    as_value = compare_table(path, CompareOptions())
    assert [one.kind for one in as_value.findings] == ["all zero", "all zero"]
    assert len(as_value.comparison.blocks) == 8
    as_missing = compare_table(path, CompareOptions(failed="missing"))
    assert as_missing.comparison.dropped == {"set 2": ("ResNet50",)}
    ranked = compare_table(path, CompareOptions(failed="missing", missing="worst_rank"))
    assert ranked.comparison.incomplete == {"set 2": ("ResNet50",)}
    assert ranked.comparison.ranks[2].max() == 3


def test_a_mean_of_fewer_seeds_is_told(tmp_path, rows):
    rows[0][8] = 1.4
    found = compare_table(write(tmp_path / "odd.csv", rows), CompareOptions())
    assert [one.kind for one in found.findings] == ["out of range", "incomplete mean"]
    assert "set 0, ResNet50, base: f1 is the mean of 1 of 2 runs" in found.findings[1].text
    uneven = compare_table(write(tmp_path / "uneven.csv", rows[1:]), CompareOptions())
    assert [one.kind for one in uneven.findings] == ["unequal runs"]
    other = compare_table(tmp_path / "odd.csv", CompareOptions(metric="accuracy"))
    assert [one.kind for one in other.findings] == ["out of range"]


def test_the_files(table, tmp_path):
    out = tmp_path / "out"
    found = compare(table, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in found.files)
    lines = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    assert [line["treatment"] for line in lines] == names(found)
    first, last = lines[0], lines[-1]
    assert (first["p"], first["wilcoxon_p"]) == ("", "")
    assert float(last["p_holm"]) == pytest.approx(found.comparison.treatments[-1].p_holm, rel=1e-6)
    beside = {"control": "MixNet", "control_post_hoc": "True", "n_blocks": "8", "k": "3", "correction": "holm",
              "missing": "drop_block", "failed": "value", "metric": "f1"}  # fmt: skip
    assert all(line[name] == text for line in lines for name, text in beside.items())
    page = (out / "comparison.md").read_text()
    assert found.sentence in page
    assert (
        "N = 8 data sets, k = 3, metric f1, control MixNet (picked post hoc), Holm over 2 comparisons" in page
    )
    assert "Friedman, corrected for ties: chi2 = " in page
    assert "Nothing odd was found." in page
    assert (out / "critical_difference.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in page + (out / "comparison.csv").read_text()
    assert (out / "findings.csv").read_text() == "kind,lines,finding\n"


def test_all_pairs_of_treatments_stand_on_the_page(table, tmp_path):
    out = tmp_path / "out"
    pairs = compare(table, out).comparison.pairs
    page = (out / "comparison.md").read_text()
    assert (
        "## All pairs\n\nN = 8 data sets, k = 3, Holm over 3 comparisons, missing values: drop_block.\n"
        in page
    )
    lines = list(csv.DictReader((out / "pairs.csv").read_text().splitlines()))
    assert [(line["first"], line["second"]) for line in lines] == [(one.first, one.second) for one in pairs]
    for line, one in zip(lines, pairs, strict=True):
        assert f"| {one.first} | {one.second} |" in page
        assert float(line["p_holm"]) == pytest.approx(one.p_holm, rel=1e-6)
        assert (line["comparisons"], line["n_blocks"], line["k"], line["correction"]) == (
            "3",
            "8",
            "3",
            "holm",
        )


def test_of_many_pairs_the_surest_are_shown(table, tmp_path):
    out = tmp_path / "out"
    found = compare(table, out, CompareOptions(analysis="pairs")).comparison.pairs
    page = (out / "comparison.md").read_text().split("## All pairs")[1].split("##")[0]
    assert (
        "Holm over 36 comparisons, missing values: drop_block. The 15 pairs with the smallest p are shown."
        in page
    )
    assert page.count("\n| ") == 2 + 15
    assert f"| {found[14].first} | {found[14].second} |" in page
    assert len((out / "pairs.csv").read_text().splitlines()) == 1 + 36


def test_two_pairs_have_no_diagram_and_replace_one(table, tmp_path):
    out = tmp_path / "out"
    compare(table, out)
    with pytest.raises(OutputError, match="holds a comparison already"):
        compare(table, out)
    options = CompareOptions(analysis="two", pair=("MixNet + base", "ResNet50 + base"))
    found = compare(table, out, options, overwrite=True)
    assert "critical_difference.png" not in [path.name for path in found.files]
    assert not (out / "critical_difference.png").exists()
    assert not (out / "pairs.csv").exists()
    page = (out / "comparison.md").read_text()
    assert page.startswith("# MixNet + base against ResNet50 + base\n")
    assert "For information only: paired t-test p = " in page


def test_few_data_sets_are_warned_of(tmp_path, rows):
    path = write(tmp_path / "few.csv", [line for line in rows if line[0] < "set 5"])
    out = tmp_path / "out"
    compare(path, out)
    assert (
        "With 5 data sets the exact two-sided signed-rank p cannot fall below 0.0625"
        in (out / "comparison.md").read_text()
    )


def test_nothing_is_written_for_a_bad_table(tmp_path, rows):
    path = write(tmp_path / "bad.csv", [[*rows[0][:8], "good"]])
    with pytest.raises(InputError, match="f1 is 'good'"):
        compare(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_misspelt_name_explains_why_nothing_can_be_compared(tmp_path, rows):
    for line in rows:
        if line[0] == "set 1" and line[2] == "ResNet50":
            line[2] = "ResNet5"
    with pytest.raises(InputError, match="The network 'ResNet5' looks like 'ResNet50'"):
        compare_table(write(tmp_path / "slip.csv", rows), CompareOptions())


def test_percentages_are_refused_with_advice(tmp_path, rows):
    percent = [[*line[:5], *(100 * value for value in line[5:])] for line in rows]
    with pytest.raises(InputError, match="divide percentages by 100"):
        compare_table(write(tmp_path / "percent.csv", percent), CompareOptions())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"networks": ("VGG",)}, "no network 'VGG'; it has MixNet, ResNet50, SqueezeNet"),
        ({"families": ("tiny",)}, "no family 'tiny'"),
        ({"analysis": "pairs", "methods": ("dd",)}, "no method 'dd'"),
        ({"method": "fixmatch"}, "no method 'fixmatch'"),
        ({"analysis": "two", "pair": ("MixNet + dd", "MixNet + base")}, r"no pair 'MixNet \+ dd'"),
        ({"analysis": "two", "pair": ("MixNet + base", "MixNet + base")}, "at least two"),
        ({"control": "VGG"}, "control 'VGG' is none of"),
    ],
)
def test_names_that_the_table_lacks_are_refused(table, options, text):
    with pytest.raises(ConfigError, match=text):
        compare_table(table, CompareOptions(**options))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"analysis": "seeds"}, "networks, pairs, methods, two"),
        ({"metric": "dice"}, "accuracy, precision, recall, f1"),
        ({"missing": "zero"}, "drop_block, worst_rank, error"),
        ({"failed": "zero"}, "value, missing"),
        ({"alpha": 5}, "between 0 and 1"),
        ({"analysis": "two"}, "'two' needs two"),
        ({"pair": ("a + b", "c + d")}, "'two' needs two"),
        ({"methods": ("base",)}, "'networks' has no use for --method"),
        ({"analysis": "two", "pair": ("a + b", "c + d"), "control": "a"}, "'two' has no use for --control"),
        ({"analysis": "methods", "method": "fixmatch"}, "'methods' has no use for --under"),
        ({"analysis": "pairs", "method": "fixmatch"}, "'pairs' has no use for --under"),
        (
            {"analysis": "two", "pair": ("a + b", "c + d"), "method": "x", "networks": ("a",)},
            "'two' has no use for --network, --under",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        CompareOptions(**options)


def test_two_pairs_that_share_too_few_data_sets_are_refused(tmp_path):
    rows = [
        row("a", "MixNet", "base", 0, 0.8),
        row("b", "MixNet", "base", 0, 0.8),
        row("c", "ResNet50", "base", 0, 0.9),
    ]
    options = CompareOptions(analysis="two", pair=("MixNet + base", "ResNet50 + base"), missing="worst_rank")
    with pytest.raises(InputError, match="share 0 data sets"):
        compare_table(write(tmp_path / "apart.csv", rows), options)


def test_the_numbers_of_a_pair_without_any_difference():
    """A tie everywhere: p is 1, not undefined."""
    found = compare_treatments(np.full((6, 2), 0.5), ("a", "b"), list("uvwxyz"))
    assert found.treatments[1].wilcoxon.p == 1
    assert math.isnan(found.treatments[1].z)
