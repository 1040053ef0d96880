//! Models: configuration, index, safetensors, Meta's files, GGUF.

use std::fs;

use serde_json::json;
use simmer_checkpoint::gguf::Gguf;
use simmer_checkpoint::pth::PthFile;
use simmer_checkpoint::{Pretrained, SafetensorsFile};

use super::{Folder, deep, shown};

fn open(folder: &Folder) -> String {
    folder.said(Pretrained::open(folder.path()))
}

#[test]
fn configurations() {
    let golden = || Folder::of("tied-gqa");
    let set = |key: &str, value| open(&golden().with_key("config.json", key, value));
    let llama3 = |key: &str, value| {
        let folder = Folder::of("llama3-rope");
        open(&folder.with_key("config.json", &format!("rope_parameters.{key}"), value))
    };
    let text = |text: &[u8]| open(&golden().with("config.json", text));
    shown(
        "model::configurations",
        &[
            ("a million `[`", text(deep().as_bytes())),
            ("no object", text(b"[1, 2]")),
            ("an empty file", text(b"")),
            ("invalid UTF-8", text(b"{\"vocab_size\": \"\xFF\"}")),
            (
                "a number beyond all numbers, `1e999`",
                text(b"{\"vocab_size\": 1e999}"),
            ),
            (
                "`NaN`, as Python writes it",
                text(b"{\"rms_norm_eps\": NaN}"),
            ),
            (
                "a file of 5 GB",
                open(&golden().with_long("config.json", 5_000_000_000)),
            ),
            #[cfg(unix)]
            (
                "a link to a device that never ends",
                open(&golden().with_link("config.json", "/dev/zero")),
            ),
            ("a folder in its place", {
                let folder = golden();
                fs::remove_file(folder.at("config.json")).unwrap();
                fs::create_dir(folder.at("config.json")).unwrap();
                open(&folder)
            }),
            (
                "`vocab_size` 10^12",
                set("vocab_size", json!(1_000_000_000_000u64)),
            ),
            ("`vocab_size` -1", set("vocab_size", json!(-1))),
            (
                "`num_hidden_layers` 10^9",
                set("num_hidden_layers", json!(1_000_000_000)),
            ),
            (
                "`num_hidden_layers` 2.5",
                set("num_hidden_layers", json!(2.5)),
            ),
            (
                "`hidden_size` 2^64 - 1",
                set("hidden_size", json!(u64::MAX)),
            ),
            (
                "`intermediate_size` 10^9",
                set("intermediate_size", json!(1_000_000_000)),
            ),
            (
                "`num_attention_heads` 0",
                set("num_attention_heads", json!(0)),
            ),
            (
                "`num_attention_heads` 2^20",
                set("num_attention_heads", json!(1 << 20)),
            ),
            ("`head_dim` 11", set("head_dim", json!(11))),
            ("`rms_norm_eps` -1", set("rms_norm_eps", json!(-1.0))),
            ("`rms_norm_eps` 10^30", set("rms_norm_eps", json!(1e30))),
            (
                "`rope_theta` 10^-300",
                set("rope_parameters.rope_theta", json!(1e-300)),
            ),
            ("rotary factor 0", llama3("factor", json!(0.0))),
            ("rotary factor 10^-300", llama3("factor", json!(1e-300))),
            (
                "rotary factors in the wrong order",
                llama3("low_freq_factor", json!(4.0)),
            ),
            ("`eos_token_id` a text", set("eos_token_id", json!("</s>"))),
        ],
    );
}

