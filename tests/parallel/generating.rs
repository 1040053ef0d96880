//! A recipe that generates rows by the tiny base model, in batches of two groups.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with the recipe, and with the rows of its runs.
pub(super) struct Generated {
    folder: tempfile::TempDir,
    recipe: String,
}

impl Generated {
    pub(super) fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let recipe = fs::read_to_string(root.join("recipes/generate/kitchen.toml")).unwrap();
        let root = root.display();
        let recipe = recipe.replace("\"recipes/", &format!("\"{root}/recipes/"));
        let recipe = recipe.replace("\"data/", &format!("\"{root}/data/"));
        // several batches, each in two groups
        let recipe = recipe.replace("target = 5", "target = 12");
        let recipe = recipe.replace("batch = 8", "batch = 4");
        let table = "[model.local]\ndevice = \"cpu\"\ntogether = 2";
        let recipe = recipe.replace("[model.local]", table);
        let folder = tempfile::tempdir().unwrap();
        let this = Self { folder, recipe };
        fs::write(this.recipe_file(), &this.recipe).unwrap();
        this
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn recipe_file(&self) -> PathBuf {
        self.folder().join("recipe.toml")
    }

    /// Another table in the place of the model's, which is the last one.
    #[cfg(feature = "mpi")]
    pub(super) fn of_model(&self, table: &str) {
        let local = self.recipe.find("[model.local]").unwrap();
        fs::write(self.recipe_file(), [&self.recipe[..local], table].concat()).unwrap();
    }

    /// Of the command that writes the rows to a folder.
    pub(super) fn arguments(&self, out: &str) -> [OsString; 5] {
        let out = self.folder().join(out).into_os_string();
        let recipe = self.recipe_file().into_os_string();
        [
            "data".into(),
            "generate".into(),
            recipe,
            "--out".into(),
            out,
        ]
    }

    /// The files of a run.
    pub(super) fn files(&self, out: &str) -> [Vec<u8>; 4] {
        [
            "data.jsonl",
            "provenance.jsonl",
            "dropped.jsonl",
            "report.json",
        ]
        .map(|file| fs::read(self.folder().join(out).join(file)).unwrap())
    }
}
