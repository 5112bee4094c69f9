"""Whole volumes through a network: the brain's box, the fewest and largest tiles, one thin backend a file."""
