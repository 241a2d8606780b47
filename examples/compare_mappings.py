"""Compare mappings at equal steps: none against Gaussian Fourier features, on points that no fit saw."""

import ff3d

mesh = ff3d.load_mesh("bracket")
tests = {kind: ff3d.test_points(mesh, kind, count=10_000, seed=0) for kind in ("uniform", "boundary")}

for mapping in ("none", "gaussian"):
    scale = {"scale": 4.0} if mapping == "gaussian" else {}  # cycles along the cube: few, for so short a fit
    field = ff3d.fit(mesh, mapping, steps=150, width=64, depth=2, batch_size=2048, pool_size=2**15, seed=0, **scale)
    scores = {kind: ff3d.iou(field.contains, points) for kind, points in tests.items()}
    print(f"{mapping:9}" + "".join(f"  {kind} {score:.3f}" for kind, score in scores.items()))
# These budgets are small, to be quick; ff3d.fit(mesh, mapping, seconds=60) is what the docs' tables compare.
