//! The message when a mapped file was truncated.

/// Prints an explanation when the process ends because a mapped page cannot be read: the file was truncated while it was
/// in use, or the disk fails. The process still ends with the signal (SIGBUS).
///
/// Call this once, at the start of a program.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a signal handler cannot be set without it")]
pub fn explain_bus_errors() {
    extern "C" fn explain(_: libc::c_int) {
        const TEXT: &[u8] = b"error: a mapped file can no longer be read (SIGBUS)\n  \
            because: the file was truncated while it was in use, or the disk fails\n\
            hint: do not change a model's files while they are in use; the checkpoints of a run are complete, \
            continue from the last one with --resume\n";
        // SAFETY: `write` and `signal` are async-signal-safe. After the handler, the access is repeated and ends the
        // process by the signal's default action.
        unsafe {
            libc::write(libc::STDERR_FILENO, TEXT.as_ptr().cast(), TEXT.len());
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        }
    }
    let handler = explain as extern "C" fn(libc::c_int);
    // SAFETY: the handler is a static function and only calls async-signal-safe functions.
    unsafe {
        libc::signal(libc::SIGBUS, handler as libc::sighandler_t);
    }
}

/// Other systems use this signal for other errors too.
#[cfg(not(target_os = "linux"))]
pub fn explain_bus_errors() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::env;
    use std::process::Command;

    /// Set in the child process that is killed by the signal.
    const CUT: &str = "SIMMER_TEST_CUTS_A_MAPPED_FILE";

    #[test]
    fn a_file_that_got_shorter_is_put_into_words() {
        if env::var_os(CUT).is_some() {
            super::explain_bus_errors();
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 16).unwrap();
            let map = crate::map_file(&file).unwrap();
            file.set_len(0).unwrap();
            panic!("a byte beyond the end: {}", map[1 << 15]);
        }
        let name = "bus_error::tests::a_file_that_got_shorter_is_put_into_words";
        let mut child = Command::new(env::current_exe().unwrap());
        let ended = child.args(["--exact", name, "--nocapture"]).env(CUT, "");
        let ended = ended.output().unwrap();
        assert_eq!(ended.status.code(), None, "it ends with the signal");
        let said = String::from_utf8(ended.stderr).unwrap();
        insta::assert_snapshot!(said, @r"
        error: a mapped file can no longer be read (SIGBUS)
          because: the file was truncated while it was in use, or the disk fails
        hint: do not change a model's files while they are in use; the checkpoints of a run are complete, continue from the last one with --resume
        ");
    }
}
