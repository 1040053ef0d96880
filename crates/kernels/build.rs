//! With the feature `libtorch`, builds the C++ files that call functions of ATen which tch does not
//! bind.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(libtorch_cuda)");
    #[cfg(feature = "libtorch")]
    aten();
}

#[cfg(feature = "libtorch")]
const SOURCES: [&str; 8] = [
    "src/libtorch/aten.cpp",
    "src/libtorch/cuda.cpp",
    "src/libtorch/graph.cpp",
    "src/libtorch/group.cpp",
    "src/libtorch/nccl.cpp",
    "src/libtorch/product.cpp",
    "src/libtorch/thread.cpp",
    "src/libtorch/timeline.cpp",
];

/// What they include, beside libtorch's headers.
#[cfg(feature = "libtorch")]
const HEADERS: [&str; 3] = [
    "src/libtorch/gloo",
    "src/libtorch/guarded.h",
    "src/libtorch/loaded.h",
];

#[cfg(feature = "libtorch")]
fn aten() {
    use std::path::PathBuf;

    // not the folder: its Rust sources change more often, and these take minutes
    for file in SOURCES.into_iter().chain(HEADERS) {
        println!("cargo:rerun-if-changed={file}");
    }
    // torch-sys tells dependent crates the folder of the library that it links
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        panic!("torch-sys does not report the folder of libtorch: see docs/guide/gpu.md");
    };
    let has_cuda = lib.join("libtorch_cuda.so").exists();
    if has_cuda {
        println!("cargo:rustc-cfg=libtorch_cuda");
    }
    let include = match std::env::var_os("LIBTORCH_INCLUDE") {
        Some(include) => PathBuf::from(include).join("include"),
        None => lib.with_file_name("include"),
    };
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false);
    build
        .include(&include)
        .include(include.join("torch/csrc/api/include"));
    // as libtorch was built; where it has headers of gloo, those are found first
    build.define("USE_C10D_GLOO", None);
    build.flag("-idirafter").flag("src/libtorch/gloo");
    if has_cuda {
        build.define("SIMMER_CUDA", None);
    }
    build.files(SOURCES).compile("simmer_aten");
}
