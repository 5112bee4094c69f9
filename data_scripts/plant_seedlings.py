"""Plant seedlings: 5,500 photos of twelve species, in medssl's layout.

    python data_scripts/plant_seedlings.py SOURCE OUT

SOURCE is the folder with one folder a species. The study prints 5,500 images; downloads differ by version, and
others take --partial. Terms: look them up with your copy.

The split of the study is not known: ours is drawn by --seed, in the study's proportion.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 5500, "classes": 12}, test_share=0.19)

if __name__ == "__main__":
    run_task(TASK, __doc__)
