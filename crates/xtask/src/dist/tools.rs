//! The tools that a release is made with: maturin, zig, cargo-zigbuild and auditwheel, from PyPI, checked by their hashes.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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

/// Adds Rust's standard library for a target, unless the toolchain has it.
pub(super) fn standard_library(root: &Path, target: &str) -> Result<()> {
    let arguments = ["--print", "target-libdir", "--target", target];
    let folder = output(&mut command(root, "rustc", &arguments))?;
    if Path::new(folder.trim()).exists() {
        return Ok(());
    }
    run(&mut command(root, "rustup", &["target", "add", target]))
}
