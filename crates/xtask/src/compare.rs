//! Comparisons with other people's programs: each has its script, and packages of its own.
//!
//! The check of a change compares with committed goldens. These are run when the part they are about changes, and their
//! date and result are written down with the change.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{command, run};

/// One comparison.
struct Comparison {
    name: &'static str,
    /// With what, and what is compared.
    with: &'static str,
    /// When to run it.
    when: &'static str,
    /// Whether it needs the packages of tests/reference/requirements.txt.
    reference: bool,
    /// What pip installs besides.
    packages: &'static [&'static str],
    /// Arguments of `cargo build` before it.
    build: &'static [&'static str],
    /// The program and its first arguments; `PYTHON` stands for the environment's interpreter.
    script: &'static [&'static str],
    /// What has to follow on the command line.
    arguments: &'static str,
}

const REQUIREMENTS: &str = "tests/reference/requirements.txt";
const PROGRAM: &[&str] = &["--bin", "simmer"];

const COMPARISONS: &[Comparison] = &[
    Comparison {
        name: "peft",
        with: "PEFT and transformers: adapters in both directions, event files in TensorBoard (also part of `ci`)",
        when: "adapters, their files, merging, scoring",
        reference: true,
        packages: &[],
        build: PROGRAM,
        script: &["tests/reference/check_peft.sh", "target/debug/simmer"],
        arguments: "",
    },
    Comparison {
        name: "goldens",
        with: "PyTorch, transformers and PEFT: makes tests/goldens again; `git diff tests/goldens` has to be empty",
        when: "tests/reference, or a golden",
        reference: true,
        packages: &[],
        build: &[],
        script: &["PYTHON", "tests/reference/generate.py"],
        arguments: "",
    },
    Comparison {
        name: "smollm2",
        with: "transformers and PEFT on a real model: an answer, 20 steps, log-probabilities",
        when: "the forward or backward pass, training, the tokenizer",
        reference: true,
        packages: &[],
        build: PROGRAM,
        script: &[
            "PYTHON",
            "tests/reference/check_smollm2.py",
            "target/debug/simmer",
        ],
        arguments: "MODEL DATA.json OUT [--steps N]",
    },
    Comparison {
        name: "llama-cpp",
        with: "llama.cpp: tokens and greedy answers of what is exported as GGUF",
        when: "GGUF",
        reference: false,
        packages: &["llama-cpp-python"],
        build: PROGRAM,
        script: &[
            "PYTHON",
            "tests/reference/check_gguf.py",
            "target/debug/simmer",
        ],
        arguments: "MODEL [ADAPTER]",
    },
    Comparison {
        name: "gguf-families",
        with: "llama.cpp, its converter and transformers: a random model of each family as GGUF and back",
        when: "GGUF, a family",
        reference: true,
        packages: &["llama-cpp-python"],
        build: PROGRAM,
        script: &[
            "PYTHON",
            "tests/reference/check_gguf_families.py",
            "target/debug/simmer",
            "data/tiny-base",
        ],
        arguments: "[--llama-cpp CHECKOUT] [FAMILY ...]",
    },
    Comparison {
        name: "qlora",
        with: "PEFT with bitsandbytes: ten steps on a model in nf4; PEFT with an adapter that was trained on a GGUF file",
        when: "quantised weights, the forward or backward pass",
        reference: true,
        packages: &["bitsandbytes==0.50.2"],
        build: PROGRAM,
        script: &[
            "PYTHON",
            "tests/reference/check_qlora.py",
            "target/debug/simmer",
        ],
        arguments: "[MODEL] [--gguf FILE]",
    },
    Comparison {
        name: "meta",
        with: "PyTorch: a folder in Meta's layout equals the same model in Hugging Face's, bit by bit",
        when: "Meta's layout, pickles",
        reference: true,
        packages: &[],
        build: &[],
        script: &["PYTHON", "tests/reference/check_meta.py"],
        arguments: "META_FOLDER HUGGING_FACE_FOLDER",
    },
    Comparison {
        name: "hub",
        with: "huggingface_hub: one cache for both, over a server on the loopback interface",
        when: "names on the hub, its cache, downloads",
        reference: false,
        packages: &["huggingface_hub"],
        build: &["-p", "simmer-checkpoint", "--example", "fetch"],
        script: &[
            "PYTHON",
            "tests/reference/check_hub.py",
            "target/debug/examples/fetch",
        ],
        arguments: "",
    },
    Comparison {
        name: "mlflow",
        with: "MLflow's server on the loopback interface: a run, stopped and resumed, and one that the server missed",
        when: "train.track, the tracker MLflow",
        reference: false,
        packages: &["mlflow==3.17.2"],
        build: PROGRAM,
        script: &[
            "PYTHON",
            "tests/reference/check_mlflow.py",
            "target/debug/simmer",
        ],
        arguments: "",
    },
    Comparison {
        name: "wandb",
        with: "`wandb sync` and a server on the loopback interface: what arrives of a run's folder",
        when: "train.track, the tracker W&B",
        reference: false,
        packages: &["wandb==0.31.0"],
        build: PROGRAM,
        script: &[
            "PYTHON",
            "tests/reference/check_wandb.py",
            "target/debug/simmer",
        ],
        arguments: "",
    },
    Comparison {
        name: "harness",
        with: "lm-evaluation-harness: prompts, log-likelihoods and texts on the same rows",
        when: "evaluation",
        reference: true,
        packages: &["lm-eval==0.4.13"],
        build: &[],
        script: &["PYTHON", "tests/reference/harness.py"],
        arguments: "goldens | run MODEL DATA OUT | compare OUT ANSWERS",
    },
    Comparison {
        name: "tokenizers",
        with: "Google's sentencepiece and tiktoken on random Unicode",
        when: "tokenizer.model files",
        reference: false,
        packages: &["sentencepiece==0.2.3", "tiktoken==0.14.0"],
        build: &["--release", "-p", "simmer-data", "--example", "encode"],
        script: &["PYTHON", "tests/reference/random_unicode.py"],
        arguments: "tokenizer.model [--count N]",
    },
    Comparison {
        name: "schedule",
        with: "the learning rates in the log of a published run",
        when: "schedules",
        reference: false,
        packages: &[],
        build: PROGRAM,
        script: &[
            "PYTHON",
            "tests/reference/check_schedule.py",
            "target/debug/simmer",
        ],
        arguments: "TRAINER_STATE.json",
    },
    Comparison {
        name: "near-duplicates",
        with: "rouge_score: near-duplicates, pair by pair",
        when: "lint's near-duplicates",
        reference: false,
        packages: &["rouge-score==0.1.2"],
        build: &[],
        script: &["PYTHON", "tests/reference/near_duplicates.py"],
        arguments: "FILE.json ...",
    },
];

