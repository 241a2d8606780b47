"""Distances on a lattice that is halved towards the surface: what a shape takes without a network."""
