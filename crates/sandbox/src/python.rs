//! The Python installation that runs programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::SandboxError;

/// What an interpreter says about itself, as JSON.
const ASK: &str = "\
import json, os, platform, sys
print(json.dumps({
    'executable': sys.executable,
    'version': platform.python_implementation() + ' ' + platform.python_version(),
    'folders': [sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))],
}))";

/// A Python installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// The interpreter.
    pub executable: PathBuf,
    /// Its implementation and version: `CPython 3.12.4`.
    pub version: String,
    /// The folders of its files.
    pub(crate) folders: Vec<PathBuf>,
}

impl Python {
    /// Asks the interpreter at this path, or of this name in `PATH`, about itself. This runs outside the sandbox.
    ///
    /// # Errors
    /// If it cannot be started, or is no Python 3.
    pub fn find(path: &Path) -> Result<Self, SandboxError> {
        let wrong = |problem: String| SandboxError::Python {
            path: path.to_owned(),
            problem,
        };
        let found = Command::new(path).args(["-I", "-c", ASK]).output();
        let found = found.map_err(|error| wrong(error.to_string()))?;
        if !found.status.success() {
            let said = String::from_utf8_lossy(&found.stderr);
            let last = said.lines().last().unwrap_or("it failed").trim();
            return Err(wrong(last.to_owned()));
        }
        let python: Self =
            serde_json::from_slice(&found.stdout).map_err(|error| wrong(error.to_string()))?;
        if python
            .folders
            .iter()
            .any(|folder| folder.parent().is_none())
        {
            return Err(wrong(
                "its files are not in a folder of their own".to_owned(),
            ));
        }
        Ok(python)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_python_is_refused() {
        let error = Python::find(Path::new("/no/such/python")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/no/such/python: expected a Python")
        );
        #[cfg(unix)]
        {
            let error = Python::find(Path::new("/bin/true")).unwrap_err();
            assert!(error.to_string().contains("/bin/true"), "{error}");
        }
    }
}