/// Prints every comparison: its name, arguments, with what, and when to run it.
pub(crate) fn list() {
    for comparison in COMPARISONS {
        println!("{} {}", comparison.name, comparison.arguments);
        println!("    with {}", comparison.with);
        println!("    when these change: {}", comparison.when);
    }
    println!("\nPaths are relative to the root of the repository.");
}

/// Runs a comparison in an environment of its own, below `target/compare`.
pub(crate) fn run_named(root: &Path, comparison: &str, rest: &[&str]) -> Result<()> {
    let found = COMPARISONS.iter().find(|known| known.name == comparison);
    let Some(comparison) = found else {
        let names: Vec<&str> = COMPARISONS.iter().map(|known| known.name).collect();
        bail!(
            "no comparison is named `{comparison}`; there are: {}",
            names.join(", ")
        );
    };
    if rest.is_empty() && !comparison.arguments.is_empty() {
        bail!(
            "`{}` needs arguments: {}",
            comparison.name,
            comparison.arguments
        );
    }
    let python = environment(root, comparison)?;
    if !comparison.build.is_empty() {
        let arguments = [&["build", "--locked"], comparison.build].concat();
        run(&mut command(root, "cargo", &arguments))?;
    }
    let python = python.display().to_string();
    let words = comparison.script.iter().map(|word| match *word {
        "PYTHON" => python.as_str(),
        word => word,
    });
    let words: Vec<&str> = words.chain(rest.iter().copied()).collect();
    let mut script = command(root, words[0], &words[1..]);
    script.env(
        "REFERENCE_VENV",
        root.join("target/compare").join(comparison.name),
    );
    run(&mut script)?;
    println!(
        "{}: the script ended without a difference or an error",
        comparison.name
    );
    Ok(())
}

/// The interpreter of a comparison's environment, which is made where it is missing or its packages have changed.
fn environment(root: &Path, comparison: &Comparison) -> Result<PathBuf> {
    let folder = root.join("target/compare").join(comparison.name);
    let python = folder.join("bin/python");
    let mut wanted = comparison.packages.join(" ");
    if comparison.reference {
        let requirements = fs::read_to_string(root.join(REQUIREMENTS));
        wanted += &requirements.with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    }
    let marker = folder.join("packages.txt");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let name = folder.display().to_string();
    let create: &[&str] = if comparison.reference {
        // torch without the parts for GPUs
        &["tests/reference/environment.py", &name]
    } else {
        &["-m", "venv", "--clear", &name]
    };
    run(&mut command(root, "python3", create))?;
    if !comparison.packages.is_empty() {
        let pip = folder.join("bin/pip").display().to_string();
        let arguments = [&["install", "-q"], comparison.packages].concat();
        run(&mut command(root, &pip, &arguments))?;
    }
    fs::write(&marker, wanted).with_context(|| format!("cannot write {}", marker.display()))?;
    Ok(python)
}
