//! Hands over to the build with libtorch, where the Python package `simmer-torch` is installed beside this program.
//!
//! `pip install "simmer[torch]"` installs two programs: this one, which computes on the processor, and a build with libtorch
//! behind the command `simmer-torch`, which finds the environment's torch. Who installs both wants the second one, whatever
//! command the documentation, or simmer's own hints, name.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

const WITH_LIBTORCH: &str = "simmer-torch";

/// Becomes the program with libtorch if it is installed beside this one; returns if it is not.
pub(crate) fn to_libtorch() -> Result<(), Failure> {
    let here = env::current_exe().ok();
    let Some(other) = here.as_deref().and_then(beside) else {
        return Ok(());
    };
    let error = Command::new(&other).args(env::args_os().skip(1)).exec();
    let failure = Failure::foreign(error).within(format!("cannot start {}", other.display()));
    Err(failure.and_hint(&format!(
        "install {WITH_LIBTORCH} again, or remove it: pip uninstall {WITH_LIBTORCH}"
    )))
}

/// The program with libtorch in the folder of this one.
fn beside(here: &Path) -> Option<PathBuf> {
    let other = here.with_file_name(WITH_LIBTORCH);
    other.is_file().then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_beside_the_program_counts() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("simmer");
        assert_eq!(beside(&here), None);
        let other = folder.path().join("simmer-torch");
        std::fs::create_dir(&other).unwrap();
        assert_eq!(beside(&here), None);
        std::fs::remove_dir(&other).unwrap();
        std::fs::write(&other, "").unwrap();
        assert_eq!(beside(&here), Some(other));
    }
}
