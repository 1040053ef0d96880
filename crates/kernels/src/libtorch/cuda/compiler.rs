//! The compiler of CUDA sources, and what it has compiled before.
//!
//! Images are kept in the user's cache folder, `simmer/kernels` in `$XDG_CACHE_HOME` or in `~/.cache`, by a hash of the source,
//! the compiler's version and the GPU's compute capability. Nothing depends on them.

use std::collections::hash_map::DefaultHasher;
use std::ffi::{CString, c_char, c_int, c_void};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::LazyLock;
use std::{env, fs, io, process};

use super::super::aten::SAID;
use super::super::group::{call, made};
use super::Source;

/// Where NVRTC may be, in this order. libtorch's wheel has a library that is linked with it, and finds it in the wheel of
/// CUDA; the others are names for the system's loader.
const LIBRARIES: [&str; 3] = ["libcaffe2_nvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"];

/// NVRTC, loaded.
pub(super) struct Compiler {
    raw: NonNull<RawNvrtc>,
    version: [i32; 2],
}

/// `Nvrtc` in cuda.cpp.
#[repr(C)]
struct RawNvrtc {
    hidden: [u8; 0],
}

/// A function that is given an image.
type Take = extern "C" fn(to: *mut c_void, image: *const c_char, size: usize);

#[expect(unsafe_code, reason = "the functions of cuda.cpp are C++")]
unsafe extern "C" {
    fn simmer_nvrtc_load(
        path: *const c_char,
        out: *mut *mut RawNvrtc,
        version: *mut i32,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_nvrtc_compile(
        nvrtc: *const RawNvrtc,
        source: *const c_char,
        name: *const c_char,
        options: *const *const c_char,
        count: i32,
        take: Take,
        to: *mut c_void,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
}

// SAFETY: it is a table of functions that is never changed, and NVRTC may be called on any thread.
#[expect(unsafe_code, reason = "NVRTC belongs to no thread")]
unsafe impl Send for Compiler {}
// SAFETY: as for `Send`.
#[expect(unsafe_code, reason = "NVRTC belongs to no thread")]
unsafe impl Sync for Compiler {}

impl Compiler {
    /// NVRTC, or why it is missing.
    pub(super) fn get() -> io::Result<&'static Self> {
        static COMPILER: LazyLock<Result<Compiler, String>> =
            LazyLock::new(|| Compiler::find().map_err(|error| error.to_string()));
        COMPILER
            .as_ref()
            .map_err(|error| io::Error::other(error.clone()))
    }

    /// The library that `SIMMER_NVRTC` names, or the first of [`LIBRARIES`].
    fn find() -> io::Result<Self> {
        if let Some(path) = env::var_os("SIMMER_NVRTC") {
            return Self::load(Path::new(&path));
        }
        let mut why = Vec::new();
        for name in LIBRARIES {
            match Self::load(Path::new(name)) {
                Ok(found) => return Ok(found),
                Err(error) => why.push(error.to_string()),
            }
        }
        Err(io::Error::other(why.join("; ")))
    }

    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_encoded_bytes())?;
        let (mut raw, mut version) = (ptr::null_mut(), [0; 2]);
        #[expect(
            unsafe_code,
            reason = "loads a library, and calls a function of cuda.cpp with raw pointers"
        )]
        // SAFETY: `path` outlives the call, and the function writes a pointer and two numbers. NVRTC's functions are called by
        // their declarations in nvrtc.h; a file without one of their names is refused before any is called.
        call(|said, room| unsafe {
            simmer_nvrtc_load(
                path.as_ptr(),
                &raw mut raw,
                version.as_mut_ptr(),
                said,
                room,
            )
        })?;
        let raw = made(raw)?;
        Ok(Self { raw, version })
    }

    /// Compiles a source for GPUs of a compute capability, 90 for 9.0.
    ///
    /// # Errors
    /// What the compiler says: of a fault, its place in the source.
    pub(super) fn compile(&self, source: &Source, capability: i32) -> io::Result<Vec<u8>> {
        extern "C" fn take(to: *mut c_void, image: *const c_char, size: usize) {
            // SAFETY: `to` is the vector below, which nothing else uses during the call, and cuda.cpp passes the address
            // and size of a string.
            #[expect(unsafe_code, reason = "reads what C++ passes")]
            unsafe {
                let image = std::slice::from_raw_parts(image.cast::<u8>(), size);
                (*to.cast::<Vec<u8>>()).extend_from_slice(image);
            }
        }
        let text = CString::new(source.text)?;
        let name = CString::new(format!("{}.cu", source.name))?;
        let options = [
            CString::new(format!("--gpu-architecture=sm_{capability}"))?,
            CString::new("--std=c++17")?,
        ];
        let options = options.each_ref().map(|of| of.as_ptr());
        let mut image: Vec<u8> = Vec::new();
        let mut said = [0 as c_char; SAID];
        // SAFETY: NVRTC is loaded, the strings outlive the call, and `take` gets the vector.
        #[expect(unsafe_code, reason = "calls a function of cuda.cpp with raw pointers")]
        let failed = unsafe {
            simmer_nvrtc_compile(
                self.raw.as_ptr(),
                text.as_ptr(),
                name.as_ptr(),
                options.as_ptr(),
                options.len() as i32,
                take,
                ptr::from_mut(&mut image).cast(),
                said.as_mut_ptr(),
                SAID,
            )
        };
        if failed != 0 {
            return Err(io::Error::other(super::super::said(&said)));
        }
        Ok(image)
    }

    /// The name of a source's image in the cache.
    fn file_name(&self, source: &Source, capability: i32) -> String {
        let mut hasher = DefaultHasher::new();
        (source.text, self.version).hash(&mut hasher);
        format!(
            "{}-sm_{capability}-{:016x}.cubin",
            source.name,
            hasher.finish()
        )
    }
}

