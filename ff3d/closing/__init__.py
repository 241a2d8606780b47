"""Any shape to a closed mesh, without a network: the one place where a shape meets extraction directly."""
