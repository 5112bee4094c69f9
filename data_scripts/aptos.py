"""Blindness (APTOS 2019): 3,662 fundus photos of five grades, in medssl's layout.

    python data_scripts/aptos.py SOURCE OUT --table SOURCE/train.csv

SOURCE holds train_images/; the labels are in train.csv (id_code,diagnosis): pass it with --table. Terms: those of
the competition.

The split of the study is not known: ours is drawn by --seed. It tested on 913 images, as its printed accuracies
tell; about as many are drawn.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 3662, "classes": 5}, tested=913, columns=("id_code", "diagnosis", ""))

if __name__ == "__main__":
    run_task(TASK, __doc__)
