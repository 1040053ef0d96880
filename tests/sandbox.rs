//! Programs in the sandbox: what they may not do. Where the kernel has no namespaces these tests fail.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use simmer_sandbox::{Limits, Outcome, Python, Sandbox, SandboxError};

/// A time that no program of these tests needs, not even on a slow machine whose disk caches nothing yet.
/// Those that would never end have their own.
fn limits() -> Limits {
    Limits {
        seconds: 60.0,
        ..Limits::default()
    }
}

pub(crate) fn sandbox(limits: Limits) -> Sandbox {
    let python = Python::find(Path::new("python3")).unwrap();
    let program = env!("CARGO_BIN_EXE_simmer").into();
    Sandbox::new(Some(program), python, limits).unwrap()
}

fn run(code: &str) -> Outcome {
    sandbox(limits()).run(code).unwrap()
}

/// The number of processes that call themselves so.
fn processes(name: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let comms = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
    comms.filter(|comm| comm.trim() == name).count()
}

/// Python that names its process.
fn named(name: &str) -> String {
    format!("import ctypes, os\nctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0)\n")
}

#[test]
fn a_program_passes_if_it_runs_to_its_end() {
    let sandbox = sandbox(limits());
    assert!(
        sandbox.python().version.starts_with("CPython 3."),
        "{:?}",
        sandbox.python()
    );
    let passed = [
        "",
        "print('é')\nassert sorted({3, 1}) == [1, 3]",
        // as under `code_eval`, the program is no module
        "if __name__ == '__main__':\n    raise ValueError",
        "import sys, math, json, re, itertools, collections, heapq, typing, hashlib, decimal",
        "with open('/tmp/mine', 'w') as file:\n    file.write('x' * 1000)\nassert open('mine').read()",
        "import threading\nthreading.Thread(target=lambda: threading.Event().wait()).start()",
    ];
    for code in passed {
        assert_eq!(sandbox.run(code).unwrap(), Outcome::Passed, "{code}");
    }
    let failed = [
        ("assert 1 == 2, 'unequal'", "AssertionError: unequal"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(0)", "exit code 0"),
        ("import os\nos._exit(0)", "exit code 0"),
        ("input()", "EOFError: EOF when reading a line"),
        ("import ctypes\nctypes.string_at(0)", "killed"),
    ];
    for (code, why) in failed {
        let Outcome::Failed(found) = sandbox.run(code).unwrap() else {
            panic!("{code}");
        };
        assert!(found.starts_with(why), "{code}: {found}");
    }
}

#[test]
fn an_endless_loop_ends_with_its_time() {
    let sandbox = sandbox(Limits {
        seconds: 1.0,
        ..limits()
    });
    let begin = Instant::now();
    assert_eq!(sandbox.run("while True: pass").unwrap(), Outcome::TimedOut);
    assert_eq!(
        sandbox.run("import time\ntime.sleep(60)").unwrap(),
        Outcome::TimedOut
    );
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_fork_bomb_stays_within_its_processes_and_leaves_none() {
    let count = "
import time
children = 0
for _ in range(100):
    try:
        if os.fork() == 0:
            time.sleep(60)
        children += 1
    except BlockingIOError:
        break
assert 0 < children < 8, children
";
    assert_eq!(run(&(named("bomb-counts") + count)), Outcome::Passed);
    assert_eq!(processes("bomb-counts"), 0);
    let sandbox = sandbox(Limits {
        seconds: 1.0,
        ..limits()
    });
    let bomb = "
while True:
    try:
        os.setsid()
        os.fork()
    except OSError:
        pass
";
    assert_eq!(
        sandbox.run(&(named("bomb-forks") + bomb)).unwrap(),
        Outcome::TimedOut
    );
    assert_eq!(processes("bomb-forks"), 0);
}

#[test]
fn a_child_does_not_outlive_the_program() {
    let code = "
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        time.sleep(60)
    os._exit(0)
os.wait()
";
    let begin = Instant::now();
    assert_eq!(run(&(named("outlives") + code)), Outcome::Passed);
    assert_eq!(processes("outlives"), 0);
    assert!(begin.elapsed() < Duration::from_secs(50));
}

#[test]
fn memory_is_bounded() {
    let small = Limits {
        memory: 256 << 20,
        scratch: 4 << 20,
        ..limits()
    };
    let sandbox = sandbox(small);
    let bombs = [
        "bytearray(1 << 30)",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
    ];
    for code in bombs {
        let outcome = sandbox.run(code).unwrap();
        assert_eq!(outcome, Outcome::Failed("MemoryError".to_owned()), "{code}");
    }
    // memory that belongs to no process, and files in memory
    let code = "
import os, ctypes
def refused(call):
    try:
        call()
    except OSError:
        return
    raise AssertionError(call)
refused(lambda: os.memfd_create('x'))
assert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) == -1
def fill():
    for number in range(10):
        with open(f'/tmp/{number}', 'wb') as file:
            file.write(bytes(1 << 20))
refused(fill)
";
    assert_eq!(sandbox.run(code).unwrap(), Outcome::Passed);
}

/// Each of ten children is below both limits, and all of them are far above the second.
#[test]
fn memory_of_all_processes_together_is_bounded() {
    let sandbox = sandbox(Limits {
        memory: 160 << 20,
        total_memory: 200 << 20,
        processes: 16,
        ..limits()
    });
    assert!(sandbox.counts_all_memory());
    let children = "
import os, time
for _ in range(10):
    if os.fork() == 0:
        x = b'x' * (90 << 20)
        time.sleep(30)
        os._exit(0)
for _ in range(10):
    os.wait()
";
    let begin = Instant::now();
    let outcome = sandbox.run(&(named("fill-memory") + children)).unwrap();
    assert_eq!(outcome, Outcome::TooMuchMemory);
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(processes("fill-memory"), 0);
    // what a child shares with its parent counts once
    let shared = "
import os, time
x = b'x' * (70 << 20)
for _ in range(5):
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
for _ in range(5):
    assert os.wait()[1] == 0
";
    assert_eq!(sandbox.run(shared).unwrap(), Outcome::Passed);
}

#[test]
fn files_of_the_machine_are_neither_written_nor_seen() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let code = r"
import os, shutil, sys
def refused(call, *args):
    try:
        call(*args)
    except OSError:
        return
    raise AssertionError((call, args))
for path in [SECRET, '/etc/passwd', '/etc/shadow', '/proc/self/environ', '/proc/1/cmdline', '/sys', '/home', '/root/.ssh', MANIFEST]:
    assert not os.path.exists(path), path
    refused(os.remove, path)
folders = ['/', '/usr', '/usr/bin', '/lib', '/dev', sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)]
for folder in folders:
    refused(open, folder + '/new', 'w')
    refused(os.mkdir, folder + '/folder')
    refused(os.chmod, folder, 0o777)
