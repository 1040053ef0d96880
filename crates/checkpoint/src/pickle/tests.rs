use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::{Dtype, TensorSpec};

/// Wraps opcodes in a pickle of protocol 2.
fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    let mut pickle = b"\x80\x02".to_vec();
    for part in parts {
        pickle.extend(*part);
    }
    pickle.push(b'.');
    pickle
}

fn refused(parts: &[&[u8]]) -> String {
    Pickle::read(&pickle(parts)).unwrap_err().to_string()
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![b'X'];
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.bytes());
    bytes
}

const TENSOR: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n";
const HOOKS: &[u8] = b"ccollections\nOrderedDict\n)R";

fn storage(key: &str) -> Vec<u8> {
    let (storage, key, cpu) = (text("storage"), text(key), text("cpu"));
    [
        b"(",
        &storage[..],
        b"ctorch\nHalfStorage\n",
        &key,
        &cpu,
        b"K\x06tQ",
    ]
    .concat()
}

#[test]
fn a_state_dict_is_read() {
    let (name, storage) = (text("a"), storage("7"));
    let bytes = pickle(&[
        b"}(",
        &name,
        TENSOR,
        b"(",
        &storage,
        b"K\x01K\x02\x85K\x01\x85\x89",
        HOOKS,
        b"tRu",
    ]);
    let pickle = Pickle::read(&bytes).unwrap();
    assert_eq!(pickle.len(), bytes.len());
    let tensors = pickle.tensors().unwrap();
    let expected = PickledTensor {
        storage: PickledStorage {
            key: "7",
            dtype: Dtype::F16,
            numel: 6,
        },
        offset: 1,
        shape: vec![2],
        stride: vec![1],
    };
    assert_eq!(tensors, [("a", &expected)]);
}

