"""Scores of tissue maps and of classifiers, and what follows from them: verdicts, audits, comparisons."""
