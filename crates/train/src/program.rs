//! What the program is built from: version, commit, features and platform.

/// The version of simmer.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that simmer is built from, followed by " (changed)" if the sources that a run depends on differ from it.
/// Outside of a repository, the variable `SIMMER_COMMIT` of the build; without it, "unknown".
pub const COMMIT: &str = env!("SIMMER_COMMIT");

/// The date of the commit, as 2026-11-28; outside of a repository, the variable `SIMMER_COMMIT_DATE` of the build, or
/// "unknown".
pub const COMMIT_DATE: &str = env!("SIMMER_COMMIT_DATE");

/// The platform that simmer is built for, as x86_64-unknown-linux-gnu.
pub const TARGET: &str = env!("SIMMER_TARGET");

/// The Cargo features that simmer is built with.
pub fn features() -> Vec<String> {
    let features = simmer_kernels::features().into_iter();
    let mpi = cfg!(feature = "mpi").then_some("mpi");
    features.chain(mpi).map(str::to_owned).collect()
}

/// Version and commit on one line: `0.1.0 (603488a1c2d3 2026-11-28)`, or the version alone if the commit is unknown.
///
/// An empty `date` is left out.
pub fn version_and_commit(version: &str, commit: &str, date: &str) -> String {
    const DIGITS: usize = 12;
    let (hash, changed) = match commit.split_once(' ') {
        Some((hash, changed)) => (hash, format!(" {changed}")),
        None => (commit, String::new()),
    };
    if hash.is_empty() || hash == "unknown" {
        return version.to_owned();
    }
    let hash = hash.get(..DIGITS).unwrap_or(hash);
    let date = match date {
        "" | "unknown" => String::new(),
        date => format!(" {date}"),
    };
    format!("{version} ({hash}{date}){changed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_its_commit_if_that_is_known() {
        let commit = "603488a1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7";
        let changed = format!("{commit} (changed)");
        let shown = |commit: &str, date: &str| version_and_commit("0.1.0", commit, date);
        assert_eq!(
            shown(commit, "2026-11-28"),
            "0.1.0 (603488a1c2d3 2026-11-28)"
        );
        assert_eq!(shown(&changed, ""), "0.1.0 (603488a1c2d3) (changed)");
        assert_eq!(shown("v1.0-é", "unknown"), "0.1.0 (v1.0-é)");
        assert_eq!(shown("unknown", "unknown"), "0.1.0");
    }
}
