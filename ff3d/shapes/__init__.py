"""Meshes, point clouds and exact solids, and where they come from."""
