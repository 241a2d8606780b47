"""ff3d: meshes to compact neural shapes.

The public names stand in `__init__.pyi`, and each module is imported when one of its names is first used: a machine
with torch and numpy alone can train, and `import ff3d` costs nothing.
"""

import sys

try:
    import lazy_loader
except ImportError:  # torch, numpy and safetensors alone: `from ff3d.fields.field import load_field` works there too
    __all__: list[str] = []
else:
    __getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
if (_shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()) is not None:
    from ff3d.viewer.notebook import register

    register(_shell)
__version__ = "0.1.0"