#[test]
fn what_is_written_reads_back() {
    let spec = |name: &str, dtype, shape: &[usize]| TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    let specs = [
        spec("matrix", Dtype::BF16, &[300, 70_000]),
        spec("vector", Dtype::F32, &[5_000_000_000]),
        spec("none", Dtype::F16, &[0, 3]),
        spec("scalar", Dtype::F64, &[]),
    ];
    let bytes = state_dict(&specs).unwrap();
    let pickle = Pickle::read(&bytes).unwrap();
    let mut said = String::new();
    for (name, tensor) in pickle.tensors().unwrap() {
        let PickledStorage { key, dtype, numel } = tensor.storage;
        let (shape, stride) = (&tensor.shape, &tensor.stride);
        writeln!(
            said,
            "{name}: {shape:?} {stride:?} of {numel} {dtype} in {key}"
        )
        .unwrap();
    }
    insta::assert_snapshot!(said, @r"
    matrix: [300, 70000] [70000, 1] of 21000000 BF16 in 0
    vector: [5000000000] [1] of 5000000000 F32 in 1
    none: [0, 3] [3, 1] of 0 F16 in 2
    scalar: [] [] of 1 F64 in 3
    ");
    assert_eq!(state_dict(&[spec("odd", Dtype::F8_E4M3, &[1])]), None);
}

#[test]
fn whatever_else_a_pickle_wants_is_named() {
    insta::assert_snapshot!(refused(&[b"cos\nsystem\n", &text("ls"), b"\x85R"]),
        @"refers to `os.system` at byte 2, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[b"cposix\nsystem\nq\x00", &text("ls"), b"\x85R"]),
        @"refers to `posix.system` at byte 2, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[b"}(", &text("a"), b"cbuiltins\neval\n", &text("1"), b"\x85Ru"]),
        @"refers to `builtins.eval` at byte 10, which is not part of a tensor");
    // names on the stack, from the memo, and in the arguments of another call
    insta::assert_snapshot!(refused(&[b"\x8c\x08builtins\x8c\x04exec\x93"]),
        @"refers to `builtins.exec` at byte 18, which is not part of a tensor");
    insta::assert_snapshot!(
        refused(&[b"\x8c\x02os\x94\x8c\x06system\x940", b"0h\x00h\x01\x93"]),
        @"refers to `os.system` at byte 22, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[TENSOR, b"(cos\npopen\n", &text("ls"), b"\x85RtR"]),
        @"refers to `os.popen` at byte 36, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[b"((", &text("ls"), b"ios\nsystem\n"]),
        @"refers to `os.system` at byte 11, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[b"ctorch.nn.modules.linear\nLinear\n)\x81"]),
        @"refers to `torch.nn.modules.linear.Linear` at byte 2, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[b"ctorch.storage\n_load_from_bytes\n"]),
        @"refers to `torch.storage._load_from_bytes` at byte 2, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[b"ctorch\nload\n"]),
        @"refers to `torch.load` at byte 2, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[b"ctorch\nHalfStorage\nK\x09\x85R"]),
        @"refers to `torch.HalfStorage(...)` at byte 24, which is not part of a tensor");
    // dotted and unusual names
    insta::assert_snapshot!(refused(&[b"\x8c\x0bcollections\x8c\x16OrderedDict.__init__.x\x93"]),
        @"refers to `collections.OrderedDict.__init__.x` at byte 39, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[&[b"c".as_slice(), &[b'a'; 300], b"\n\x1b[2J\n"].concat()]),
        @r"refers to `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa....\u{1b}[2J` at byte 2, which is not part of a tensor");
}

#[test]
fn what_is_allowed_can_only_make_tensors() {
    let storage = storage("0");
    insta::assert_snapshot!(refused(&[TENSOR, &text("ls"), b"\x85R"]),
        @r#"calls `torch._utils._rebuild_tensor_v2` at byte 43 with ("ls"); expected a storage, offset, shape, strides, requires_grad, and hooks"#);
    insta::assert_snapshot!(refused(&[TENSOR, b"(}K\x00))\x89}tR"]),
        @"calls `torch._utils._rebuild_tensor_v2` at byte 44 with a dictionary; expected a storage");
    insta::assert_snapshot!(refused(&[TENSOR, b"(", &storage, b"J\xff\xff\xff\xff))\x89}tR"]),
        @"calls `torch._utils._rebuild_tensor_v2` at byte 96 with -1; expected the offset of its first element");
    insta::assert_snapshot!(refused(&[TENSOR, b"(", &storage, b"K\x00K\x02\x85)\x89}tR"]),
        @"calls `torch._utils._rebuild_tensor_v2` at byte 95 with 0 of 1; expected a stride for each dimension");
    insta::assert_snapshot!(
        refused(&[TENSOR, b"(", &storage, b"K\x00))\x89}}", &text("conj"), b"\x88stR"]),
        @r"calls `torch._utils._rebuild_tensor_v2` at byte 105 with (a dictionary); expected no metadata");
    insta::assert_snapshot!(refused(&[b"ctorch._utils\n_rebuild_parameter\nN\x88}\x87R"]),
        @"calls `torch._utils._rebuild_parameter` at byte 39 with (None, a bool, a dictionary); expected a tensor, requires_grad, and hooks");
    insta::assert_snapshot!(refused(&[b"ccollections\nOrderedDict\n]\x85R"]),
        @"calls `collections.OrderedDict` at byte 29 with (a list); expected none");
    insta::assert_snapshot!(refused(&[&text("module"), b"\x85Q"]),
        @r#"calls `persistent_load` at byte 14 with ("module"); expected a storage: ("storage", type, key, location, number of elements)"#);
    insta::assert_snapshot!(refused(&[b"K\x01)R"]),
        @"is damaged at byte 5: a call of something that is not a function");
    insta::assert_snapshot!(refused(&[&storage, b"}b"]),
        @"is damaged at byte 53: attributes are set on something that has none");
    insta::assert_snapshot!(refused(&[b"\x82\x01"]),
        @"uses opcode 0x82 at byte 2, which is not part of a tensor");
    insta::assert_snapshot!(refused(&[b"Pos.system\n"]),
        @"uses opcode 0x50 at byte 2, which is not part of a tensor");
}

#[test]
fn other_contents_are_described() {
    let said = |parts: &[&[u8]]| {
        let bytes = pickle(parts);
        let pickle = Pickle::read(&bytes).unwrap();
        pickle.tensors().unwrap_err().to_string()
    };
    insta::assert_snapshot!(said(&[b"]"]), @"holds a list; expected a dictionary from names to tensors");
    insta::assert_snapshot!(said(&[b"}K\x01Ns"]),
        @"holds a dictionary with 1 as a key; expected a dictionary from names to tensors");
    insta::assert_snapshot!(said(&[b"}", &text("state_dict"), b"}s"]),
        @"holds a dictionary as `state_dict`; expected a tensor");
    let (a, tensor) = (
        text("a"),
        [TENSOR, b"(", &storage("0"), b"K\x00))\x89}tR"].concat(),
    );
    insta::assert_snapshot!(said(&[b"}(", &a, &tensor, &a, &tensor, b"u"]), @"holds `a` twice");
}

#[test]
fn damage_is_an_error() {
    for bytes in [
        &b""[..],
        b"\x80",
        b"\x80\x06.",
        b".",
        b"N",
        b"0",
        b"1",
        b"2",
        b"(.",
        b"N(.",
        b"N(0R",
        b"t.",
        b"h\x00.",
        b"q\x00.",
        b"Na",
        b"}Nu",
        b"}(Nu.",
        b"NNs",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x8b\xff\xff\xff\xff.",
        b"\x8b\xff\xff\xff\x7f.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"X\xff\xff\xff\xffabc",
        b"\x8c\x01\xff.",
        b"NN\x93",
        b"cos",
        b"cos\nsystem",
        b"\x85.",
        b"N\x87.",
        b"Q",
        b"N)R",
    ] {
        assert!(Pickle::read(bytes).is_err(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn bombs_cost_no_more_than_their_bytes() {
    // each tuple holds the previous one twice: 2^100,000 items if they were expanded
    let mut doubling = b"\x80\x02)q\x00".to_vec();
    for _ in 0..100_000 {
        doubling.extend(b"h\x00h\x00\x86q\x00");
    }
    doubling.push(b'.');
    assert!(Pickle::read(&doubling).is_ok());
    // deep nesting, and a list that contains itself
    let deep = [&[b'N'; 1][..], &vec![0x85; 1 << 20], b"."].concat();
    assert!(Pickle::read(&deep).is_ok());
    assert!(Pickle::read(b"]q\x00h\x00a.").is_ok());
    // a long tuple as the arguments of many calls
    let mut calls = [b"(", &vec![b'N'; 100_000][..], b"tq\x000"].concat();
    for _ in 0..100_000 {
        calls.extend(b"ccollections\nOrderedDict\nh\x00R0");
    }
    assert!(Pickle::read(&calls).is_err());
    let long = vec![b'('; MAX_OPCODES + 1];
    assert_eq!(Pickle::read(&long).unwrap_err(), PickleError::TooLong);
    assert_eq!(Value::Int(0).count(), Some(0));
}

#[test]
fn integers_have_their_sign() {
    for (bytes, int) in [
        (&b"\x8a\x00."[..], 0),
        (b"\x8a\x01\xff.", -1),
        (b"\x8a\x02\xff\x00.", 255),
        (b"\x8b\x04\x00\x00\x00\x00\x00\x00\x80.", -(1 << 31)),
        (b"J\xfe\xff\xff\xff.", -2),
        (b"M\x01\x02.", 513),
        (b"K\xff.", 255),
    ] {
        assert_eq!(Pickle::read(bytes).unwrap().root(), Value::Int(int));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::read(&bytes).map(|pickle| pickle.tensors().is_ok());
    }

    /// Inputs of mostly opcodes are parsed further.
    #[test]
    fn no_opcodes_panic(opcodes in prop::collection::vec(prop::sample::select(
        &b"(.012N\x88\x89K\x8a\x8c)t\x85\x86\x87]ae}suq\x94h\x93R\x81bQ\x00\x01\x02c"[..],
    ), 0..200)) {
        let _ = Pickle::read(&opcodes).map(|pickle| pickle.tensors().is_ok());
    }
}
