//! Models in several files, as written by llama.cpp's gguf-split.
//!
//! Each part is a GGUF file `NAME-00002-of-00003.gguf` with some of the tensors. Its keys `split.no` (from 0) and
//! `split.count` are its number and the count. The first part has the metadata of the model.
//!
//! Source: llama.cpp, `tools/gguf-split`.

use std::path::{Path, PathBuf};

use simmer_files::size::counted;

use super::{Gguf, GgufError, Metadata};

/// Maximum number of parts, more than any model has.
const MAX_PARTS: u64 = 9999;

/// The files of the model that `path` is a part of, in order; `None` if the model is not split.
///
/// # Errors
/// If the name of a part does not determine the names of the others.
pub fn parts(path: &Path, metadata: &Metadata) -> Result<Option<Vec<PathBuf>>, GgufError> {
    let count = metadata.unsigned("split.count")?.unwrap_or(0);
    if count <= 1 {
        return Ok(None);
    }
    let number = metadata.unsigned("split.no")?.unwrap_or(0);
    let name = |number: u64| format!("-{:05}-of-{count:05}.gguf", number + 1);
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.strip_suffix(&name(number));
    let Some(stem) = stem.filter(|_| number < count && count <= MAX_PARTS) else {
        return Err(GgufError::Part {
            found: format!("part {} of {count}", number + 1),
            expected: format!("a name that ends in {}", name(number)),
        });
    };
    let part = |number| path.with_file_name(format!("{stem}{}", name(number)));
    Ok(Some((0..count).map(part).collect()))
}

/// Whether a file is a whole model or the first part of one, by its name.
pub fn is_first(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let number = |text: &str| {
        (text.len() == 5)
            .then(|| text.parse::<u32>().ok())
            .flatten()
    };
    let mut words = stem.rsplitn(4, '-');
    match [words.next(), words.next(), words.next()] {
        [Some(count), Some("of"), Some(part)] if number(count).is_some() => {
            number(part).is_none_or(|part| part == 1)
        }
        _ => true,
    }
}

impl Gguf {
    /// Joins the parts of a model, in order; [`GgufTensor::file`](super::GgufTensor) is the index of the part.
    ///
    /// # Errors
    /// If the parts contradict each other in their numbers or tensors.
    pub fn join(parts: Vec<Self>) -> Result<Self, GgufError> {
        let count = parts.len() as u64;
        let mut whole: Option<Self> = None;
        for (number, part) in parts.into_iter().enumerate() {
            let said = |key: &str| part.metadata().unsigned(key);
            let (no, of) = (
                said("split.no")?.unwrap_or(0),
                said("split.count")?.unwrap_or(0),
            );
            if (no, of) != (number as u64, count) {
                return Err(GgufError::Part {
                    found: format!("part {} of {of}", no + 1),
                    expected: format!("part {} of {count}", number + 1),
                });
            }
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.add(part, number)?,
            }
        }
        let whole = whole.unwrap_or_default();
        let tensors = whole.tensors().len() as u64;
        match whole.metadata().unsigned("split.tensors.count")? {
            Some(said) if said != tensors => Err(GgufError::Part {
                found: format!(
                    "{} in {}",
                    counted(tensors as usize, "tensor"),
                    counted(count as usize, "part")
                ),
                expected: format!("{said}"),
            }),
            _ => Ok(whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GgmlType, GgufTensorSpec, GgufWriter, Value};
    use super::*;

    fn part(no: u16, count: u16, tensors: &[&str]) -> Gguf {
        let mut metadata = Metadata::new();
        metadata.set("split.no", Value::U16(no));
        metadata.set("split.count", Value::U16(count));
        metadata.set("split.tensors.count", Value::I32(3));
        let spec = |name: &&str| GgufTensorSpec {
            name: (*name).to_owned(),
            shape: vec![2],
            kind: GgmlType::F32,
        };
        let specs = tensors.iter().map(spec).collect();
        let mut writer = GgufWriter::new(Vec::new(), &metadata, specs).unwrap();
        for _ in tensors {
            writer.append(&[0; 8]).unwrap();
        }
        Gguf::parse(writer.finish().unwrap().into()).unwrap()
    }

    #[test]
    fn parts_make_a_whole() {
        let whole = Gguf::join(vec![part(0, 2, &["a", "b"]), part(1, 2, &["c"])]).unwrap();
        let files: Vec<_> = whole.tensors().iter().map(|tensor| tensor.file).collect();
        assert_eq!(files, [0, 0, 1]);
        assert_eq!(whole.tensor("c").unwrap().file, 1);
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let said = |parts: Vec<Gguf>| Gguf::join(parts).unwrap_err().to_string();
        insta::assert_snapshot!(said(vec![part(1, 2, &["a"]), part(0, 2, &["b"])]), @"the file is part 2 of 2; expected part 1 of 2");
        insta::assert_snapshot!(said(vec![part(0, 2, &["a"]), part(1, 2, &["a"])]), @"duplicate tensor `a`");
        insta::assert_snapshot!(said(vec![part(0, 2, &["a"]), part(1, 2, &["b"])]), @"the file is 2 tensors in 2 parts; expected 3");
    }

    #[test]
    fn the_name_of_a_part_tells_those_of_the_others() {
        let metadata = |no, count| part(no, count, &[]).metadata().clone();
        let found = parts(Path::new("m/x-00002-of-00003.gguf"), &metadata(1, 3))
            .unwrap()
            .unwrap();
        let expected = [
            "m/x-00001-of-00003.gguf",
            "m/x-00002-of-00003.gguf",
            "m/x-00003-of-00003.gguf",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(
            parts(Path::new("x.gguf"), &metadata(0, 1))
                .unwrap()
                .is_none()
        );
        let error = parts(Path::new("x.gguf"), &metadata(1, 3)).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @"the file is part 2 of 3; expected a name that ends in -00002-of-00003.gguf");
    }
}
