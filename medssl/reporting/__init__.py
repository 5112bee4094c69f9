"""Figures and the HTML report. The only home of matplotlib and jinja2."""