#[test]
fn indexes() {
    let with = |index: &[u8]| {
        let folder = Folder::of("tied-gqa");
        fs::remove_file(folder.at("model.safetensors")).unwrap();
        open(&folder.with("model.safetensors.index.json", index))
    };
    let naming = |file: &str| {
        let index = json!({"weight_map": {"model.embed_tokens.weight": file}});
        with(index.to_string().as_bytes())
    };
    shown(
        "model::indexes",
        &[
            (
                "a file outside of the folder",
                naming("../model.safetensors"),
            ),
            ("an absolute name", naming("/etc/passwd")),
            ("a way out and back", naming("x/../model.safetensors")),
            ("a folder in it", naming("x/model.safetensors")),
            ("a drive of Windows", naming("C:model.safetensors")),
            ("a backslash", naming("..\\model.safetensors")),
            ("a NUL byte", naming("model\0.safetensors")),
            ("no name", naming("")),
            (
                "a file that is not there",
                naming("model-00001-of-00009.safetensors"),
            ),
            ("a million `[`", with(deep().as_bytes())),
            ("no `weight_map`", with(b"{}")),
            (
                "invalid UTF-8",
                with(b"{\"weight_map\": {\"\xC3\x28\": \"x\"}}"),
            ),
        ],
    );
}

/// A quantised model with other bytes in its weights file.
fn replaced(golden: &str, from: &str, to: &str) -> String {
    assert_eq!(from.len(), to.len());
    let folder = Folder::of(golden);
    let mut bytes = fs::read(folder.at("model.safetensors")).unwrap();
    let at = bytes
        .windows(from.len())
        .position(|window| window == from.as_bytes())
        .unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    open(&folder.with("model.safetensors", bytes))
}

