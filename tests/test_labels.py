import pytest

from medssl.errors import LabelError
from medssl.labels import BRAIN_TISSUES, UNKNOWN, LabelTable, label_table

NINE = [{"index": value, "name": f"structure {value}"} for value in (0, 17, 18, 26, 49, 50, 53, 54, 58, 251)]


def test_channels_follow_rising_values_background_first():
    table = LabelTable.from_rows(reversed(NINE))
    assert table.values == (0, 17, 18, 26, 49, 50, 53, 54, 58, 251)
    assert [table.channel(value) for value in (0, 17, 251)] == [0, 1, 9]


def test_rows_make_the_same_table_again():
    assert LabelTable.from_rows(BRAIN_TISSUES.rows(), BRAIN_TISSUES.name) == BRAIN_TISSUES


def test_colors_survive_a_configuration_parser():
    from monai.bundle import ConfigParser

    parser = ConfigParser({"rows": BRAIN_TISSUES.rows()})
    assert LabelTable.from_rows(parser.get_parsed_content("rows"), BRAIN_TISSUES.name) == BRAIN_TISSUES


def test_background_is_added_where_missing():
    assert LabelTable.from_rows([{"index": 4, "name": "x"}]).values == (0, 4)


def test_built_in_rows_are_recognized():
    assert label_table(BRAIN_TISSUES.rows()) is BRAIN_TISSUES
    assert label_table("braintissues") is BRAIN_TISSUES


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"index": 1, "name": "a"}, {"index": 1, "name": "b"}], "value 1 twice"),
        ([{"index": 1, "name": "a"}, {"index": 2, "name": "a"}], "abbreviation a twice"),
        ([{"index": UNKNOWN, "name": "a"}], "255 means unknown"),
        ([{"index": "x", "name": "a"}], "whole number"),
        ([{"index": 1}], "whole number"),
        ([{"index": 1, "name": "$print(1)"}], r"'\$print\(1\)', which a configuration would evaluate"),
        ([{"index": 1, "name": "a", "abbreviation": "@b"}], "'@b', which"),
        ([{"index": 1, "name": "a", "color": "%c"}], "'%c', which"),
        ([{"index": 1, "name": "a", "table": "$t"}, {"index": 2, "name": "b@#c"}], "'b@#c', which"),
    ],
)
def test_bad_tables_are_refused(rows, message):
    with pytest.raises(LabelError, match=message):
        LabelTable.from_rows(rows)


def test_unknown_table_name_lists_the_known():
    with pytest.raises(LabelError, match="braintissues"):
        label_table("tissues")


def test_value_outside_the_table_names_what_it_has():
    with pytest.raises(LabelError, match=r"no value 7; it has 0 BG, 1 GM"):
        BRAIN_TISSUES.channel(7)


SIDES = {
    "left hippocampus": True,
    "Right_thalamus": True,
    "lh-cortex": True,
    "brightness": False,
    "cleft": False,
}


@pytest.mark.parametrize("name", SIDES)
def test_names_that_tell_sides_apart(name):
    rows = [{"index": 0, "name": "background"}, {"index": 1, "name": name}]
    assert LabelTable.from_rows(rows).names_sides is SIDES[name]
