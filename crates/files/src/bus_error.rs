//! What a person reads when a mapped file got shorter.

/// Says in words why the process ends when a page of a map is no longer there: the file was cut while it was in use, or
/// the disk cannot read it. The process ends with the signal (SIGBUS) all the same.
///
/// To be called once, at the start of a program.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a signal handler cannot be set without it")]
pub fn explain_bus_errors() {
    extern "C" fn explain(_: libc::c_int) {
        const TEXT: &[u8] = b"error: a file that simmer has mapped can no longer be read (SIGBUS)\n  \
            because: it was made shorter while it was in use, or the disk fails\n\
            hint: files of a model must stay as they are while they are used; checkpoints of a run are whole, \
            --resume goes on from the last\n";
        // SAFETY: `write` and `signal` may be called in a handler. After it, the access is tried again and ends the
        // process by the signal's default action.
        unsafe {
            libc::write(libc::STDERR_FILENO, TEXT.as_ptr().cast(), TEXT.len());
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        }
    }
    let handler = explain as extern "C" fn(libc::c_int);
    // SAFETY: the handler only calls what a handler may call, and stays where it is.
    unsafe {
        libc::signal(libc::SIGBUS, handler as libc::sighandler_t);
    }
}

/// Other systems use this signal for more than that.
#[cfg(not(target_os = "linux"))]
pub fn explain_bus_errors() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::env;
    use std::process::Command;

    /// Set for the process that is to end.
    const CUT: &str = "SIMMER_TEST_CUTS_A_MAPPED_FILE";

    #[test]
    fn a_file_that_got_shorter_is_put_into_words() {
        if env::var_os(CUT).is_some() {
            super::explain_bus_errors();
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 16).unwrap();
            let map = crate::map_file(&file).unwrap();
            file.set_len(0).unwrap();
            panic!("a byte that is not there: {}", map[1 << 15]);
        }
        let name = "bus_error::tests::a_file_that_got_shorter_is_put_into_words";
        let mut child = Command::new(env::current_exe().unwrap());
        let ended = child.args(["--exact", name, "--nocapture"]).env(CUT, "");
        let ended = ended.output().unwrap();
        assert_eq!(ended.status.code(), None, "it ends with the signal");
        let said = String::from_utf8(ended.stderr).unwrap();
        insta::assert_snapshot!(said, @r"
        error: a file that simmer has mapped can no longer be read (SIGBUS)
          because: it was made shorter while it was in use, or the disk fails
        hint: files of a model must stay as they are while they are used; checkpoints of a run are whole, --resume goes on from the last
        ");
    }
}
