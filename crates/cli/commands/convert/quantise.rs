//! `simmer convert --quantize`: the options, and the table of what was quantised.

use clap::{ArgAction, Args};
use simmer_checkpoint::Pretrained;
use simmer_checkpoint::convert::{BitsAndBytes, Codes, FourBitKind, QuantisationReport};
use simmer_checkpoint::gguf::model::FileType;
use simmer_files::size::{are, readable};

use super::To;
use crate::failure::{Failure, bail};
use crate::output;

/// The types that `--quantize` knows.
pub(crate) const TYPES: [&str; 14] = [
    "nf4", "fp4", "int8", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k", "q4_k_s",
    "q4_k_m", "q5_k_m",
];

#[derive(Debug, Args)]
pub(super) struct Quantise {
    /// Quantise the matrices. nf4, fp4 and int8 write a Hugging Face folder that bitsandbytes loads; the
    /// types of GGUF a .gguf file. _s and _m are llama.cpp's mixes
    #[arg(long, value_name = "TYPE", value_parser = TYPES)]
    quantize: Option<String>,
    /// Quantise the scales of nf4 and fp4 too. Default: true
    #[arg(
        long,
        value_name = "true|false",
        action = ArgAction::Set,
        requires = "quantize"
    )]
    double_quant: Option<bool>,
    /// Quantise the output head too, with nf4, fp4 or int8
    #[arg(long, requires = "quantize")]
    quantize_head: bool,
}

/// A type to quantise to.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    BitsAndBytes(BitsAndBytes),
    Gguf(FileType),
}

impl Quantise {
    pub(super) fn is_set(&self) -> bool {
        self.quantize.is_some()
    }

    /// Whether --double-quant is set for a type without scales that could be quantised.
    pub(super) fn double_quant_is_unused(&self) -> bool {
        let name = self.quantize.as_deref();
        self.double_quant.is_some() && name.and_then(FourBitKind::named).is_none()
    }

    /// The type, if it fits the layout that is written.
    pub(super) fn kind(&self, to: To, has_dtype: bool) -> Result<Option<Kind>, Failure> {
        let Some(name) = self.quantize.as_deref() else {
            return Ok(None);
        };
        let codes = match name {
            "int8" => Some(Codes::Int8),
            name => FourBitKind::named(name).map(|kind| Codes::FourBit {
                kind,
                nested: self.double_quant.unwrap_or(true),
            }),
        };
        if let Some(codes) = codes {
            if to != To::Hf {
                bail!("--quantize {name} writes a Hugging Face folder; OUT must be one");
            }
            let head = self.quantize_head;
            return Ok(Some(Kind::BitsAndBytes(BitsAndBytes { codes, head })));
        }
        if to != To::Gguf {
            bail!("--quantize {name} writes a GGUF file; OUT must end in .gguf");
        }
        if self.quantize_head {
            bail!("--quantize-head is for nf4, fp4 and int8; {name} quantises the head always");
        }
        if has_dtype {
            bail!(
                "--dtype cannot be combined with --quantize {name}, which is the type of the matrices"
            );
        }
        Ok(FileType::named(name).map(Kind::Gguf))
    }
}

/// Tells that the weights of a model are quantised already.
pub(super) fn note_again(model: &Pretrained) {
    let checkpoint = &model.checkpoint;
    let mut names = checkpoint.names();
    let kind = names.find_map(|name| match checkpoint.quantised(name) {
        Ok(Some(matrix)) => Some(matrix.kind()),
        _ => None,
    });
    if let Some(kind) = kind {
        output::note(&format!(
            "warning: the weights are quantised already ({kind}); they are widened, and quantised once more\n\
             hint: quantise the original, if you have it; the errors below are those of the second time"
        ));
    }
}

/// Tells what was quantised, and how far it is from the model.
pub(super) fn note(report: &QuantisationReport) {
    if report.modules.is_empty() {
        return;
    }
    for instead in &report.instead {
        output::note(&format!(
            "{} {} instead of {}: rows of {} elements are not whole blocks",
            are(instead.weights, "weight"),
            instead.kind,
            instead.wanted,
            instead.columns
        ));
    }
    let rows = report.modules.iter().map(|module| {
        let kinds: Vec<&str> = module.kinds.iter().copied().collect();
        [
            module.name.clone(),
            module.weights.to_string(),
            kinds.join(", "),
            readable(module.before),
            readable(module.after),
            format!("{:.2}%", module.error.relative() * 100.0),
        ]
    });
    let head = ["quantised", "weights", "type", "before", "after", "error"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut lines: Vec<String> = rows.iter().map(|row| line(row, widths)).collect();
    lines.push(format!(
        "{} of weights before, {} after; error: root mean square of the differences, relative to that of the weights",
        readable(report.before),
        readable(report.after)
    ));
    output::note(&lines.join("\n"));
}

/// The first and the third column begin on the left, the others end on the right.
fn line(row: &[String; 6], widths: [usize; 6]) -> String {
    let cells = row.iter().zip(widths).enumerate();
    let cells = cells.map(|(column, (cell, width))| match column {
        0 | 2 => format!("{cell:width$}"),
        _ => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join("  ")
}
