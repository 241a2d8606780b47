"""Draw pictures without a window: a mesh as clay, and a field's answer in a slice."""

import numpy as np
from PIL import Image

import ff3d

mesh = ff3d.load_mesh("knot")
Image.fromarray(ff3d.render(mesh, size=(320, 240))).save("knot.png")

field = ff3d.fit(mesh, "voxels", steps=1)  # no network: 256 cells along the cube
low, high = mesh.bounds
x, y = np.meshgrid(np.linspace(low[0], high[0], 256), np.linspace(high[1], low[1], 256))
occupancy = field.occupancy(np.stack([x, y, np.full_like(x, (low[2] + high[2]) / 2)], axis=-1).reshape(-1, 3))
Image.fromarray((255 * (1 - occupancy.reshape(256, 256))).astype(np.uint8)).save("slice.png")
print("knot.png, slice.png")
