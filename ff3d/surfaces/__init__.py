"""From a function of points to a closed mesh."""