#[test]
fn quantised_weights() {
    let nf4 = |from: &str, to: &str| replaced("quantised/nf4", from, to);
    let named = |method: &str| {
        let table = json!({"quant_method": method, "bits": 4, "group_size": 128});
        open(&Folder::of("tied-gqa").with_key("config.json", "quantization_config", table))
    };
    shown(
        "model::quantised_weights",
        &[
            ("GPTQ", named("gptq")),
            ("a method that nobody knows", named("new")),
            ("plain weights, and `quant_method` bitsandbytes", {
                let table = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
                open(&Folder::of("tied-gqa").with_key("config.json", "quantization_config", table))
            }),
            (
                "nf4 with blocks of 63",
                nf4("\"blocksize\": 64", "\"blocksize\": 63"),
            ),
            (
                "nf4 with blocks of 32 and the scales of blocks of 64",
                nf4("\"blocksize\": 64", "\"blocksize\": 32"),
            ),
            (
                "nf4 whose state is no JSON",
                nf4("{\"quant_type\"", "[\"quant_type\""),
            ),
            (
                "nf4 without scales",
                nf4("weight.absmax\"", "weight.abxmax\""),
            ),
            (
                "nf4 without its state",
                nf4("weight.quant_state", "weight.quant_stat_"),
            ),
            (
                "int8 without scales",
                replaced("quantised/int8", ".SCB\"", ".SCX\""),
            ),
            (
                "fp8 without scales",
                replaced("quantised/fp8-tensor", "weight_scale\"", "weight_scalf\""),
            ),
            ("fp8 in blocks of no rows", {
                let folder = Folder::of("quantised/fp8-blocks");
                let key = "quantization_config.weight_block_size";
                open(&folder.with_key("config.json", key, json!([0, 16])))
            }),
            ("nf4, cut short", {
                let folder = Folder::of("quantised/nf4");
                let whole = fs::read(folder.at("model.safetensors")).unwrap();
                open(&folder.with("model.safetensors", &whole[..whole.len() - 100]))
            }),
        ],
    );
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn safetensors_files() {
    let said = |bytes: &[u8]| {
        let folder = Folder::empty().with("x.safetensors", bytes);
        folder.said(SafetensorsFile::open(folder.at("x.safetensors")))
    };
    let tensors = |tensors: serde_json::Value, data| said(&safetensors(&tensors.to_string(), data));
    let one = |dtype: &str, shape: serde_json::Value, begin: u64, end: u64, data| {
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        tensors(json!({"a": info}), data)
    };
    let two = |second: [u64; 2], data| {
        let info = |offsets: [u64; 2]| json!({"dtype": "U8", "shape": [offsets[1] - offsets[0]], "data_offsets": offsets});
        tensors(json!({"a": info([0, 8]), "b": info(second)}), data)
    };
    shown(
        "model::safetensors_files",
        &[
            ("an empty file", said(b"")),
            (
                "a header longer than the file",
                said(&[9, 0, 0, 0, 0, 0, 0, 0, b'{']),
            ),
            ("a header of 2^64 - 1 bytes", said(&[0xFF; 16])),
            ("a header of a million `[`", said(&safetensors(&deep(), 0))),
            ("tensors that share bytes", two([4, 12], 12)),
            ("bytes of no tensor between two", two([9, 12], 12)),
            ("bytes of no tensor at the end", two([8, 12], 13)),
            ("a file that was cut", two([8, 12], 10)),
            ("offsets that go backwards", one("U8", json!([8]), 8, 0, 8)),
            (
                "offsets of another length than the shape's",
                one("F32", json!([2]), 0, 4, 4),
            ),
            (
                "a shape of 2^64 numbers",
                one("F32", json!([1u64 << 32, 1u64 << 32]), 0, 4, 4),
            ),
            (
                "a shape whose bytes overflow, with a 0",
                one("F32", json!([u64::MAX, 2, 0]), 0, 0, 0),
            ),
            ("a negative size", one("F32", json!([-1]), 0, 4, 4)),
            ("an unknown dtype", one("F31", json!([1]), 0, 4, 4)),
            (
                "a name twice",
                said(&safetensors(
                    r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                    2,
                )),
            ),
            ("cut while it is in use", {
                let folder = Folder::of("tied-gqa");
                let model = Pretrained::open(folder.path()).unwrap();
                let mut writing = fs::File::options();
                let file = writing.write(true).open(folder.at("model.safetensors"));
                file.unwrap().set_len(10_000).unwrap();
                folder.said(model.checkpoint.tensor("model.norm.weight"))
            }),
        ],
    );
}

#[test]
fn metas_files() {
    let golden = || Folder::of("meta/llama1/2");
    let set = |key: &str, value| open(&golden().with_key("params.json", key, value));
    let pth = |bytes: &[u8]| {
        let folder = Folder::empty();
        folder.said(PthFile::parse(bytes))
    };
    let views = fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/goldens/meta/views.pth"
    ))
    .unwrap();
    let replaced = |from: &[u8], to: &[u8]| {
        let mut file = views.clone();
        let places = (0..=file.len() - from.len()).filter(|&at| file[at..].starts_with(from));
        for at in places.collect::<Vec<_>>() {
            file[at..at + to.len()].copy_from_slice(to);
        }
        pth(&file)
    };
    let pickled = |pickle: &[u8]| {
        let pickle = simmer_checkpoint::pickle::Pickle::read(pickle);
        Folder::empty().said(pickle.and_then(|pickle| pickle.tensors().map(|_| ())))
    };
    shown(
        "model::metas_files",
        &[
            (
                "params.json: a million `[`",
                open(&golden().with("params.json", deep())),
            ),
            (
                "params.json: `n_layers` 10^9",
                set("n_layers", json!(1_000_000_000)),
            ),
            ("params.json: `dim` 2^63", set("dim", json!(1u64 << 63))),
            (
                "params.json: `multiple_of` 2^40",
                set("multiple_of", json!(1u64 << 40)),
            ),
            ("params.json: `n_heads` 0", set("n_heads", json!(0))),
            (
                "params.json: `rope_theta` a text",
                set("rope_theta", json!("high")),
            ),
            ("a part that is missing", {
                let folder = golden();
                fs::remove_file(folder.at("consolidated.01.pth")).unwrap();
                open(&folder)
            }),
            (
                "a part number 99",
                open(&golden().with("consolidated.99.pth", "x")),
            ),
            ("no archive", pth(b"plain text")),
            ("an archive that was cut", pth(&views[..views.len() / 2])),
            (
                "an archive whose names lead outside",
                replaced(b"views/data", b"../../data"),
            ),
            (
                "a pickle that runs a program",
                pickled(b"cos\nsystem\n(S'true'\ntR."),
            ),
            (
                "a pickle of a gigabyte's length",
                pickled(b"\x80\x02\x8E\x00\x00\x00\x40\x00\x00\x00\x00x."),
            ),
            (
                "a pickle of lists in lists",
                pickled(&[b"]".repeat(1 << 16), b".".to_vec()].concat()),
            ),
        ],
    );
}

