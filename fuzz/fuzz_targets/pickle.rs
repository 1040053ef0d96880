//! A torch file of any bytes, and a bare pickle of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simmer_checkpoint::pickle::Pickle;
use simmer_checkpoint::pth::PthFile;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = PthFile::parse(bytes) {
        for tensor in file.tensors() {
            assert!(tensor.range.end <= bytes.len());
        }
    }
    if let Ok(pickle) = Pickle::read(bytes) {
        let _ = pickle.tensors();
    }
});
