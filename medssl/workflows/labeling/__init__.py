"""Labeling in a viewer: the folder beside the scans, who validates, and how the server is started."""
