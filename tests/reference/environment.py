#!/usr/bin/env python3
"""Makes a virtual environment with the packages of requirements.txt, where torch comes without NVIDIA's libraries.

    python3 tests/reference/environment.py FOLDER

torch on PyPI is built for CUDA and requires 2.5 GB of NVIDIA's libraries, which nothing here uses: the references compute
on the processor. They are left out. The dynamic linker still looks for their names when torch is loaded, so that empty
libraries of these names are compiled beside torch's own; whoever calls a function of CUDA stops at once (SIGILL). Two
small libraries that torch calls while it is loaded (cudart, cupti) are the real ones. Needs a C compiler and `nm` and
`readelf` (binutils). An environment that is there, with the same requirements, is left as it is.
"""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
REAL = ("nvidia-cuda-runtime", "nvidia-cuda-cupti")
# names of functions that NVIDIA's libraries define
CUDA = re.compile(r"(nvshmem|nvrtc|nccl|cu[A-Z]|cu(da|blas|dnn|fft|file|pti|rand|solver|sparse)|__cuda)")


def run(*words) -> str:
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True).stdout


def trim_requirements(metadata: Path) -> list[str]:
    """Takes NVIDIA's packages and triton out of what torch says it requires; returns the two that stay, with versions."""
    lines = metadata.read_text().splitlines(keepends=True)
    required = [line for line in lines if re.match(r"Requires-Dist: (nvidia-|triton)", line)]
    metadata.write_text("".join(line for line in lines if line not in required))
    specs = [re.match(r"Requires-Dist: ([^;\s]+)", line)[1] for line in required]
    return [spec for spec in specs if spec.startswith(REAL)]


def write_stand_ins(libraries: Path, real: Path) -> None:
    """Compiles empty libraries under the names that torch's are linked against and that are nowhere."""
    ours = sorted(libraries.glob("*.so*"))
    needed = {name for file in ours for name in re.findall(r"NEEDED.*\[(.+)\]", run("readelf", "-d", file))}
    there = {file.name for file in ours} | {file.name for file in real.glob("*/lib/*.so*")}
    system = set(re.findall(r"^\s*(\S+) \(", run("/sbin/ldconfig", "-p"), re.MULTILINE))
    missing = sorted(needed - there - system)

    undefined, defined = set(), set()
    for file in ours:
        for line in run("nm", "-D", file).splitlines():
            kind, name = line.split()[-2:]
            (undefined if kind == "U" else defined).add(name.split("@")[0])
    functions = sorted(name for name in undefined - defined if CUDA.match(name))

    def compile(name: str, source: str, *options: str) -> None:
        command = ["cc", "-w", "-O0", "-fno-builtin", "-fPIC", "-shared", f"-Wl,-soname,{name}", "-x", "c", "-"]
        command += ["-o", str(libraries / name), *options]
        subprocess.run(command, input=source, check=True, text=True)

    all_functions = "libwithout_cuda.so"
    compile(all_functions, "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in functions))
    for name in missing:
        compile(name, "", "-Wl,--no-as-needed", f"-L{libraries}", "-lwithout_cuda", "-Wl,-rpath,$ORIGIN")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    requirements = (HERE / "requirements.txt").read_text()
    installed = folder / "installed.txt"
    if installed.exists() and installed.read_text() == requirements:
        return
    run(sys.executable, "-m", "venv", "--clear", folder)
    pip = [folder / "bin/pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    torch = re.search(r"^torch==\S+", requirements, re.MULTILINE)[0]
    run(*pip, "--no-deps", torch)
    packages = folder / Path(sysconfig.get_path("purelib", vars={"base": ""}).lstrip("/"))
    [metadata] = packages.glob("torch-*.dist-info/METADATA")
    real = trim_requirements(metadata)
    if real:
        run(*pip, "--no-deps", *real)
        write_stand_ins(packages / "torch/lib", packages / "nvidia")
    run(*pip, "-r", HERE / "requirements.txt")
    installed.write_text(requirements)


if __name__ == "__main__":
    main()
