//! The wheel `simmer-torch`: the program built with libtorch, and a launcher that finds the torch of the environment.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Dist, VERSION, archive, licences, wheel};
use crate::build::Build;
use crate::shell::{output, run};

/// The package's sources.
const SOURCES: &str = "packaging/torch";

/// Which libtorch the program is linked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// That of torch's wheels on PyPI, which need CUDA's libraries.
    Cuda,
    /// One without CUDA. The program runs with any torch of the version.
    Cpu,
}

/// Builds the program against libtorch, and makes the wheel.
///
/// zig links it with the symbols of an old glibc, as the wheel without torch. libtorch is C++, built with GCC's C++ library, so
/// scripts in `packaging/torch` give zig the headers and the library of this machine's GCC.
pub(super) fn make(dist: &Dist, kind: Kind) -> Result<()> {
    let build = match kind {
        Kind::Cuda => Build::for_gpus(&dist.root)?,
        Kind::Cpu => Build::for_libtorch_on_processors(&dist.root)?,
    };
    let target = Dist::target("gnu");
    let policy = wheel::policy();
    let out = dist.stage("torch-program")?.display().to_string();
    let script = |name: &str| dist.root.join(SOURCES).join(name).display().to_string();
    let linker = format!("linker={}", script("link"));
    // as the wheel without torch is built, with the same linker for all but the program: crates with the same features are compiled once
    let arguments = [
        "build",
        "--release",
        "--locked",
        "--zig",
        "--target",
        &target,
        "--compatibility",
        &policy,
        "--auditwheel",
        "skip",
        "--features",
        "libtorch",
        "--out",
        &out,
        "--",
        "-C",
        &linker,
        // the name of the script says nothing: it takes a compiler's options
        "-C",
        "linker-flavor=gcc",
    ];
    let compat = compiled(dist)?;
    let mut maturin = dist.command(&dist.root, "maturin", &arguments);
    let variable = target.replace('-', "_");
    build
        .set_up(&mut maturin)
        .env("GLIBC", glibc())
        .env("COMPAT", &compat)
        .env(format!("CXX_{variable}"), script("c++"));
    run(&mut maturin)?;
    let libtorch = build.libtorch().context("libtorch is not set up")?;
    package(dist, &dist.built(&target), &libtorch)
}

/// The oldest glibc, such as `2.28`.
fn glibc() -> String {
    wheel::GLIBC.replace('_', ".")
}

/// Compiles what an old C++ library lacks; returns the object file.
fn compiled(dist: &Dist) -> Result<PathBuf> {
    let object = dist.stage("torch-compat")?.join("old_libstdcxx.o");
    let out = object.display().to_string();
    let arguments = ["-c", "-O2", "-fPIC", "old_libstdcxx.cpp", "-o", &out];
    let sources = dist.root.join(SOURCES);
    let compiler = sources.join("c++").display().to_string();
    run(dist
        .command(&sources, &compiler, &arguments)
        .env("GLIBC", glibc()))?;
    Ok(object)
}

/// The wheel of a program that was built against the torch in `libtorch`.
fn package(dist: &Dist, program: &Path, libtorch: &Path) -> Result<()> {
    let version = torch_version(libtorch)?;
    let cuda = libtorch.join("lib/libtorch_cuda.so").exists();
    // torch's own wheels without CUDA have versions such as 2.9.0+cpu
    let own = if cuda {
        VERSION.to_owned()
    } else {
        format!("{VERSION}+cpu")
    };
    let stage = dist.stage("torch")?;
    let module = stage.join("simmer_torch");
    fs::create_dir_all(&module).with_context(|| format!("cannot create {}", module.display()))?;
    let sources = dist.root.join(SOURCES);
    for file in [
        "pyproject.toml",
        "simmer_torch/__init__.py",
        "simmer_torch/__main__.py",
    ] {
        archive::copy(&sources.join(file), &stage.join(file))?;
    }
    for file in ["LICENSE-APACHE", "LICENSE-MIT"] {
        archive::copy(&dist.root.join(file), &stage.join(file))?;
    }
    let texts = licences::collect(dist, &Dist::target("gnu"), &["--features", "libtorch"])?;
    archive::write(&stage.join(licences::FILE), &texts)?;
    archive::write(&stage.join("VERSION"), &own)?;
    let requirements = format!("simmer=={VERSION}\ntorch=={version}\n");
    archive::write(&stage.join("requirements.txt"), &requirements)?;
    let about = format!("{{\"torch\": \"{version}\", \"cuda\": {cuda}}}\n");
    archive::write(&module.join("build.json"), &about)?;
    archive::copy(program, &module.join("simmer"))?;
    let arguments = [
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--wheel-dir",
        "built",
    ];
    run(&mut dist.command(&stage, "pip", &arguments))?;
    let built = stage.join(format!("built/simmer_torch-{own}-py3-none-any.whl"));
    let platform = format!("linux_{}", std::env::consts::ARCH);
    let built = tagged(dist, &built, &platform)?;
    let platform = wheel::constrained(dist, &built)?;
    let built = tagged(dist, &built, &platform)?;
    archive::copy(
        &built,
        &dist.folder.join(built.file_name().unwrap_or_default()),
    )
}

/// Gives a wheel another platform tag; returns the new wheel, and removes the old one.
fn tagged(dist: &Dist, wheel: &Path, platform: &str) -> Result<PathBuf> {
    let folder = wheel.parent().unwrap_or(&dist.folder);
    let name = wheel.display().to_string();
    let arguments = ["tags", "--remove", "--platform-tag", platform, &name];
    let new = output(&mut dist.command(folder, "wheel", &arguments))?;
    let new = new.lines().last().unwrap_or_default().trim();
    if new.is_empty() {
        bail!("`wheel tags` named no new wheel");
    }
    Ok(folder.join(new))
}

/// The version of the torch in a folder, without what follows `+`.
fn torch_version(libtorch: &Path) -> Result<String> {
    let file = libtorch.join("version.py");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = "));
    let version = line.with_context(|| format!("{}: no __version__", file.display()))?;
    let version = version.trim().trim_matches(['\'', '"']);
    Ok(version.split('+').next().unwrap_or(version).to_owned())
}
