//! What the fuzzers found worth keeping (`fuzz/corpus`): no input may do harm.

use std::fs;
use std::path::Path;

use simmer_data::Tokenizer;
use simmer_data::tokenizer::{sentencepiece, tiktoken};
use simmer_model::checkpoint::gguf::{Gguf, Vocabulary, llama};
use simmer_model::checkpoint::pickle::Pickle;
use simmer_model::checkpoint::pth::PthFile;
use simmer_model::checkpoint::{Bytes, read_header};

/// Feeds every input of a target; how many there were.
fn feed(target: &str, mut read: impl FnMut(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let inputs = fs::read_dir(folder.join(target)).unwrap();
    inputs
        .map(|input| read(&fs::read(input.unwrap().path()).unwrap()))
        .count()
}

#[test]
fn gguf_files_of_any_bytes_do_no_harm() {
    let fed = feed("gguf", |bytes| {
        let Ok(gguf) = Gguf::parse(Bytes::copy_from_slice(bytes)) else {
            return;
        };
        let within = |range: &std::ops::Range<usize>| range.end <= bytes.len();
        assert!(gguf.tensors().iter().all(|tensor| within(&tensor.range)));
        let _ = Vocabulary::from_metadata(gguf.metadata());
        if let Ok(config) = llama::config(&gguf, &[bytes]) {
            let _ = llama::tensors(&gguf, &config);
        }
    });
    assert!(fed > 100);
}

#[test]
fn safetensors_headers_of_any_bytes_do_no_harm() {
    let fed = feed("safetensors_header", |bytes| {
        let mut source = bytes;
        if let Ok(tensors) = read_header(&mut source, Path::new("x"), bytes.len() as u64) {
            let size = |shape: &[usize]| shape.iter().product::<usize>();
            let described = tensors
                .iter()
                .map(|(_, info)| size(&info.shape) * info.dtype.bitsize() / 8);
            assert_eq!(described.sum::<usize>(), source.len());
        }
    });
    assert!(fed > 100);
}

#[test]
fn torch_files_of_any_bytes_do_no_harm() {
    let fed = feed("pickle", |bytes| {
        if let Ok(file) = PthFile::parse(bytes) {
            let within = |range: &std::ops::Range<usize>| range.end <= bytes.len();
            assert!(file.tensors().iter().all(|tensor| within(&tensor.range)));
        }
        if let Ok(pickle) = Pickle::read(bytes) {
            let _ = pickle.tensors();
        }
    });
    assert!(fed > 50);
}

#[test]
fn tokenizer_models_of_any_bytes_do_no_harm() {
    let fed = feed("tokenizer_model", |bytes| {
        let _ = tiktoken::parse(bytes);
        let model = sentencepiece::parse(bytes);
        let tokenizer = model.map(|model| Tokenizer::from_sentencepiece(&model, Path::new("x")));
        if let Ok(Ok(tokenizer)) = tokenizer {
            let _ = tokenizer.encode("a text  of 12 characters");
        }
    });
    assert!(fed > 20);
}
