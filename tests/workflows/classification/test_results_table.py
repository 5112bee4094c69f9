import math

import pytest

from medssl.errors import InputError
from medssl.networks.compact import ALIASES, NETWORKS
from medssl.workflows.classification.results_table import read_results

HEADER = "dataset,family,network,method,seed,accuracy,precision,recall,f1,note"
GOOD = "chest,manual,ResNet18,base,0,0.9,0.8,0.8,0.8,"


@pytest.fixture
def table(tmp_path):
    def write(*rows, header=HEADER, end="\n", encoding="utf-8"):
        path = tmp_path / "results.csv"
        path.write_bytes((end.join([header, *rows]) + end).encode(encoding))
        return path

    return write


def kinds(found):
    return [(one.kind, one.lines) for one in found.findings]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_good_table_is_read_with_both_line_ends(table, end):
    found = read_results(table(GOOD, GOOD.replace(",0,0.9", ",1,0.7"), end=end))
    assert found.findings == ()
    first, second = found.rows
    assert first.cell == ("chest", "ResNet18", "base")
    assert (first.line, first.family, first.seed) == (2, "manual", "0")
    assert first.values == {"accuracy": 0.9, "precision": 0.8, "recall": 0.8, "f1": 0.8}
    assert (second.line, second.seed, second.values["accuracy"]) == (3, "1", 0.7)


def test_only_names_and_one_measure_are_needed(table):
    path = table("chest,ResNet18,base,0.9", header="\ufeffDataset,Network,Method,F1")
    (row,) = read_results(path).rows
    assert row.values == {"f1": 0.9}
    assert (row.seed, row.family) == ("", "")
    quoted = table(
        '"chest, X-ray",ResNet18,base,n/a', "chest,ResNet18,base,", header="dataset,network,method,f1"
    )
    first, second = read_results(quoted).rows
    assert first.dataset == "chest, X-ray"
    assert math.isnan(first.values["f1"])
    assert math.isnan(second.values["f1"])


@pytest.mark.parametrize(
    ("rows", "header", "texts"),
    [
        ([GOOD], "dataset,model,method,f1,a,b,c,d,e,f", ["expected dataset, network, method", "model"]),
        ([GOOD], HEADER.replace("f1", "F-score").replace("acc", "x").replace("pre", "x").replace("rec", "x"), ["f1"]),
        ([GOOD], HEADER.replace("note", "f1"), ["each once"]),
        ([GOOD + ",x", GOOD[:-1]], HEADER, ["line 2: 11 cells", "line 3: 9 cells", "10 cells"]),
        ([GOOD.replace("0.9", "high"), GOOD.replace("chest", "")], HEADER,
         ["line 2: accuracy is 'high'", "line 3: no dataset"]),
        (["chest,R,base,0.9,lost"], "dataset,network,method,f1,status", ["line 2: status is 'lost', not ok or failed"]),
        ([], HEADER, ["holds 1 lines"]),
        ([GOOD.replace(",", ";")], HEADER.replace(",", ";"), ["separated by commas"]),
        ([GOOD + '"'], HEADER, ["no comma-separated table"]),
    ],
)  # fmt: skip
def test_a_bad_table_is_one_error_that_lists_its_faults(table, rows, header, texts):
    with pytest.raises(InputError) as error:
        read_results(table(*rows, header=header))
    assert all(text in str(error.value) for text in texts)


def test_a_long_list_of_faults_is_cut(table):
    with pytest.raises(InputError, match="and 5 more"):
        read_results(table(*[GOOD.replace("0.9", "x")] * 25))


def test_no_table_is_an_error(tmp_path, table):
    with pytest.raises(InputError, match="Cannot read"):
        read_results(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="UTF-8"):
        read_results(table(GOOD.replace("chest", "brüst"), encoding="latin-1"))


def test_a_value_out_of_range_is_missing_for_its_own_measure_only(table):
    found = read_results(table(GOOD.replace("0.9", "1.2"), GOOD.replace(",0,0.9,0.8", ",1,0.9,-0.1")))
    assert kinds(found) == [("out of range", (2,)), ("out of range", (3,))]
    first, second = found.rows
    assert math.isnan(first.values["accuracy"])
    assert first.values["f1"] == 0.8
    assert math.isnan(second.values["precision"])
    assert "accuracy 1.2 is outside [0, 1]" in found.findings[0].text
    percent = read_results(table("chest,manual,ResNet18,base,0,90,80,80,80,"))
    assert "percent" in percent.findings[0].text


def test_d24_a_failed_run_is_flagged_and_no_zero(table):
    """Spec 8, D24: failed runs reported as zero rows."""
    path = table("a,R,base,0,failed", "b,R,base,0.4,ok", header="dataset,network,method,f1,status")
    found = read_results(path)
    assert kinds(found) == [("failed run", (2,))]
    assert math.isnan(found.rows[0].values["f1"])
    assert found.rows[1].values["f1"] == 0.4


def test_d24_all_zero_rows_are_flagged_and_kept_as_they_are(table):
    found = read_results(table("chest,manual,ResNet18,base,0,0.375,0,0,0,"))
    assert kinds(found) == [("all zero", (2,))]
    assert found.rows[0].values["f1"] == 0
    assert found.rows[0].all_zero


