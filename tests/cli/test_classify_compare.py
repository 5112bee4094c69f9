import pytest
from click.testing import CliRunner

from medssl.cli.classify.compare import ANALYSES, compare
from medssl.errors import MedsslError
from medssl.workflows.classification.compare_options import ANALYSES as KNOWN


def call(*arguments):
    return CliRunner().invoke(compare, [str(one) for one in arguments])


@pytest.fixture
def table(tmp_path):
    lines = [f"set {n},{network},base,{0.7 + gain + 0.01 * n}" for n in range(7)
             for network, gain in (("MixNet", 0.1), ("FBNet", 0.05), ("[bold]Net", 0.0))]  # fmt: skip
    path = tmp_path / "results.csv"
    path.write_text("\r\n".join(["dataset,network,method,f1", *lines, "set 9,MixNet,base,1.7"]))
    return path


def test_help_has_examples_and_the_words_of_the_workflow():
    result = call("--help")
    assert result.exit_code == 0
    assert "medssl classify compare results.csv" in result.output.split("Example:")[1]
    assert list(KNOWN) == ANALYSES


def test_the_sentence_goes_to_standard_output_and_findings_to_standard_error(table, tmp_path):
    out = tmp_path / "out"
    result = call(table, "--out", out)
    assert result.exit_code == 0, result.output
    assert "Over 7 data sets, MixNet has the best mean rank in f1" in result.stdout
    assert "[bold]Net" in result.stdout
    assert str(out) in result.stdout
    assert "f1 1.7 is outside [0, 1]" in result.stderr
    assert (out / "comparison.md").exists()


def test_two_pairs_on_the_command_line(table, tmp_path):
    pairs = ["--pair", "MixNet + base", "--pair", "FBNet + base"]
    result = call(table, "--out", tmp_path / "out", "--what", "two", *pairs)
    assert result.exit_code == 0, result.output
    assert "MixNet + base against FBNet + base: +5.0 points" in result.stdout


@pytest.mark.parametrize("options", [["--what", "seeds"], ["--metric", "dice"], ["--failed", "zero"], []])
def test_wrong_usage_ends_with_two(table, tmp_path, options):
    out = ["--out", tmp_path / "out"] if options else []
    assert call(table, *out, *options).exit_code == 2


def test_an_option_that_nothing_would_follow_is_refused(table, tmp_path):
    result = call(table, "--out", tmp_path / "out", "--what", "methods", "--under", "nonsense")
    assert isinstance(result.exception, MedsslError)
    assert "'methods' has no use for --under" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_bad_table_is_an_error_of_the_package(tmp_path):
    """The group turns it into one message and exit code 1."""
    (tmp_path / "bad.csv").write_text("dataset,network,f1\na,b,0.5\n")
    result = call(tmp_path / "bad.csv", "--out", tmp_path / "out")
    assert isinstance(result.exception, MedsslError)
    assert not (tmp_path / "out").exists()
