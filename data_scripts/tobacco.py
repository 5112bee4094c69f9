"""Tobacco: 3,492 scanned documents of ten kinds, in medssl's layout.

    python data_scripts/tobacco.py SOURCE OUT

SOURCE is the folder with one folder a kind. The study prints 3,492 images; other versions take --partial. Terms:
unknown. Not a medical task.

The split of the study is not known: ours is drawn by --seed. It tested on 871 images, as its printed accuracies
tell; about as many are drawn.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 3492, "classes": 10}, tested=871)

if __name__ == "__main__":
    run_task(TASK, __doc__)
