"""Starts simmer built with libtorch, with the libraries of the torch that this Python has.

The program is linked against one version of torch, since the C++ symbols change from version to version. `build.json`
says which one, and whether it was built with CUDA.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent


def fail(text, hint):
    sys.exit(f"error: {text}\nhint: {hint}")


def torch_folder(wanted):
    """The folder of the installed torch, which is not imported: that takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        fail(
            f"simmer-torch needs torch {wanted}, and {sys.executable} has no torch",
            f"pip install torch=={wanted}, or pip uninstall simmer-torch to use the processor without torch",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def torch_version(folder):
    """The version of the libraries in the folder, without what follows `+`; the metadata may be of another installation."""
    try:
        text = (folder / "version.py").read_text()
    except OSError:
        text = ""
    found = re.search(r"""^__version__ = ["']([^"']+)["']""", text, re.MULTILINE)
    return found.group(1) if found else importlib.metadata.version("torch")


def check(folder, build):
    """Ends the program, with a hint, if the torch in the folder is not the one that the program was built for."""
    wanted, found = build["torch"], torch_version(folder)
    if found.split("+")[0] != wanted:
        fail(
            f"this simmer-torch is built for torch {wanted}; {sys.executable} has torch {found}, in {folder}",
            f"pip install torch=={wanted}, or install the simmer-torch that is built for torch {found.split('+')[0]}",
        )
    if build["cuda"] and not (folder / "lib" / "libtorch_cuda.so").exists():
        fail(
            f"this simmer-torch is built for torch with CUDA; the torch {found} in {folder} has no libtorch_cuda.so",
            f"install the torch {wanted} of PyPI, or pip uninstall simmer-torch to use the processor without torch",
        )


def main():
    build = json.loads((HERE / "build.json").read_text())
    folder = torch_folder(build["torch"])
    check(folder, build)
    program = HERE / "simmer"
    paths = [str(folder / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
    try:
        os.execv(program, ["simmer", *sys.argv[1:]])
    except OSError as error:
        fail(f"cannot start {program}: {error.strerror}", "install simmer-torch again")
