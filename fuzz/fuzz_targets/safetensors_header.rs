//! The beginning of a safetensors file of any bytes.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use simmer_checkpoint::read_header;

fuzz_target!(|bytes: &[u8]| {
    let mut source = bytes;
    let Ok(tensors) = read_header(&mut source, Path::new("x"), bytes.len() as u64) else {
        return;
    };
    // a header that is accepted describes every byte
    let described: usize = tensors
        .iter()
        .map(|(_, info)| info.shape.iter().product::<usize>() * info.dtype.bitsize() / 8)
        .sum();
    assert_eq!(described, source.len());
});
