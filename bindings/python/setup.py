"""Builds the extension and puts libbusway and buswayd into the wheel.

Where they come from, in this order:
  $BUSWAY_BUILD     a folder with libbusway.so and buswayd (build/release of a tree that was built)
  the tree          that this folder is in (../../Makefile): `make` builds what is missing or old
  pkg-config        an installed libbusway (make install); nothing is put into the wheel, the system's library is used
$BUSWAY_SYSTEM=1 takes pkg-config's at once. From Python 3.11 on the extension uses the stable ABI: one wheel for all versions.
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
ABI3 = sys.version_info >= (3, 11) and not bool(getattr(sys, "_is_gil_enabled", lambda: True)() is False)


def pkg_config(*what):
    out = subprocess.run(["pkg-config", *what, "libbusway"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, check=False)
    return out.stdout.strip() if out.returncode == 0 else None


def from_tree():
    """The tree's build folder, built; None when this is not in a tree."""
    if not (TREE / "Makefile").is_file() or not (TREE / "include" / "busway" / "busway.h").is_file():
        return None
    if not shutil.which("make"):
        raise SystemExit("busway: make is missing, which builds libbusway (apt-get install make gcc)")
    made = subprocess.run(["make", "-C", str(TREE), "-j2", "--no-print-directory", "build/release/libbusway.so", "build/release/buswayd"],
                          env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "VARIANT")},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, check=False)
    if made.returncode != 0:
        tail = "\n".join(made.stdout.splitlines()[-15:])
        raise SystemExit(f"busway: `make` in {TREE} failed; `make deps` there installs what it needs from Debian:\n{tail}")
    return TREE / "build" / "release"


class Library:
    """Where the headers and the library are."""

    def __init__(self):
        self.vendor = []
        self.include, self.libdir = [], []
        given = os.environ.get("BUSWAY_BUILD")
        build = Path(given).resolve() if given else None if os.environ.get("BUSWAY_SYSTEM") else from_tree()
        if build:
            self.libdir = [str(build)]
            self.include = [str(TREE / "include")]
            shared = build / "libbusway.so"
            if not shared.exists() or not (build / "buswayd").exists():
                raise SystemExit(f"busway: {build} has no libbusway.so or no buswayd")
            soname = "libbusway.so." + self.version(TREE / "include").split(".")[0]
            self.vendor = [(shared.resolve(), soname), (build / "buswayd", "buswayd")]
        else:
            flags = pkg_config("--cflags", "--libs")
            if flags is None:
                raise SystemExit("busway: neither a source tree around this package nor an installed libbusway (pkg-config libbusway) was found")
            for flag in flags.split():
                if flag.startswith("-I"):
                    self.include.append(flag[2:])
                if flag.startswith("-L"):
                    self.libdir.append(flag[2:])

    @staticmethod
    def version(include):
        text = (Path(include) / "busway" / "version.h").read_text()
        return re.search(r'BW_VERSION_STRING "([^"]+)"', text).group(1)


LIBRARY = None


def library():
    global LIBRARY
    if LIBRARY is None:
        LIBRARY = Library()
    return LIBRARY


class BuildPy(build_py):
    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            target = HERE / "src" / "busway" / "_lib"
        else:
            target = Path(self.build_lib) / "busway" / "_lib"
        for source, name in library().vendor:
            target.mkdir(parents=True, exist_ok=True)
            copy = target / name
            if copy.exists():
                copy.unlink()  # a running daemon keeps its file
            shutil.copy2(source, copy)


class BuildExt(build_ext):
    def build_extension(self, ext):
        found = library()
        ext.include_dirs += found.include
        ext.library_dirs += found.libdir
        if not found.vendor:
            ext.runtime_library_dirs += [d for d in found.libdir if d not in ("/usr/lib", "/lib")]
        super().build_extension(ext)


def version():
    include = TREE / "include"
    if (include / "busway" / "version.h").is_file():
        return Library.version(include)
    return pkg_config("--modversion") or "0.1.0"


sources = sorted(str(p.relative_to(HERE)) for p in (HERE / "src" / "busway").glob("*.c"))
extension = Extension(
    "busway._busway",
    sources,
    depends=[str(p.relative_to(HERE)) for p in (HERE / "src" / "busway").glob("*.h")],
    libraries=["busway"],
    define_macros=[("_GNU_SOURCE", "1")] + ([("Py_LIMITED_API", "0x030B0000")] if ABI3 else []),
    extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-missing-field-initializers"]
    + os.environ.get("BUSWAY_CFLAGS", "").split(),
    extra_link_args=["-Wl,-rpath,$ORIGIN/_lib"] + os.environ.get("BUSWAY_LDFLAGS", "").split(),
    py_limited_api=ABI3,
)

setup(
    version=version(),
    ext_modules=[extension],
    cmdclass={"build_py": BuildPy, "build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
