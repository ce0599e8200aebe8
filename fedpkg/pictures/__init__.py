"""Charts as data, and their drawings: static SVG, a standalone HTML page, PNG and SVG files by matplotlib."""
