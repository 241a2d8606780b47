"""What the server that forks workers imports, so that each worker starts at once. For that process alone.

Importing it changes the process: its threads wait briefly, and the signals by which a study is ended are left to the
parent, which tells the workers (`ff3d.studies.workers`). The server ends when the parent does.
"""

from ff3d.geometry.cores import shorten_waits
from ff3d.progress import block_signals

shorten_waits()
block_signals()  # here, so that no thread of any worker hears them

import igl  # noqa: E402, F401  (what each fit imports, the slow ones)
import safetensors.torch  # noqa: E402, F401
import scipy.spatial  # noqa: E402, F401
import torch  # noqa: E402, F401
import trimesh  # noqa: E402, F401

import ff3d.studies.workers  # noqa: E402, F401
