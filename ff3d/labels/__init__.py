"""Inside or outside: repair, winding numbers, grids of labels, second opinions."""
