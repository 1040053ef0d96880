//! Kernels that can be switched on and off.
//!
//! A kernel that no GPU has compared with its reference implementation is off by default. `SIMMER_KERNELS` switches them:
//! a name switches a kernel on, a name after `-` off. `bench/gpu --stages kernels` compares each of them with the
//! reference implementation, and measures it beside the form that runs without it.

/// A kernel that can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionalKernel {
    /// Attention by cuDNN, for long rows in 16-bit dtypes.
    CudnnAttention,
    /// Rotary position embedding in one pass.
    Rope,
    /// The gated activation in one pass.
    Gated,
    /// Root mean square normalisation in one pass.
    RmsNorm,
    /// The sums of the gradients of keys that several rows see.
    SumRows,
    /// The loss of a token and the gradient of its logits, in place.
    CrossEntropy,
    /// Decoding by steps that are recorded once, as a CUDA graph.
    DecodingGraph,
    /// The kernel of attention in such a step.
    DecodeAttention,
    /// Rows in e4m3 with their scales, in one pass.
    QuantiseRows,
    /// Sums of products in fp8 in the precision of the tensor cores, which is lower than that of f32.
    Fp8FastSums,
}

impl OptionalKernel {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::CudnnAttention,
        Self::Rope,
        Self::Gated,
        Self::RmsNorm,
        Self::SumRows,
        Self::CrossEntropy,
        Self::DecodingGraph,
        Self::DecodeAttention,
        Self::QuantiseRows,
        Self::Fp8FastSums,
    ];

    /// The name in `SIMMER_KERNELS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::CudnnAttention => "cudnn_attention",
            Self::Rope => "rope",
            Self::Gated => "gated",
            Self::RmsNorm => "rms_norm",
            Self::SumRows => "sum_rows",
            Self::CrossEntropy => "cross_entropy",
            Self::DecodingGraph => "decoding_graph",
            Self::DecodeAttention => "decode_attention",
            Self::QuantiseRows => "quantise_rows",
            Self::Fp8FastSums => "fp8_fast_sums",
        }
    }

    /// Whether it is on without `SIMMER_KERNELS`: a GPU has compared it with its reference implementation, and it is the
    /// faster form there.
    pub fn is_default(self) -> bool {
        !matches!(
            self,
            Self::DecodingGraph | Self::DecodeAttention | Self::QuantiseRows | Self::Fp8FastSums
        )
    }

    /// Whether it is on.
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

/// The kernels that are on, by the environment variable `SIMMER_KERNELS`: names separated by commas, `-` before the name
/// of one that is switched off, and `all` for all of them.
///
/// # Errors
/// The first name that is not the name of such a kernel.
pub fn optional_kernels() -> Result<Vec<OptionalKernel>, String> {
    let text = std::env::var_os("SIMMER_KERNELS").unwrap_or_default();
    parse(&text.to_string_lossy())
}

fn parse(text: &str) -> Result<Vec<OptionalKernel>, String> {
    let mut on = OptionalKernel::ALL.map(OptionalKernel::is_default);
    let words = text.split(',').map(str::trim);
    for word in words.filter(|word| !word.is_empty()) {
        let (name, is_on) = match word.strip_prefix('-') {
            Some(name) => (name, false),
            None => (word, true),
        };
        let mut all = OptionalKernel::ALL.iter();
        match all.position(|kernel| kernel.name() == name) {
            Some(place) => on[place] = is_on,
            None if name == "all" => on.fill(is_on),
            None => return Err(name.to_owned()),
        }
    }
    let all = OptionalKernel::ALL.into_iter().zip(on);
    Ok(all
        .filter(|(_, is_on)| *is_on)
        .map(|(kernel, _)| kernel)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_names() {
        let default: Vec<_> = OptionalKernel::ALL
            .into_iter()
            .filter(|kernel| kernel.is_default())
            .collect();
        assert_eq!(parse(""), Ok(default));
        assert_eq!(parse(" all"), Ok(OptionalKernel::ALL.to_vec()));
        assert_eq!(parse("-all"), Ok(Vec::new()));
        let cudnn = OptionalKernel::CudnnAttention;
        assert_eq!(parse("-all, cudnn_attention,"), Ok(vec![cudnn]));
        let rest = parse("all,-rope").unwrap();
        assert!(rest.contains(&cudnn) && !rest.contains(&OptionalKernel::Rope));
        assert_eq!(parse("cudnn_attention,-cudnn"), Err("cudnn".to_owned()));
    }
}
