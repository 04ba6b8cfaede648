"""Lets a CUDA build of torchvision import beside a CPU build of torch.

Nothing of ours needs torchvision, but transformers and trl import it wherever it is installed, and torchvision then
registers kernels for two operators that its CUDA library, which does not load here, should have declared
(stack.md section 3). Applied on the first import of `tvg.model`, before anything can import torchvision.
"""

import importlib.util
from pathlib import Path

import torch

OPERATORS = ("nms", "qnms")


def _native(package: Path) -> bool:
    """Whether torchvision's own library loads: a true CPU build, which declares the operators itself."""
    libraries = [path for path in package.glob("_C.*") if path.suffix in (".so", ".pyd", ".dylib")]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return bool(libraries)


def declare_operators() -> torch.library.Library | None:
    """Declare what torchvision misses; None where there is nothing to mend. The result must be kept alive."""
    found = importlib.util.find_spec("torchvision") if torch.version.cuda is None else None
    if found is None or found.origin is None or _native(Path(found.origin).parent):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


LIBRARY = declare_operators()
