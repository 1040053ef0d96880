//! The packages: what starts the program with the torch of a Python, and versions that stand in several files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An installed `simmer-torch` for torch 2.9.0, whose program prints how it was started.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Self {
        let installed = Self(tempfile::tempdir().unwrap());
        for name in ["__init__.py", "__main__.py"] {
            let text = fs::read_to_string(root().join("packaging/torch/simmer_torch").join(name));
            installed.write(&format!("simmer_torch/{name}"), &text.unwrap());
        }
        installed.write(
            "simmer_torch/build.json",
            r#"{"torch": "2.9.0", "cuda": true}"#,
        );
        installed.write(
            "simmer_torch/simmer",
            "#!/bin/sh\necho \"$LD_LIBRARY_PATH $*\"\nexit 7\n",
        );
        let program = installed.0.path().join("simmer_torch/simmer");
        let arguments = ["+x", program.to_str().unwrap()];
        let done = Command::new("chmod").args(arguments).status().unwrap();
        assert!(done.success());
        installed
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Starts the launcher with a Python that has no other packages.
    fn start(&self) -> Output {
        Command::new("python3")
            .args(["-S", "-m", "simmer_torch", "train", "a recipe.toml"])
            .current_dir(self.0.path())
            .env("PYTHONPATH", self.0.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LD_LIBRARY_PATH", "/before")
            .output()
            .unwrap()
    }

    /// What the launcher says if it refuses to start the program.
    fn refused(&self) -> String {
        let output = self.start();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let python = said.split_whitespace().find(|word| word.contains("python"));
        let python = python.unwrap_or("PYTHON");
        said.replace(&self.0.path().display().to_string(), "SITE")
            .replace(python, "PYTHON")
    }
}

#[test]
fn the_launcher_checks_the_torch_that_it_finds() {
    let installed = Installed::new();
    insta::assert_snapshot!(installed.refused(), @"
    error: simmer-torch needs torch 2.9.0, and PYTHON has no torch
    hint: pip install torch==2.9.0, or pip uninstall simmer-torch to use the processor without torch
    ");
    installed.write("torch/__init__.py", "raise SystemError('not imported')");
    installed.write("torch/version.py", "__version__ = '2.11.0+cu130'\n");
    insta::assert_snapshot!(installed.refused(), @"
    error: this simmer-torch is built for torch 2.9.0; PYTHON has torch 2.11.0+cu130, in SITE/torch
    hint: pip install torch==2.9.0, or install the simmer-torch that is built for torch 2.11.0
    ");
    installed.write(
        "torch/version.py",
        "import x\n__version__ = \"2.9.0+cpu\"\n",
    );
    insta::assert_snapshot!(installed.refused(), @"
    error: this simmer-torch is built for torch with CUDA; the torch 2.9.0+cpu in SITE/torch has no libtorch_cuda.so
    hint: install the torch 2.9.0 of PyPI, or pip uninstall simmer-torch to use the processor without torch
    ");
    installed.write("torch/lib/libtorch_cuda.so", "");
    let output = installed.start();
    let printed = String::from_utf8(output.stdout).unwrap();
    let libraries = installed.0.path().join("torch/lib");
    assert_eq!(
        printed,
        format!("{}:/before train a recipe.toml\n", libraries.display())
    );
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn the_images_have_the_toolchain_of_the_checkout() {
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let version = toolchain
        .split('"')
        .nth(1)
        .filter(|version| version.starts_with("1."));
    let version = version.unwrap();
    for name in ["Dockerfile", "Dockerfile.cuda"] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        assert!(
            text.contains(&format!("FROM rust:{version}-slim-")),
            "{name}"
        );
        assert!(
            text.contains(&format!("RUSTUP_TOOLCHAIN={version}\n")),
            "{name}"
        );
    }
}
