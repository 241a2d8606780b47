"""Why mappings differ: kernels of wide networks, and what they learn first."""
