"""A small drawing layer: scales, marks and axes, rendered as SVG without any other library."""
