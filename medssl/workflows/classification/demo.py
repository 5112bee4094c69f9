"""The whole path of classification on simulated images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from medssl.workflows.classification.baseline import train_with_baseline
from medssl.workflows.classification.bench import bench_exports
from medssl.workflows.classification.check import check_folder
from medssl.workflows.classification.distill import distill
from medssl.workflows.classification.distill_options import DistillOptions
from medssl.workflows.classification.evaluate import evaluate_classifier, write_evaluation
from medssl.workflows.classification.export import export_run
from medssl.workflows.classification.report import write_report
from medssl.workflows.classification.simulate import simulate_folder
from medssl.workflows.classification.train import ClassifyOptions
from medssl.workflows.demo import Bar, make_room
from medssl.workflows.watching import Watcher


@dataclass(frozen=True)
class ImageDemoPlan:
    """The size of the demo.

    Args:
        labeled: Images a class whose labels training sees.
        validation: Images a class that choose the best step and judge the methods.
        test: Images a class that only the final scores see.
        unlabeled: Images without a label.
        size: Pixels a side.
        steps: Optimizer steps of each method.
        seed: Of everything.
    """

    labeled: int = 10
    validation: int = 25
    test: int = 50
    unlabeled: int = 600
    size: int = 48
    steps: int = 300
    seed: int = 0


def demo(
    out: Path,
    plan: ImageDemoPlan | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None],
    bar: Bar,
    training_bar: Callable[[], AbstractContextManager[Watcher]],
) -> Path:
    """Simulate, check, train, distill, evaluate, export, measure and report; return the report.

    Args:
        out: Folder to make.
        plan: The size of the demo.
        overwrite: Replace an earlier demo in ``out``.
        say: Told each command before it runs.
        bar: Opens a progress bar.
        training_bar: Opens the progress of a training.

    Raises:
        OutputError: The folder is in use.
    """
    plan = plan or ImageDemoPlan()
    make_room(out, overwrite)
    images, run, student, files = out / "images", out / "run", out / "student", out / "files"
    numbers = f"--labeled {plan.labeled} --validation {plan.validation} --test {plan.test}"
    shared = f"--size {plan.size} --preset microscopy --steps {plan.steps} --seed {plan.seed}"
    commands = [
        f"medssl classify simulate images {numbers} --unlabeled {plan.unlabeled} --size {plan.size} --seed {plan.seed}",
        "medssl classify check images",
        f"medssl classify train images --out run --method ssldec {shared}",
        f"medssl classify distill images --out student --kind data {shared}",
        "medssl classify export run --out files --int8",
        "medssl classify bench files --data images --out bench.json",
        "medssl classify evaluate images --out report --model run --exported files",
    ]
    say(commands[0])
    with bar("Simulating") as progress:
        simulate_folder(
            images,
            labeled=plan.labeled,
            validation=plan.validation,
            test=plan.test,
            unlabeled=plan.unlabeled,
            size=plan.size,
            seed=plan.seed,
            progress=progress,
        )
    say(commands[1])
    with bar("Checking") as progress:
        found = check_folder(images, progress=progress)
    say(f"{found.unlabeled} unlabeled images, {len(found.problems)} problems")
    options = ClassifyOptions(
        method="ssldec", size=plan.size, preset="microscopy", steps=plan.steps, seed=plan.seed
    )
    say(commands[2])
    with training_bar() as watcher:
        train_with_baseline(images, run, options, watcher, say=say)
    say(commands[3])
    with training_bar() as watcher:
        distill(images, student, DistillOptions(student=options), watcher, say=say)
    say(commands[4])
    export_run(run, files, int8=True)
    say(commands[5])
    bench = bench_exports([files], images, out=out / "bench.json")
    say(bench.choice.sentence)
    say(commands[6])
    with bar("Evaluating") as progress:
        result = evaluate_classifier(images, run, progress=progress)
    write_evaluation(out / "report", result, images)
    return write_report(
        out / "report", images, run, result, bench=bench, student=student, exported=files, commands=commands
    )
