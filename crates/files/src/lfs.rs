//! Pointers of git-lfs: small text files in the place of large ones that were not downloaded.

/// What to do about a pointer.
pub const LFS_HINT: &str =
    "run `git lfs pull` in the folder of the file, or download the file itself, with `hf download`";

/// Whether a file is a pointer of git-lfs, by its first bytes.
///
/// Source: git-lfs, docs/spec.md.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/v1")
}
