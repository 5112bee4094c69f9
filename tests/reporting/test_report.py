import re

import pytest

from medssl.reporting.report import (
    Commands,
    Facts,
    Picture,
    Report,
    Section,
    Steps,
    Table,
    Text,
    Tile,
    render_report,
)


@pytest.fixture
def page():
    return render_report(
        Report(
            title="A <cohort>",
            headline="On 2 held-out scans & more",
            explanation="Dice is 1 where maps agree.",
            tiles=[Tile("0.81", "mean Dice"), Tile("0.82", "gray matter", "#e6a817")],
            sections=[
                Section("What was done", (Steps(("First.", "Second.")), Text("Quietly.", quiet=True))),
                Section(
                    "Dice per tissue",
                    (Table(("label", "Dice"), (("GM", "0.82"),), "Test", "n = 2", ("#e6a817",)),),
                ),
                Section("Scans", (Picture(b"\x89PNG", "Three views", "sub-01", "caption"),)),
                Section("Commands", (Commands(("medssl check cohort --json", "medssl segment <x>")),)),
                Section("Nothing", ()),
                Section("Provenance", (Facts((("torch", "2.6"),), "Versions"),)),
            ],
            footer="Written by medssl.",
        )
    )


def test_every_block_is_on_the_page(page):
    for text in (
        "On 2 held-out scans &amp; more", "Dice is 1 where maps agree.", "0.81", "First.", "Quietly.",
        "<th scope=\"col\">Dice</th>", "n = 2", "sub-01", "caption", "Written by medssl.", "2.6",
    ):  # fmt: skip
        assert text in page


def test_text_from_outside_is_escaped(page):
    assert "A &lt;cohort&gt;" in page
    assert "<cohort>" not in page
    assert "<x>" not in page


def test_page_is_self_contained(page):
    assert "data:image/png;base64,iVBORw==" in page
    assert not re.search(r"https?://|<script|<link[^>]+stylesheet|@import|url\(", page)
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_sections_without_blocks_are_left_out(page):
    assert "Nothing" not in page
    anchors = re.findall(r"href=\"#([^\"]+)\"", page)
    assert anchors == ["what-was-done", "dice-per-tissue", "scans", "commands", "provenance"]
    assert all(f'<section id="{anchor}">' in page for anchor in anchors)


def test_commands_can_be_copied_word_for_word(page):
    code = re.search(r"<code>(.*?)</code>", page, re.DOTALL)[1]
    plain = re.sub(r"<[^>]+>", "", code).replace("&lt;", "<").replace("&gt;", ">")
    assert plain == "medssl check cohort --json\nmedssl segment <x>\n"


def test_page_says_that_it_is_not_for_diagnosis(page):
    assert "Not for diagnosis" in page


def test_page_fits_narrow_screens_and_dark_ones(page):
    assert 'name="viewport"' in page
    assert "overflow-x: auto" in page
    assert "max-width: 100%" in page
    assert "prefers-color-scheme: dark" in page


def test_page_is_wellformed(page):
    void = {"meta", "link", "img", "br"}
    stack = []
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    for closing, name in re.findall(r"<(/?)([a-z0-9]+)[^>]*>", body):
        if closing:
            assert stack.pop() == name
        elif name not in void:
            stack.append(name)
    assert stack == []


def test_a_page_without_sections_renders():
    assert "Only this" in render_report(Report(title="t", headline="Only this"))