refused(open, os.__file__, 'a')
refused(os.remove, os.__file__)
refused(os.rename, sys.executable, '/tmp/python')
for folder in ['/tmp', '/dev', os.path.dirname(os.__file__) + '/json']:
    shutil.rmtree(folder, ignore_errors=True)
assert os.path.exists(os.path.dirname(os.__file__) + '/json/__init__.py')
assert os.path.exists(os.__file__) and os.path.exists('/dev/null')
open('/dev/null', 'w').write('x')
assert len(os.urandom(8)) == 8
assert os.listdir('/tmp') == []
";
    let shown = |path: &Path| format!("{:?}", path.display().to_string());
    let code = code.replace("SECRET", &shown(&secret));
    let code = code.replace("MANIFEST", &shown(Path::new(env!("CARGO_MANIFEST_DIR"))));
    assert_eq!(run(&code), Outcome::Passed);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
}

#[test]
fn there_is_no_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let code = format!(
        "
import socket, urllib.request
def refused(call):
    try:
        call()
    except OSError:
        return
    raise AssertionError
refused(lambda: socket.create_connection(('127.0.0.1', {port}), 1))
refused(lambda: socket.create_connection(('1.1.1.1', 80), 1))
refused(lambda: urllib.request.urlopen('http://example.com', timeout=1))
for family in range(2, 46):
    refused(lambda: socket.socket(family, socket.SOCK_DGRAM))
    refused(lambda: socket.socket(family, socket.SOCK_STREAM))
refused(lambda: socket.socket(16, socket.SOCK_RAW))
a, b = socket.socketpair()
a.send(b'x')
assert b.recv(1) == b'x'
"
    );
    assert_eq!(run(&code), Outcome::Passed);
    assert!(listener.accept().is_err());
}

