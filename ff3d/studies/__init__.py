"""Many fits: planned, run, measured."""
