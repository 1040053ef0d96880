//! The tools that a release is made with: maturin, zig, cargo-zigbuild and auditwheel, from PyPI, checked by their hashes.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, run};

/// Names, versions and hashes.
const LIST: &str = "packaging/tools.txt";

/// A Python environment with the tools.
pub(super) struct Tools {
    bin: PathBuf,
}

impl Tools {
    /// Installs the tools into `folder`, unless the list is what was installed.
    pub(super) fn install(root: &Path, folder: &Path) -> Result<Self> {
        let wanted = fs::read_to_string(root.join(LIST));
        let wanted = wanted.with_context(|| format!("cannot read {LIST}"))?;
        let tools = Self {
            bin: folder.join("bin"),
        };
        let marker = folder.join("installed.txt");
        if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
            return Ok(tools);
        }
        let name = folder.display().to_string();
        let arguments = ["-m", "venv", "--clear", &name];
        run(&mut command(root, "python3", &arguments))?;
        let pip = tools.bin.join("pip").display().to_string();
        let arguments = ["install", "-q", "--require-hashes", "-r", LIST];
        run(&mut command(root, &pip, &arguments))?;
        fs::write(&marker, wanted).with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(tools)
    }

    /// `PATH` with the tools in front.
    pub(super) fn path(&self) -> OsString {
        let rest = env::var_os("PATH").unwrap_or_default();
        let mut path = OsString::from(&self.bin);
        path.push(":");
        path.push(rest);
        path
    }

    /// The licence of musl, in zig's copy of its sources.
    pub(super) fn licence_of_musl(&self) -> Result<String> {
        let python = self.bin.join("python").display().to_string();
        let script = "import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent)";
        let zig = output(&mut command(&self.bin, &python, &["-c", script]))?;
        let file = Path::new(zig.trim()).join("lib/libc/musl/COPYRIGHT");
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }
}

/// The variable that names a compiler with the sources of its standard library, for targets that rustup cannot add.
const COMPILER: &str = "SIMMER_STATIC_RUSTC";

/// Where Rust's standard library for a target comes from.
#[derive(Debug)]
pub(super) enum StandardLibrary {
    /// Compiled, with the toolchain.
    Installed,
    /// Compiled with the program, by this compiler, from the sources beside it.
    Sources(PathBuf),
}

impl StandardLibrary {
    /// That of the toolchain, which rustup adds if it is missing; or that of the compiler that the variable names.
    pub(super) fn of(root: &Path, target: &str) -> Result<Self> {
        if let Some(compiler) = env::var_os(COMPILER).map(PathBuf::from) {
            let name = compiler.display().to_string();
            let sysroot = output(&mut command(root, &name, &["--print", "sysroot"]))?;
            let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock");
            if !sources.exists() {
                bail!(
                    "{COMPILER}={name}: the sources of the standard library are missing: {}",
                    sources.display()
                );
            }
            return Ok(Self::Sources(compiler));
        }
        let arguments = ["--print", "target-libdir", "--target", target];
        let folder = output(&mut command(root, "rustc", &arguments))?;
        if !Path::new(folder.trim()).exists() {
            run(&mut command(root, "rustup", &["target", "add", target])).context(format!(
                "the toolchain has no standard library for {target}; RELEASING.md says how {COMPILER} helps"
            ))?;
        }
        Ok(Self::Installed)
    }

    /// Arguments of `cargo rustc`: the library's sources, and zig's start files of C in place of those in a compiled library.
    pub(super) fn arguments(&self) -> &'static [&'static str] {
        match self {
            Self::Installed => &[],
            Self::Sources(_) => &[
                "-Zbuild-std=std,panic_unwind",
                "--",
                "-Clink-self-contained=no",
            ],
        }
    }

    /// Gives cargo the compiler. `-Zbuild-std` is not stable, so the variable makes a stable compiler take it.
    pub(super) fn set_up<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        match self {
            Self::Installed => cargo,
            Self::Sources(compiler) => cargo.env("RUSTC", compiler).env("RUSTC_BOOTSTRAP", "1"),
        }
    }
}
