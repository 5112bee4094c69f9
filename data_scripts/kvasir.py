"""Kvasir v2: 8,000 endoscopic photos of eight classes, in medssl's layout.

    python data_scripts/kvasir.py SOURCE OUT

SOURCE is the folder with one folder a class (kvasir-dataset-v2). Terms: look them up with your copy.

The split of the study is not known: ours is drawn by --seed. It tested on 2,000 images, as its printed accuracies
tell; about as many are drawn.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 8000, "classes": 8}, tested=2000)

if __name__ == "__main__":
    run_task(TASK, __doc__)
