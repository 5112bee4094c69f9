"""What pages call the scores of a classifier."""

SCORES = {
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "macro precision",
    "auroc": "AUROC",
    "ece": "ECE",
}
"""Key of a record -> what the page calls it."""
