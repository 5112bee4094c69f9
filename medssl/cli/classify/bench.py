"""`medssl classify bench`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from medssl.cli.classify.common import outside_option
from medssl.cli.common import EXISTING, STDERR, STDOUT, example
from medssl.cores import cores


@example("medssl classify bench phone --data images --max-mb 5 --max-ms 10")
@click.command()
@click.argument("exports", type=EXISTING, nargs=-1, required=True)
@click.option(
    "--data",
    type=EXISTING,
    help="Images whose val/ scores the files.  [default: what the --run of one export held out]",
)
@click.option(
    "--run",
    "models",
    type=EXISTING,
    multiple=True,
    help="The run that was exported, for each of EXPORTS, to time torch too, and to know which images it has seen.",
)
@click.option("--threads", type=click.IntRange(1), multiple=True, default=tuple(sorted({1, cores()})),
              show_default="1 and the number of cores",
              help="Numbers of threads to time with; repeat the option. The answer is that of the first.")  # fmt: skip
@click.option("--batch", "batches", type=click.IntRange(2), multiple=True,
              help="Time runs of several images too, for the throughput; repeat the option.")  # fmt: skip
@click.option(
    "--runs", default=50, show_default=True, type=click.IntRange(50), help="Timed runs of each form."
)
@click.option("--openvino", is_flag=True, help="Time OpenVINO as well.")
@click.option("--max-mb", type=float, help="Which is the best within this size?")
@click.option("--max-ms", type=float, help="Which is the best within this time?")
@click.option("--out", type=EXISTING, help="JSON to write, with a picture of the same name beside it.")
@outside_option
def bench(exports: tuple[Path, ...], **options: object) -> None:
    """Time the exported classifiers in the folders EXPORTS, one image at a time, and say which one fits.

    Times hold for this machine only: measure on the one that will run the model.
    """
    from medssl.workflows.classification.bench import bench_exports
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    done = bench_exports(exports, **options)
    table = Table(box=None, pad_edge=False)
    for name in ("export", "form", "threads", "images", "p50 ms", "p95 ms", "images/s", "peak MB"):
        table.add_column(name, justify="left" if name in ("export", "form") else "right")
    for name, rows in done.rows.items():
        for row in rows:
            times = (f"{row.p50_ms:.2f}", f"{row.p95_ms:.2f}", f"{row.images_per_second:.0f}")
            peak = f"{done.peak_mb[name][row.name]:.0f}"
            table.add_row(name, row.name, str(row.threads), str(row.batch), *times, peak)
    STDOUT.print(table)
    sizes = ", ".join(f"{one.name} {one.size_mb:.2f} MB" for one in done.candidates)
    for name, cost in done.costs.items():
        STDERR.print(
            f"{name}: {cost.network}, {cost.parameters / 1e6:.2f} M parameters, "
            f"{cost.multiply_adds / 1e6:.1f} M multiply-adds an image.",
            soft_wrap=True,
        )
    STDERR.print(f"Files: {sizes}. Peak memory: of a process with one thread, Python and libraries included.")
    for warning in done.warnings:
        STDERR.print(warning, style="yellow", soft_wrap=True)
    STDERR.print(
        f"Not beaten in accuracy, time and size at once: {', '.join(one.name for one in done.best) or 'n/a'}."
    )
    STDOUT.print(done.choice.sentence, soft_wrap=True)