/// The beginning of a GGUF file: version, tensors, keys.
fn gguf(tensors: u64, keys: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(tensors.to_le_bytes());
    file.extend(keys.to_le_bytes());
    file.extend(rest.concat());
    file
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A line of the table of tensors, of F32 in one dimension.
fn tensor(name: &str, size: u64, offset: u64) -> Vec<u8> {
    let numbers = [
        &1u32.to_le_bytes()[..],
        &size.to_le_bytes(),
        &0u32.to_le_bytes(),
        &offset.to_le_bytes(),
    ];
    [text(name), numbers.concat()].concat()
}

#[test]
fn gguf_files() {
    let said = |bytes: Vec<u8>| Folder::empty().said(Gguf::parse(bytes.into()));
    let array = |depth: usize| {
        let mut value = 9u32.to_le_bytes().to_vec();
        for _ in 0..depth {
            value.extend(9u32.to_le_bytes());
            value.extend(1u64.to_le_bytes());
        }
        [text("key"), value].concat()
    };
    let zeros = [0; 256];
    let split = |name: &str| {
        let count = [
            text("split.count"),
            4u32.to_le_bytes().to_vec(),
            3u32.to_le_bytes().to_vec(),
        ];
        let folder = Folder::empty().with(name, gguf(0, 1, &[&count.concat()]));
        folder.said(Pretrained::open(&folder.at(name)))
    };
    shown(
        "model::gguf_files",
        &[
            ("an empty file", said(Vec::new())),
            ("2^63 tensors", said(gguf(1 << 63, 0, &[]))),
            ("2^40 metadata keys", said(gguf(0, 1 << 40, &[]))),
            (
                "a text of 2^60 bytes",
                said(gguf(0, 1, &[&(1u64 << 60).to_le_bytes()])),
            ),
            (
                "a key that is not UTF-8",
                said(gguf(0, 1, &[&2u64.to_le_bytes(), &[0xC3, 0x28]])),
            ),
            ("arrays in arrays", said(gguf(0, 1, &[&array(100_000)]))),
            (
                "an array of 2^62 numbers",
                said(gguf(
                    0,
                    1,
                    &[
                        &text("key"),
                        &9u32.to_le_bytes(),
                        &6u32.to_le_bytes(),
                        &(1u64 << 62).to_le_bytes(),
                    ],
                )),
            ),
            ("a key twice", {
                let key = [text("key"), 0u32.to_le_bytes().to_vec(), vec![1]].concat();
                said(gguf(0, 2, &[&key, &key]))
            }),
            (
                "tensors that share bytes",
                said(gguf(
                    2,
                    0,
                    &[&tensor("a", 16, 0), &tensor("b", 16, 32), &zeros],
                )),
            ),
            (
                "an offset that is not aligned",
                said(gguf(1, 0, &[&tensor("a", 4, 3), &zeros])),
            ),
            (
                "an offset beyond the file",
                said(gguf(1, 0, &[&tensor("a", 4, 1 << 40), &zeros])),
            ),
            (
                "a tensor of 2^62 numbers",
                said(gguf(1, 0, &[&tensor("a", 1 << 62, 0), &zeros])),
            ),
            (
                "a part of a split model under a name that leads nowhere",
                split("model.gguf"),
            ),
            (
                "a part of a split model without the others",
                split("m-00001-of-00003.gguf"),
            ),
        ],
    );
}
