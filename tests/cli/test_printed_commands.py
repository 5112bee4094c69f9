"""D22: the commands that the pages print exist as printed, with their options and choices; nothing is run."""

import shlex
from contextlib import suppress

import click
import pytest
from pages import PAGES, mentioned, printed

from medssl.cli import main

COMMANDS = [(page.name, line) for page in PAGES for line in printed(page)]
MENTIONED = [(page.name, span) for page in PAGES for span in mentioned(page)]


def parse(line):
    """Let click read a command to its end without running it.

    Raises:
        click.UsageError: It has no such command, option, argument or choice.
    """
    words = shlex.split(line, comments=True)[1:]
    command, context = main, click.Context(main, info_name="medssl")
    while isinstance(command, click.Group):
        _, below, words = command.resolve_command(context, words)
        command, context = below, click.Context(below, parent=context)
    command.parse_args(context, words)


def test_the_pages_print_commands():
    names = [name for name, _ in COMMANDS]
    assert names.count("classification.md") >= 6
    assert names.count("README.md") >= 4
    assert len(MENTIONED) > 50


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_printed_command_exists(page, line):
    parse(line)


@pytest.mark.parametrize(("page", "span"), MENTIONED)
def test_a_command_in_the_text_exists_though_it_may_lack_arguments(page, span):
    with suppress(click.MissingParameter, click.BadOptionUsage):
        parse(span)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("medssl classify trian IMAGES --out RUN", "No such command"),
        ("medssl classify train IMAGES --out RUN --methods ssldec  # both", "No such option"),
        ("medssl classify train IMAGES --out RUN --method ssldeck", "is not one of"),
        ("medssl classify train IMAGES", "Missing parameter: out"),
    ],
)
def test_a_command_that_does_not_exist_is_seen(line, words):
    with pytest.raises(click.UsageError, match=words):
        parse(line)
