"""Retinal OCT (Kermany): 84,484 scans of four classes, 1,000 of them for testing, in medssl's layout.

    python data_scripts/retinal_oct.py SOURCE OUT

SOURCE holds train/ and test/ with CNV, DME, DRUSEN and NORMAL; the count is without the small val/ that some
downloads have. CC BY 4.0.
"""

from __future__ import annotations

from common import Task, run_task

TASK = Task(counts={"images": 84_484, "classes": 4, "test": 1000})

if __name__ == "__main__":
    run_task(TASK, __doc__)
