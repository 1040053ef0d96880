//! Which method quantised the weights of a folder, by its `config.json`.

use serde_json::Value;

/// A method whose weights simmer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// nf4, fp4 and int8 of bitsandbytes.
    BitsAndBytes,
    /// fp8 (e4m3).
    Fp8 {
        /// Rows and columns that share a scale, if they are blocks.
        block: Option<[usize; 2]>,
    },
}

/// A method whose weights simmer does not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotRead {
    /// The key of `config.json`.
    pub(crate) key: &'static str,
    /// Its name, in plain words.
    pub(crate) name: &'static str,
}

impl Method {
    /// The method that a configuration names; `None`: it quantises nothing.
    ///
    /// # Errors
    /// If simmer does not read the weights.
    pub(crate) fn of(json: &Value) -> Result<Option<Self>, NotRead> {
        for key in KEYS {
            let Some(table) = json.get(key).filter(|table| !table.is_null()) else {
                continue;
            };
            if let Some(read) = read(table) {
                return Ok(Some(read));
            }
            if let Some(name) = not_read(table) {
                return Err(NotRead { key, name });
            }
        }
        Ok(None)
    }
}

/// The keys that describe quantised weights: that of transformers, that of early versions of compressed-tensors, and MLX's.
pub(crate) const KEYS: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

fn flag(table: &Value, key: &str) -> bool {
    table.get(key) == Some(&Value::Bool(true))
}

fn text<'a>(table: &'a Value, key: &str) -> &'a str {
    table.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn read(table: &Value) -> Option<Method> {
    let loads = [
        "load_in_4bit",
        "_load_in_4bit",
        "load_in_8bit",
        "_load_in_8bit",
    ];
    match text(table, "quant_method") {
        "bitsandbytes" | "bitsandbytes_4bit" | "bitsandbytes_8bit" | ""
            if loads.iter().any(|key| flag(table, key)) =>
        {
            Some(Method::BitsAndBytes)
        }
        "fp8" | "finegrained_fp8" => Some(Method::Fp8 {
            block: table.get("weight_block_size").and_then(pair),
        }),
        "fbgemm_fp8" => Some(Method::Fp8 { block: None }),
        "modelopt" if text(table, "quant_algo") == "FP8" => Some(Method::Fp8 { block: None }),
        "compressed-tensors" | "compressed_tensors" => compressed(table),
        _ => None,
    }
}

/// The fp8 weights of compressed-tensors: all groups have eight bits of floating point.
fn compressed(table: &Value) -> Option<Method> {
    let format = text(table, "format");
    if !matches!(format, "float-quantized" | "naive-quantized") {
        return None;
    }
    let groups = table.get("config_groups")?.as_object()?;
    let mut block = None;
    for group in groups.values() {
        let weights = group.get("weights")?;
        if text(weights, "type") != "float" || weights.get("num_bits")?.as_u64() != Some(8) {
            return None;
        }
        block = weights.get("block_structure").and_then(pair).or(block);
    }
    (!groups.is_empty()).then_some(Method::Fp8 { block })
}

/// Two positive sizes.
fn pair(value: &Value) -> Option<[usize; 2]> {
    let sizes = value.as_array()?.iter().map(Value::as_u64);
    let sizes = sizes.collect::<Option<Vec<_>>>()?;
    let &[rows, columns] = &sizes[..] else {
        return None;
    };
    let size = |size: u64| usize::try_from(size).ok().filter(|&size| size > 0);
    Some([size(rows)?, size(columns)?])
}

/// The name of a method that is not read, in plain words; `None`: it quantises nothing.
fn not_read(table: &Value) -> Option<&'static str> {
    Some(match text(table, "quant_method") {
        "gptq" | "gptqmodel" => "GPTQ (integers of a few bits)",
        "awq" => "AWQ (4-bit integers)",
        "bitsandbytes" => return None,
        "compressed-tensors" | "compressed_tensors" => match text(table, "format") {
            "dense" => return None,
            "pack-quantized" => "compressed-tensors (integers of a few bits)",
            "int-quantized" => "compressed-tensors (8-bit integers)",
            "nvfp4-pack-quantized" => "compressed-tensors (4-bit floating point)",
            _ => "compressed-tensors (of llm-compressor)",
        },
        "mxfp4" => "mxfp4 (4-bit floating point)",
        "modelopt" | "modelopt_fp4" => "modelopt (of NVIDIA)",
        "bitnet" => "BitNet (1.58 bits)",
        "hqq" => "HQQ",
        "aqlm" => "AQLM",
        "quanto" => "quanto",
        "torchao" => "torchao",
        "eetq" => "EETQ",
        "higgs" => "HIGGS",
        "vptq" => "VPTQ",
        "spqr" => "SpQR",
        "auto-round" | "intel/auto-round" => "AutoRound",
        "exl2" | "exl3" => "ExLlama",
        "" if table.get("group_size").is_some() && table.get("bits").is_some() => {
            "MLX (integers of a few bits)"
        }
        _ => "an unknown method",
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(table: &Value) -> Result<Option<Method>, NotRead> {
        Method::of(&json!({"quantization_config": table}))
    }

    /// The tables of published models.
    #[test]
    fn methods_that_are_read() {
        let fp8 = |block| Ok(Some(Method::Fp8 { block }));
        let bitsandbytes = Ok(Some(Method::BitsAndBytes));
        let group = json!({"weights": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}});
        for (table, expected) in [
            (
                json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}),
                bitsandbytes,
            ),
            (
                json!({"_load_in_8bit": true, "load_in_4bit": false}),
                Ok(Some(Method::BitsAndBytes)),
            ),
            (
                json!({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 64]}),
                fp8(Some([128, 64])),
            ),
            (
                json!({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": null}),
                fp8(None),
            ),
            (
                json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}),
                fp8(None),
            ),
            (
                json!({"quant_method": "modelopt", "quant_algo": "FP8"}),
                fp8(None),
            ),
            (
                json!({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group}}),
                fp8(Some([128, 128])),
            ),
            (
                json!({"quant_method": "bitsandbytes", "load_in_4bit": false, "load_in_8bit": false}),
                Ok(None),
            ),
            (Value::Null, Ok(None)),
        ] {
            assert_eq!(of(&table), expected, "{table}");
        }
    }

    #[test]
    fn methods_that_are_not_read_have_a_name() {
        let ints = json!({"weights": {"num_bits": 8, "type": "int"}});
        for (table, words) in [
            (json!({"quant_method": "gptq", "bits": 4}), "GPTQ"),
            (json!({"quant_method": "awq", "bits": 4}), "AWQ"),
            (
                json!({"quant_method": "compressed-tensors", "format": "pack-quantized"}),
                "compressed-tensors (integers",
            ),
            (
                json!({"quant_method": "compressed-tensors", "format": "naive-quantized", "config_groups": {"group_0": ints}}),
                "compressed-tensors",
            ),
            (json!({"quant_method": "mxfp4"}), "mxfp4"),
            (json!({"group_size": 64, "bits": 4}), "MLX"),
            (json!({"quant_method": "new"}), "an unknown method"),
        ] {
            let found = of(&table).unwrap_err();
            assert_eq!(found.key, "quantization_config");
            assert!(found.name.starts_with(words), "{table}: {}", found.name);
        }
    }
}
