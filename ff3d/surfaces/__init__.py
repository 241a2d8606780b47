"""From a function of points to a closed mesh, cleaned and written to a file."""
