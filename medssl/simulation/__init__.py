"""The built-in cohort: iso-intense infant T1w and T2w scans with their true tissue maps, from nothing but a seed."""
