"""Points, triangles and boxes: what every other folder measures with."""