def test_contradictions_are_flagged_and_kept(table):
    found = read_results(table("a,,R,base,0,0.9,0,0.5,0.4,", "b,,R,base,0,0.9,0.1,0.5,0,"))
    assert kinds(found) == [("contradiction", (2,)), ("contradiction", (3,))]
    assert [row.values["f1"] for row in found.rows] == [0.4, 0.0]


def test_duplicates_are_flagged_and_seeds_are_none(table):
    found = read_results(table(GOOD, GOOD.replace(",0,", ",1,"), GOOD))
    assert kinds(found) == [("duplicate", (2, 4))]
    assert "stands 2 times; the mean counts" in found.findings[0].text


def test_f1_that_does_not_fit_is_flagged_in_sets_of_two_classes_only(table):
    """Rows that fit tell that F1 is that of one class; macro means fit by chance only."""
    fitting = [f"chest,,N{n},base,,0.9,0.8,0.{n},{2 * 0.8 * n / (8 + n):.4f}," for n in range(1, 9)]
    macro = [f"oct,,N{n},base,,0.9,0.8,0.{n},0.{n}5," for n in range(1, 9)]
    wrong = "chest,,N9,base,,0.9,0.8,0.4,0.9,"
    found = read_results(table(*fitting, *macro, wrong))
    assert kinds(found) == [("F1 does not fit", (18,))]
    assert "off by 0.367" in found.findings[0].text


NAMED = [
    f"{dataset},,{network},base,,0.9,0.8,0.8,0.8," for dataset in "abc" for network in ("ResNet101", "MixNet")
]


@pytest.mark.parametrize(("slip", "meant"), [("ResNet10", "ResNet101"), ("resnet101", "ResNet101")])
def test_a_misspelt_network_is_flagged_with_what_was_meant(table, slip, meant):
    """The published table has a "ResNet10" where its ResNet101 is missing."""
    rows = [row.replace(meant, slip) if row.startswith("b") else row for row in NAMED]
    found = read_results(table(*rows))
    assert kinds(found) == [("unknown network", (4,))]
    assert f"'{slip}' looks like '{meant}'" in found.findings[0].text
    assert found.rows[2].network == slip


def test_own_names_that_every_data_set_has_are_no_slip(table):
    rows = [
        row.replace("ResNet101", name)
        for row in NAMED
        for name in ("resnet101", "vgg-small-28", "vgg-small-64")
    ]
    rows = [row for row in rows if "MixNet" not in row]
    assert read_results(table(*rows)).findings == ()
    partly = [row for row in rows if not row.startswith("c,,vgg-small-28")]
    assert read_results(table(*partly)).findings == ()


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("ResNet10", "ResNet101"),
        ("ResNet5", "ResNet50"),
        ("EfficentNet", "EfficientNet"),
        ("Moblienet", "MobileNet"),
        ("Sufle-Net", "ShuffleNet"),
        ("ResNet50 quantised", "ResNet50 quantized"),
        ("mobilenetv4_conv_medum", "mobilenetv4_conv_medium"),
        ("vgg-smal-28", "vgg-small-28"),
    ],
)
def test_a_network_misspelt_in_every_data_set_is_flagged(table, slip, meant):
    """Spec: unknown network names are flagged; that no data set has the right one hides nothing."""
    found = read_results(table(*[row.replace("ResNet101", slip) for row in NAMED]))
    assert kinds(found) == [("unknown network", (2, 4, 6))]
    assert f"'{slip}' is none that medssl knows, but looks like '{meant}'" in found.findings[0].text
    assert {row.network for row in found.rows} == {slip, "MixNet"}


def test_a_slip_is_told_once(table):
    rows = [row.replace("ResNet101", "ResNet10") for row in NAMED if not row.startswith("c,,ResNet101")]
    assert kinds(read_results(table(*rows))) == [("unknown network", (2, 4))]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "ResNet34",
            "ResNet152",
            "ResNet50d",
            "ResNeXt50",
            "ResNeSt50d",
            "SE-ResNet50",
            "NASNet",
            "ViT-B/16",
        ),
        *("EfficientNet-B1", "EfficientNetV2-S", "MobileNetV3", "MixNet-S", "SqueezeNet1.1", "tinynet_b"),
        *("DenseNet121", "ours", "EFFICIENTNET-B3", "resnet 18", "resnet18.tv_in1k", "ResNet18-int8"),
    ],
)
def test_names_of_other_networks_and_other_spellings_are_no_slip(table, name):
    found = read_results(table(*[row.replace("ResNet101", name) for row in NAMED]))
    assert found.findings == ()


def test_every_network_that_can_be_built_is_known(table):
    known = {name for facts in NETWORKS.values() for name in (facts.name, facts.id)} | set(ALIASES)
    rows = [f"a,,{name},base,,0.9,0.8,0.8,0.8," for name in sorted(known)]
    assert read_results(table(*rows)).findings == ()


def test_a_misspelt_method_is_flagged(table):
    rows = [row.replace("base", method) for row in NAMED for method in ("base", "fixmatch")]
    rows = [row.replace("fixmatch", "fixmach") if row.startswith("a") else row for row in rows]
    found = read_results(table(*rows))
    assert [one.kind for one in found.findings] == ["unknown method"]
    assert "'fixmach' looks like 'fixmatch'" in found.findings[0].text


def test_findings_come_by_line(table):
    found = read_results(table(GOOD, "a,,R,base,0,0.9,0,0.5,0.4,", GOOD, "b,,R,base,0,0.9,0.1,0.5,0,"))
    assert [one.lines[0] for one in found.findings] == [2, 3, 5]
