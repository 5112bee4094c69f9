"""ISIC, the selection of the study: 1,500 dermatoscopic photos of seven diagnoses, in medssl's layout.

    python data_scripts/isic.py SOURCE OUT

Which 1,500 is not known to us: SOURCE is a folder with one folder a class, or pass --table with a CSV file of your
own; others than those take --partial. Terms: look them up with your copy (one of ISIC 2019 is CC BY-NC 4.0).

The split of the study is not known: ours is drawn by --seed. It tested on 376 images, as its printed accuracies
tell; about as many are drawn.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 1500, "classes": 7}, tested=376)

if __name__ == "__main__":
    run_task(TASK, __doc__)
