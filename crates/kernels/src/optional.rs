//! Kernels that are off by default, because no GPU has compared them with their reference implementation yet.
//!
//! `SIMMER_KERNELS` switches them on. `bench/gpu --stages kernels` compares each of them with the reference
//! implementation, and measures it beside the form that runs without it.

/// A kernel that is off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionalKernel {
    /// Attention by cuDNN, for long rows in 16-bit dtypes.
    CudnnAttention,
    /// Decoding by steps that are recorded once, as a CUDA graph.
    DecodingGraph,
    /// The kernel of attention in such a step.
    DecodeAttention,
}

impl OptionalKernel {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::CudnnAttention,
        Self::DecodingGraph,
        Self::DecodeAttention,
    ];

    /// The name in `SIMMER_KERNELS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::CudnnAttention => "cudnn_attention",
            Self::DecodingGraph => "decoding_graph",
            Self::DecodeAttention => "decode_attention",
        }
    }

    /// Whether the environment variable `SIMMER_KERNELS` switches it on.
    #[cfg(feature = "libtorch")]
    pub(crate) fn is_on(self) -> bool {
        use std::sync::LazyLock;
        static ON: LazyLock<Vec<OptionalKernel>> =
            LazyLock::new(|| optional_kernels().unwrap_or_default());
        ON.contains(&self)
    }

    /// The names, separated by commas.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

/// The kernels that the environment variable `SIMMER_KERNELS` switches on: `all`, or names separated by commas.
///
/// # Errors
/// The first name that is not the name of such a kernel.
pub fn optional_kernels() -> Result<Vec<OptionalKernel>, String> {
    match std::env::var_os("SIMMER_KERNELS") {
        None => Ok(Vec::new()),
        Some(names) => parse(&names.to_string_lossy()),
    }
}

fn parse(text: &str) -> Result<Vec<OptionalKernel>, String> {
    let names = text.split(',').map(str::trim);
    let mut found = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        let mut all = OptionalKernel::ALL.into_iter();
        match all.find(|kernel| kernel.name() == name) {
            Some(kernel) => found.push(kernel),
            None if name == "all" => found.extend(OptionalKernel::ALL),
            None => return Err(name.to_owned()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_names() {
        assert_eq!(parse(""), Ok(Vec::new()));
        assert_eq!(parse(" all"), Ok(OptionalKernel::ALL.to_vec()));
        let cudnn = OptionalKernel::CudnnAttention;
        assert_eq!(parse("cudnn_attention,"), Ok(vec![cudnn]));
        assert_eq!(parse("cudnn_attention,cudnn"), Err("cudnn".to_owned()));
    }
}
