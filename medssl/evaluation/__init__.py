"""Scores of tissue maps against a reference."""
