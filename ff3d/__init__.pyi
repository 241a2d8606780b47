"""The public names of ff3d: where each is defined. Imported when first used."""

from .closing.watertight import watertight as watertight
from .fields.field import Field as Field
from .fields.field import LatticeField as LatticeField
from .fields.field import OccupancyField as OccupancyField
from .fields.field import load_field as load_field
from .fields.mapping import make_mapping as make_mapping
from .fields.network import Network as Network
from .fitting import Observer as Observer
from .fitting import fit as fit
from .formats.writers import save_mesh as save_mesh
from .geometry.coordinates import UnitCube as UnitCube
from .geometry.sampling import sample_near_surface as sample_near_surface
from .geometry.sampling import sample_uniform as sample_uniform
from .labels.oracles import make_oracle as make_oracle
from .labels.winding_number import WindingNumberOracle as WindingNumberOracle
from .metrics import LabelledPoints as LabelledPoints
from .metrics import iou as iou
from .metrics import surface_distances as surface_distances
from .points.test_sets import test_points as test_points
from .runs import Run as Run
from .shapes.mesh import inspect_mesh as inspect_mesh
from .shapes.mesh import load_mesh as load_mesh
from .shapes.point_cloud import PointCloud as PointCloud
from .shapes.point_cloud import load_points as load_points
from .shapes.sample_meshes import sample_mesh as sample_mesh
from .shapes.solids import SOLIDS as SOLIDS
from .studies.plan import make_plan as make_plan
from .studies.study import run_study as run_study
from .surfaces.extraction import extract_mesh as extract_mesh
from .theory.dynamics import descend as descend
from .theory.dynamics import draw_lazy_weights as draw_lazy_weights
from .theory.dynamics import linearized as linearized
from .theory.dynamics import tangent_kernel as tangent_kernel
from .theory.images import fit_image as fit_image
from .theory.shapes import ntk as ntk
from .theory.signals import fit_signal as fit_signal
from .views.rendering import render as render

__version__: str
