"""Ways to run a network on one tile, one file each."""
