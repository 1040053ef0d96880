//! A GGUF file of any bytes: container, shape of the model, tensors, vocabulary.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simmer_checkpoint::Bytes;
use simmer_checkpoint::gguf::{Gguf, Vocabulary, llama};

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    for tensor in gguf.tensors() {
        assert!(tensor.range.end <= bytes.len());
    }
    let _ = Vocabulary::from_metadata(gguf.metadata());
    if let Ok(config) = llama::config(&gguf, &[bytes]) {
        let _ = llama::tensors(&gguf, &config);
    }
});