#[test]
fn output_has_a_limit() {
    let sandbox = sandbox(limits());
    let begin = Instant::now();
    for stream in ["stdout", "stderr"] {
        let code = format!(
            "import sys\nwhile True:\n    try: sys.{stream}.write('x' * 10000)\n    except OSError: pass"
        );
        assert_eq!(sandbox.run(&code).unwrap(), Outcome::TooMuchOutput);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        sandbox.run("print('x' * 100_000)").unwrap(),
        Outcome::Passed
    );
}

#[test]
fn environment_and_open_files_are_not_passed_on() {
    let code = "
import os
allowed = {'HOME', 'LANG', 'LC_CTYPE', 'PATH', 'PYTHONHASHSEED', 'TMPDIR'}
assert set(os.environ) <= allowed, os.environ
for number in range(3, 64):
    try:
        os.fstat(number)
    except OSError:
        continue
    raise AssertionError(number)
import sys
assert sys.argv == ['runner.py'], sys.argv
";
    assert_eq!(run(code), Outcome::Passed);
}

#[test]
fn there_is_no_privilege() {
    let code = "
import os, socket, ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert os.getuid() == os.geteuid() == os.getgid() == 65534, os.getuid()
def refused(call, *args):
    try:
        call(*args)
    except OSError:
        return
    raise AssertionError((call, args))
for user in [0, 1, 1000]:
    refused(os.setuid, user)
    refused(os.setgid, user)
refused(os.chroot, '/tmp')
refused(socket.sethostname, 'x')
refused(os.setgroups, [0])
refused(os.mknod, '/tmp/disk', 0o60600, os.makedev(8, 0))
refused(os.chown, '/tmp', 0, 0)
for flags in [0x10000000, 0x10020000, 0x20000, 0x40000000, 0x20000000]:
    assert libc.unshare(flags) == -1, flags
assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1
assert libc.umount2(b'/usr', 2) == -1
# remounting writable
assert libc.mount(None, b'/', None, 0x1020, None) == -1
assert libc.prctl(1, 0, 0, 0, 0) == -1
assert libc.ptrace(0, 0, 0, 0) == -1
import resource
for limit in [resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE]:
    soft, hard = resource.getrlimit(limit)
    assert soft == hard > 0
    try:
        resource.setrlimit(limit, (hard, hard + 1))
    except (ValueError, OSError):
        continue
    raise AssertionError(limit)
";
    assert_eq!(run(code), Outcome::Passed);
}

#[test]
fn nothing_runs_without_the_sandbox() {
    let python = Python::find(Path::new("python3")).unwrap();
    // a program that is no stage, as if the kernel had refused the first one
    for program in ["/bin/true", "/bin/false"] {
        let found = Sandbox::new(Some(program.into()), python.clone(), limits());
        assert!(
            matches!(found, Err(SandboxError::Refused { .. })),
            "{found:?}"
        );
    }
    let found = Python::find(Path::new("/bin/true"));
    assert!(
        matches!(found, Err(SandboxError::Python { .. })),
        "{found:?}"
    );
}