/// The image of a source: the one that was `kept`, or a new one, which is kept.
pub(super) fn compiled(source: &Source, capability: i32, kept: bool) -> io::Result<Vec<u8>> {
    let compiler = Compiler::get()?;
    let file = folder().map(|folder| folder.join(compiler.file_name(source, capability)));
    if kept && let Some(image) = file.as_ref().and_then(|file| fs::read(file).ok()) {
        return Ok(image);
    }
    let image = compiler.compile(source, capability)?;
    if let Some(file) = file {
        // it is compiled again next time if it cannot be kept
        let _ = keep(&file, &image);
    }
    Ok(image)
}

fn folder() -> Option<PathBuf> {
    let of = |name| env::var_os(name).filter(|value| !value.is_empty());
    let cache = match of("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => Path::new(&of("HOME")?).join(".cache"),
    };
    Some(cache.join("simmer").join("kernels"))
}

/// Writes a file whole or not at all: other processes may read it.
fn keep(file: &Path, image: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = file.with_extension(process::id().to_string());
    fs::write(&unfinished, image)?;
    fs::rename(unfinished, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::cuda::SOURCES;

    /// The architectures of the cards from A100 on.
    const CAPABILITIES: [i32; 5] = [80, 86, 89, 90, 100];

    #[test]
    fn every_source_compiles() {
        let compiler = match Compiler::get() {
            Ok(compiler) => compiler,
            Err(error) => {
                // torch with CUDA brings it
                assert_eq!(crate::gpus(), 0, "{error}");
                assert!(error.to_string().contains("nvrtc"), "{error}");
                return;
            }
        };
        for source in SOURCES {
            for capability in CAPABILITIES {
                let image = compiler.compile(source, capability).unwrap();
                assert_eq!(&image[..4], b"\x7fELF", "{} sm_{capability}", source.name);
            }
        }
        let faulty = Source {
            name: "faulty",
            text: "extern \"C\" __global__ void f() { missing(); }",
        };
        let error = compiler.compile(&faulty, 90).unwrap_err().to_string();
        assert!(
            error.contains("faulty.cu(1)") && error.contains("missing"),
            "{error}"
        );
    }

    #[test]
    fn every_source_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "cu") {
                files.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
        files.sort();
        let mut names: Vec<_> = SOURCES.iter().map(|of| of.name.to_owned()).collect();
        names.sort();
        assert_eq!(files, names);
    }

    #[test]
    fn a_library_that_is_missing_or_another_is_refused() {
        let error = |path: &str| Compiler::load(Path::new(path)).err().unwrap().to_string();
        let missing = error("/nothing/libnvrtc.so.13");
        assert!(missing.contains("/nothing/libnvrtc.so.13"), "{missing}");
        #[cfg(target_os = "linux")]
        assert_eq!(error("libm.so.6"), "libm.so.6 has no function nvrtcVersion");
    }

    #[test]
    fn images_are_kept_whole() {
        let folder = std::env::temp_dir().join(format!("simmer-kernels-{}", process::id()));
        let file = folder.join("kernels").join("rope-sm_90-1.cubin");
        keep(&file, b"image").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"image");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
