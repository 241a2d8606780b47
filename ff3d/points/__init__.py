"""Which points are queried: for training, for tests, for data sets."""
