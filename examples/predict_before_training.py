"""Predict which mapping learns a shape fastest, from its neural tangent kernel, before any training."""

import ff3d

kernels = ff3d.ntk("bunny", points=500, slices=0, seed=0)
for mapping, learned in kernels.learned().items():
    print(f"{mapping:11}" + "".join(f"{share:8.3f}" for share in learned), "  after 10, 100, 1,000, 10,000 steps")
assert kernels.order()[0] == "none"
print("slowest first:", " < ".join(kernels.order()))
