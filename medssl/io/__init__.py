"""The only place that knows files: where scans lie, how they are read, checked and written."""
