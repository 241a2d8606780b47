"""Close a broken mesh: what is wrong with it, the closed surface, and how far the two lie apart."""

import ff3d

soup = ff3d.load_mesh("soup")  # or a file: holes, flipped and doubled patches, a cut ball inside
print(ff3d.inspect_mesh(soup))

closed = ff3d.watertight(soup, resolution=64)
assert closed.is_watertight
assert closed.volume > 0

bunny = ff3d.load_mesh("bunny")  # what the soup was before it was broken
found = ff3d.surface_distances(closed, bunny, count=10_000)
print(f"volume {closed.volume:.4f}, F-score against the unbroken mesh {found.f_score:.4f}")
ff3d.save_mesh(closed, "closed.ply")
