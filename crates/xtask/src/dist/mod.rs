//! What a release consists of, in target/dist: wheels, archives and their checksums.
//!
//! Each part is one release build:
//!
//! - `wheel`: for glibc 2.28 and newer (zig links against the symbols of that version), as a Python wheel and an archive;
//! - `static`: with musl, without any shared library, as an archive;
//! - `torch`: with libtorch and CUDA, as the wheel `simmer-torch`, for one version of torch;
//! - `torch-cpu`: the same without CUDA.
//!
//! The check of a change does not run this.

mod archive;
mod licences;
mod tools;
mod torch;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, run};
use crate::stage::clean_commit;
use tools::{StandardLibrary, Tools};
use torch::Kind;

/// The folder for what is released.
const FOLDER: &str = "target/dist";

/// Folders of one file, inside [`FOLDER`], while it is made.
const STAGE: &str = "stage";

/// The version, which all crates share.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const PARTS: [&str; 4] = ["wheel", "static", "torch", "torch-cpu"];

/// What is made if no part is named.
const DEFAULT: [&str; 2] = ["wheel", "static"];

/// Makes some parts of a release; checksums are those of all files in target/dist.
///
/// # Errors
/// If a part is unknown, a build fails, or a result is not what it has to be: the wheel for its manylinux policy, the
/// static program without shared libraries.
pub(crate) fn make(root: &Path, parts: &[&str]) -> Result<()> {
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
        bail!("unknown part `{unknown}`; parts: {}", PARTS.join(", "));
    }
    if cfg!(not(target_os = "linux")) {
        bail!("`cargo xtask dist` makes packages for Linux, on Linux");
    }
    if clean_commit(root)?.is_none() {
        println!("warning: the working tree has changes: this is no release");
    }
    let dist = Dist::new(root)?;
    for part in if parts.is_empty() { &DEFAULT } else { parts } {
        match *part {
            "wheel" => wheel::make(&dist)?,
            "static" => dist.make_static()?,
            "torch" => torch::make(&dist, Kind::Cuda)?,
            _ => torch::make(&dist, Kind::Cpu)?,
        }
    }
    dist.checksums()
}

/// Folders, tools and the date of a release.
struct Dist {
    root: PathBuf,
    folder: PathBuf,
    tools: Tools,
    /// The time of the commit, in seconds since 1970, so that the same sources give the same archives.
    epoch: String,
}

impl Dist {
    fn new(root: &Path) -> Result<Self> {
        let folder = root.join(FOLDER);
        fs::create_dir_all(&folder).context("cannot create target/dist")?;
        let epoch = output(&mut command(root, "git", &["log", "-1", "--format=%ct"]))?;
        Ok(Self {
            root: root.to_owned(),
            tools: Tools::install(root, &root.join("target/dist-tools"))?,
            folder,
            epoch: epoch.trim().to_owned(),
        })
    }

    /// The platform that is built for: this machine's processor, with this C library (`gnu` or `musl`).
    fn target(libc: &str) -> String {
        format!("{}-unknown-linux-{libc}", std::env::consts::ARCH)
    }

    /// An empty folder for the files of one result.
    fn stage(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(STAGE).join(name);
        let _ = fs::remove_dir_all(&folder);
        let created = fs::create_dir_all(&folder);
        created.with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// A program with the tools in front of everything in `PATH`, and the time of the commit for archives.
    fn command(&self, folder: &Path, program: &str, arguments: &[&str]) -> Command {
        let mut command = command(folder, program, arguments);
        command
            .env("PATH", self.tools.path())
            .env("SOURCE_DATE_EPOCH", &self.epoch)
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_INCREMENTAL", "0");
        command
    }

    /// Where cargo puts the program.
    fn built(&self, target: &str) -> PathBuf {
        let folder = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let folder = folder.unwrap_or_else(|| self.root.join("target"));
        folder.join(target).join("release/simmer")
    }

    /// The static program, as an archive.
    fn make_static(&self) -> Result<()> {
        let target = Self::target("musl");
        let library = StandardLibrary::of(&self.root, &target)?;
        let start = ["rustc", "--release", "--locked", "--bin", "simmer"];
        let arguments = [&start[..], &["--target", &target], library.arguments()].concat();
        let mut cargo = self.command(&self.root, "cargo-zigbuild", &arguments);
        run(library.set_up(&mut cargo))?;
        let program = self.built(&target);
        let bytes =
            fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
        if let Some(loader) = archive::loader(&bytes) {
            bail!("{}: not static: it asks for {loader}", program.display());
        }
        archive::make(self, &program, &target)
    }

    /// Writes SHA256SUMS, of every file that is released.
    fn checksums(&self) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).context("cannot read target/dist")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if [".whl", ".tar.gz"].iter().any(|end| name.ends_with(end)) {
                names.push(name);
            }
        }
        names.sort();
        let sums = output(&mut command(&self.folder, "sha256sum", &names))?;
        fs::write(self.folder.join("SHA256SUMS"), &sums).context("cannot write SHA256SUMS")?;
        print!("{sums}");
        for name in names {
            let bytes = self.folder.join(&name).metadata()?.len();
            println!("{FOLDER}/{name}: {:.1} MB", bytes as f64 / 1e6);
        }
        Ok(())
    }
}
