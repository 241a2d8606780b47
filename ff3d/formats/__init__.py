"""Mesh files, format by format: bytes <-> polygons."""
