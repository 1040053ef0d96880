//! What `simmer -V` and `simmer --version` print: what a report of a fault has to say.

use std::sync::LazyLock;

use simmer_kernels::instructions;
use simmer_train::program;

/// One line: version, commit and its date.
pub(crate) fn short() -> &'static str {
    static SHORT: LazyLock<String> = LazyLock::new(|| {
        program::version_and_commit(program::VERSION, program::COMMIT, program::COMMIT_DATE)
    });
    &SHORT
}

/// Several lines: also the platform, the features, and the instructions that this processor computes with.
pub(crate) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{}\ncommit: {}\ndate: {}\ntarget: {}\nfeatures: {}\ninstructions: {}",
            program::VERSION,
            program::COMMIT,
            program::COMMIT_DATE,
            program::TARGET,
            features(),
            instructions()
        )
    });
    &LONG
}

/// The features, and whether libtorch is one with CUDA.
fn features() -> String {
    let cuda = simmer_kernels::has_cuda();
    let features = program::features();
    let features = features
        .iter()
        .map(|feature| match (feature.as_str(), cuda) {
            ("libtorch", true) => "libtorch with CUDA".to_owned(),
            ("libtorch", false) => "libtorch without CUDA".to_owned(),
            (feature, _) => feature.to_owned(),
        });
    let features: Vec<String> = features.collect();
    if features.is_empty() {
        "none (no libtorch, no CUDA)".to_owned()
    } else {
        features.join(", ")
    }
}
