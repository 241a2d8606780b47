"""ff3d: meshes to compact neural shapes."""
