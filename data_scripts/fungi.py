"""Fungi: 1,204 microscopic photos of four classes, in medssl's layout.

    python data_scripts/fungi.py SOURCE OUT

The layout of the download is not known to us: SOURCE is a folder with one folder a class, or pass --table with a
CSV file of your own. Terms: unknown.

The split of the study is not known: ours is drawn by --seed. It tested on 316 images, as its printed accuracies
tell; about as many are drawn.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 1204, "classes": 4}, tested=316)

if __name__ == "__main__":
    run_task(TASK, __doc__)
