"""Training sets of many meshes, as other projects read them."""
