//! How the workspace is compiled: with which features, and which environment they need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, run};
use crate::stage::Outcome;

/// A selection of features. All stages that compile take the same one, so that dependencies are compiled once.
pub(crate) struct Build {
    pub(crate) root: PathBuf,
    /// The environment for libtorch and MPI; empty without the features.
    environment: Vec<(String, String)>,
}

/// Variables that `tools/libtorch` and `tools/mpi` set.
const VARIABLES: [&str; 7] = [
    "LIBTORCH",
    "LIBTORCH_BYPASS_VERSION_CHECK",
    "LD_LIBRARY_PATH",
    "MPICC",
    "MPIRUN",
    "LIBCLANG_PATH",
    "BINDGEN_EXTRA_CLANG_ARGS",
];

impl Build {
    /// The default features.
    pub(crate) fn of_users(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            environment: Vec::new(),
        }
    }

    /// With the features `libtorch` and `mpi` if libtorch is set up in `target/libtorch`, else the default features. Such a build has
    /// the device `cpu` too, so it can run every test.
    ///
    /// # Errors
    /// If `tools/libtorch` or `tools/mpi` fails.
    pub(crate) fn with_libtorch(root: &Path) -> Result<Self> {
        if root.join("target/libtorch").exists() {
            Self::with_exports(root, "tools/libtorch --cpu && tools/mpi")
        } else {
            Ok(Self::of_users(root))
        }
    }

    /// With libtorch for NVIDIA GPUs, which is downloaded if it is not there.
    ///
    /// # Errors
    /// If `tools/libtorch` fails.
    pub(crate) fn for_gpus(root: &Path) -> Result<Self> {
        Self::with_exports(root, "tools/libtorch")
    }

    /// With libtorch without CUDA, which is downloaded if it is not there.
    ///
    /// # Errors
    /// If `tools/libtorch` fails.
    pub(crate) fn for_libtorch_on_processors(root: &Path) -> Result<Self> {
        Self::with_exports(root, "tools/libtorch --cpu")
    }

    /// With the libraries that scripts set up, which print the environment for them.
    fn with_exports(root: &Path, scripts: &str) -> Result<Self> {
        let mut build = Self::of_users(root);
        let exports = output(&mut command(root, "sh", &["-c", scripts]))?;
        let script = format!("{exports}\nenv -0");
        let environment = output(&mut command(root, "sh", &["-c", &script]))?;
        let variables = environment
            .split('\0')
            .filter_map(|variable| variable.split_once('='));
        build.environment = variables
            .filter(|(name, _)| VARIABLES.contains(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if build.variable("LIBTORCH").is_none() {
            bail!("`{scripts}` printed no environment:\n{exports}");
        }
        Ok(build)
    }

    pub(crate) fn has_libtorch(&self) -> bool {
        self.variable("LIBTORCH").is_some()
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let mut variables = self.environment.iter();
        let (_, value) = variables.find(|(known, _)| known == name)?;
        Some(value)
    }

    /// The folder of libtorch.
    pub(crate) fn libtorch(&self) -> Option<PathBuf> {
        self.variable("LIBTORCH").map(PathBuf::from)
    }

    pub(crate) fn features(&self) -> &'static [&'static str] {
        match (self.has_libtorch(), self.variable("MPICC")) {
            (true, Some(_)) => &["--features", "libtorch,mpi"],
            (true, None) => &["--features", "libtorch"],
            (false, _) => &[],
        }
    }

    /// Gives a command the environment of this build.
    pub(crate) fn set_up<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)))
    }

    /// A cargo command over the workspace, without the state of incremental builds.
    pub(crate) fn cargo(&self, subcommand: &str, arguments: &[&str]) -> Command {
        let start = [subcommand, "--workspace", "--locked"];
        let arguments = [&start[..], self.features(), arguments].concat();
        let mut cargo = command(&self.root, "cargo", &arguments);
        cargo
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_INCREMENTAL", "0");
        self.set_up(&mut cargo);
        cargo
    }

    /// Runs a cargo command over the workspace.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) fn run(&self, subcommand: &str, arguments: &[&str]) -> Result<Outcome> {
        run(&mut self.cargo(subcommand, arguments))?;
        Ok(Outcome::Passed)
    }

    /// A file that runs simmer as this build made it, with the libraries that it needs, without changing anyone else's environment.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn program(&self) -> Result<PathBuf> {
        let program = self.root.join("target/debug/simmer");
        if !self.has_libtorch() {
            return Ok(program);
        }
        let script = self.root.join("target/ci/simmer");
        let exports = self.environment.iter();
        let exports = exports.map(|(name, value)| format!("export {name}='{value}'\n"));
        let exports: Vec<String> = exports.collect();
        let text = format!(
            "#!/bin/sh\n{}exec '{}' \"$@\"\n",
            exports.concat(),
            program.display()
        );
        fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
        run(&mut command(
            &self.root,
            "chmod",
            &["+x", "target/ci/simmer"],
        ))?;
        Ok(script)
    }
}
