use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;
use simmer_hint::Hint as _;

use super::*;
use crate::{Dtype, TensorSpec};

fn golden(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/meta");
    fs::read(folder.join(name)).unwrap()
}

fn refused(file: &[u8]) -> String {
    PthFile::parse(file).unwrap_err().to_string()
}

/// The file, with a byte string replaced by another of the same length.
fn replaced(mut file: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut found = false;
    for at in 0..=file.len() - from.len() {
        if file[at..].starts_with(from) {
            file[at..at + to.len()].copy_from_slice(to);
            found = true;
        }
    }
    assert!(found, "{}", from.escape_ascii());
    file
}

fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    }
}

fn written(tensors: &[(TensorSpec, Vec<u8>)]) -> Vec<u8> {
    let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = PthWriter::new(Cursor::new(Vec::new()), "archive", &specs).unwrap();
    // the last tensor first, in two pieces
    for (place, (_, bytes)) in tensors.iter().enumerate().rev() {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        writer.append(place, first).unwrap();
        writer.append(place, second).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn views_of_storages_are_read_from_every_format() {
    for name in ["views.pth", "views.protocol4.pth", "views.legacy.pth"] {
        let file = golden(name);
        let mut said = String::new();
        for tensor in PthFile::parse(&file).unwrap().tensors() {
            let TensorInfo { dtype, shape } = &tensor.info;
            let bytes = &file[tensor.range.clone()];
            let numbers: Vec<String> = match dtype {
                Dtype::F32 => bytes
                    .chunks_exact(4)
                    .map(|x| f32::from_le_bytes(x.try_into().unwrap()).to_string())
                    .collect(),
                _ => bytes.iter().map(u8::to_string).collect(),
            };
            writeln!(
                said,
                "{}: {dtype} {shape:?} {}",
                tensor.name,
                numbers.join(" ")
            )
            .unwrap();
        }
        insta::allow_duplicates! {
            insta::assert_snapshot!(said, @r"
            whole: F32 [4, 6] 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23
            rows: F32 [2, 6] 6 7 8 9 10 11 12 13 14 15 16 17
            again: F32 [2, 3, 4] 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23
            one row: F32 [1, 6] 18 19 20 21 22 23
            empty: F32 [0, 5] 
            scalar: F64 [] 0 0 0 0 0 0 248 63
            parameter: BF16 [2] 128 63 0 192
            integers: I64 [1, 2] 1 0 0 0 0 0 0 0 255 255 255 255 255 255 255 255
            bytes: U8 [2] 1 2
            flags: BOOL [2] 1 0
            ");
        }
    }
}

#[test]
fn what_is_no_state_dict_is_refused() {
    insta::assert_snapshot!(refused(&golden("columns.pth")),
        @"tensor `columns`: not contiguous (shape [4, 3], strides [6, 1])");
    insta::assert_snapshot!(refused(&golden("checkpoint.pth")),
        @"its pickle holds a dictionary as `state_dict`; expected a tensor");
    insta::assert_snapshot!(refused(&golden("module.pth")),
        @"its pickle refers to `torch.nn.modules.linear.Linear` at byte 2, which is not part of a tensor");
    insta::assert_snapshot!(refused(b"{\"a\": 1}"),
        @"not a file of torch.save: expected a zip archive, found bytes 7b2261223a20317d");
    insta::assert_snapshot!(refused(b""), @"not a file of torch.save: expected a zip archive, found bytes ");
    let error = PthFile::parse(&golden("module.pth")).unwrap_err();
    assert!(
        error
            .hint()
            .unwrap()
            .contains("a pickle can run any program")
    );
}

#[test]
fn damaged_archives_are_refused() {
    let file = written(&[(spec("w", Dtype::F16, &[2, 3]), vec![7; 12])]);
    assert_eq!(
        PthFile::parse(&file).unwrap().tensors()[0].info.shape,
        [2, 3]
    );
    insta::assert_snapshot!(refused(&file[..file.len() - 1]), @"the zip archive is damaged: the end record is missing");
    insta::assert_snapshot!(refused(&file[..100]), @"the zip archive is damaged: the end record is missing");
    insta::assert_snapshot!(refused(&replaced(file.clone(), b"little", b"bigbig")),
        @"byte order `bigbig`; only little endian is supported");
    insta::assert_snapshot!(refused(&replaced(file.clone(), b"3\n", b"11")),
        @"version `11` of the archive layout; expected 1 to 10");
    insta::assert_snapshot!(refused(&replaced(file.clone(), b"archive/data/0", b"archive/data/1")),
        @"tensor `w`: no storage `0` in the file");
    insta::assert_snapshot!(refused(&replaced(file.clone(), b"data.pkl", b"data.txt")),
        @"a zip archive with no data.pkl; torch.save writes one");
    let two = [spec("v", Dtype::U8, &[1]), spec("w", Dtype::U8, &[1])].map(|spec| (spec, vec![0]));
    insta::assert_snapshot!(refused(&replaced(written(&two), b"archive/data/1", b"archive/data/0")),
        @"the zip archive is damaged: duplicate entry (entry `archive/data/0`)");
    // numel of the storage: 6 of 12 bytes
    insta::assert_snapshot!(refused(&replaced(file.clone(), b"cpuK\x06", b"cpuK\x05")),
        @"tensor `w`: its storage with 5 F16 elements has 12 bytes");
    insta::assert_snapshot!(refused(&replaced(file.clone(), b"(K\x02K\x03t", b"(K\x02K\x04t")),
        @"tensor `w`: shape [2, 4] at element 0 exceeds its storage with 6 elements");
    insta::assert_snapshot!(refused(&replaced(file.clone(), b"(K\x03K\x01t", b"(K\x01K\x02t")),
        @"tensor `w`: not contiguous (shape [2, 3], strides [1, 2])");
    // the compression method of the entries in the table
    let table = file
        .windows(4)
        .position(|bytes| bytes == zip::ENTRY)
        .unwrap();
    let mut packed = file.clone();
    packed[table + 10] = 8;
    insta::assert_snapshot!(refused(&packed),
        @"entry `archive/data.pkl` of the zip archive is compressed; torch.save stores entries uncompressed");
    let mut longer = file.clone();
    longer[table + 24] ^= 1;
    insta::assert_snapshot!(refused(&longer),
        @"the zip archive is damaged: an uncompressed entry has two different lengths (entry `archive/data.pkl`)");
    let mut elsewhere = file.clone();
    elsewhere[table + 44] = 1;
    insta::assert_snapshot!(refused(&elsewhere),
        @"the zip archive is damaged: an entry is not where the table says (entry `archive/data.pkl`)");
}

#[test]
fn tensors_are_aligned_and_their_bytes_do_not_depend_on_the_order() {
    let tensors = [
        (spec("a", Dtype::F16, &[3]), vec![1; 6]),
        (spec("none", Dtype::F32, &[0, 4]), vec![]),
        (spec("b", Dtype::F32, &[2, 2]), (0..16).collect()),
    ];
    let file = written(&tensors);
    assert_eq!(file, written(&tensors));
    let read = PthFile::parse(&file).unwrap();
    for ((spec, bytes), tensor) in tensors.iter().zip(read.tensors()) {
        assert_eq!(tensor.name, spec.name);
        assert_eq!(&file[tensor.range.clone()], bytes);
        assert!(tensor.range.start.is_multiple_of(64));
    }
    let specs = [spec("a", Dtype::F16, &[3])];
    let new = || PthWriter::new(Cursor::new(Vec::new()), "archive", &specs).unwrap();
    assert!(new().append(0, &[0; 7]).is_err());
    assert!(new().finish().is_err());
    let odd = [spec("a", Dtype::F8_E4M3, &[3])];
    assert!(PthWriter::new(Cursor::new(Vec::new()), "archive", &odd).is_err());
}

/// Sparse files larger than 4 GiB, which not every file system supports.
#[cfg(target_os = "linux")]
#[test]
fn numbers_of_64_bits_are_written_and_read() {
    let half = 3 << 30;
    let specs = [
        spec("first", Dtype::F16, &[half]),
        spec("second", Dtype::F16, &[4]),
        spec("third", Dtype::F16, &[half]),
    ];
    let file = tempfile::tempfile().unwrap();
    let mut writer = PthWriter::new(&file, "archive", &specs).unwrap();
    writer.append(1, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    writer.skip(0);
    writer.skip(2);
    writer.finish().unwrap();
    let map = crate::mapped::Mapped::new(file, "x".as_ref()).unwrap();
    let read = PthFile::parse(&map).unwrap();
    let [first, second, third] = read.tensors() else {
        panic!("{read:?}");
    };
    assert_eq!(map[second.range.clone()], [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!((first.range.len(), third.range.len()), (6 << 30, 6 << 30));
    assert!(second.range.start > 6 << 30 && third.range.start > second.range.end);
}

proptest! {
    #[test]
    fn no_change_panics(
        legacy in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut file = golden(if legacy { "views.legacy.pth" } else { "views.pth" });
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if is_cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(read) = PthFile::parse(&file) {
            for tensor in read.tensors() {
                prop_assert!(tensor.range.end <= file.len());
            }
        }
    }

    #[test]
    fn what_is_written_reads_back(
        shapes in prop::collection::vec(prop::collection::vec(0..5_usize, 0..3), 0..5),
        seed in any::<u8>(),
    ) {
        let tensors: Vec<_> = shapes.iter().enumerate().map(|(place, shape)| {
            let bytes = vec![seed.wrapping_add(place as u8); shape.iter().product::<usize>() * 4];
            (spec(&format!("t.{place}"), Dtype::F32, shape), bytes)
        }).collect();
        let file = written(&tensors);
        let read = PthFile::parse(&file).unwrap();
        prop_assert_eq!(read.tensors().len(), tensors.len());
        for ((spec, bytes), tensor) in tensors.iter().zip(read.tensors()) {
            prop_assert_eq!(&tensor.info.shape, &spec.shape);
            prop_assert_eq!(&file[tensor.range.clone()], &bytes[..]);
        }
    }
}
