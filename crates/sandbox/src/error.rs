//! Errors of the sandbox itself.

use std::io;
use std::path::PathBuf;

use simmer_hint::Hint;

/// Why a program cannot be run in a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system has no sandbox.
    #[error("programs written by a model run only in a sandbox, and that needs Linux")]
    NotLinux,
    /// The kernel refuses a step.
    #[error("cannot run programs in a sandbox: {step}")]
    Refused {
        /// The step, and what the kernel said.
        step: String,
    },
    /// The program cannot start itself.
    #[error("cannot start the sandbox: {source}")]
    Start {
        /// The cause.
        source: io::Error,
    },
    /// The Python interpreter does not work.
    #[error("{}: expected a Python interpreter, found: {problem}", path.display())]
    Python {
        /// The interpreter, as given.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Hint for SandboxError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotLinux => "evaluate these tasks on Linux, or leave them out of --tasks",
            Self::Refused { .. } => {
                "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or \
                 kernel.apparmor_restrict_unprivileged_userns; in a container: --security-opt seccomp=unconfined), \
                 or leave out --run-code"
            }
            Self::Python { .. } => "name an interpreter of Python 3 with --python PATH",
            Self::Start { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
