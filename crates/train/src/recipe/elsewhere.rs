//! Keys, values and options of other programs, and what does the same here. `docs/words.md` is the same for readers.
//!
//! Sources: axolotl's config reference, LLaMA-Factory's and TRL's arguments, transformers' `TrainingArguments`, PEFT's
//! `LoraConfig`, mlx-lm's `lora_config.yaml`, and Unsloth's notebooks.

use super::places::place_of;

/// Keys of other programs that do one thing.
struct Elsewhere {
    /// The names, separated by spaces.
    names: &'static str,
    /// The key of a recipe that does it, or `[table]`; empty if there is none.
    here: &'static str,
    /// What else there is to say, as an instruction or a sentence; may be empty.
    more: &'static str,
}

const fn key(names: &'static str, here: &'static str, more: &'static str) -> Elsewhere {
    Elsewhere { names, here, more }
}

const fn text(names: &'static str, more: &'static str) -> Elsewhere {
    key(names, "", more)
}

const ALWAYS_FUSED: &str = "leave it out: attention and the other operations are always fused";
const ALWAYS_PACKED: &str =
    "leave it out: rows are always packed without padding, and do not attend to each other";
const NOT_YET: &str = "leave it out: this version has no counterpart";

/// The keys. A key that a recipe has itself, in another table, is not listed.
const KEYS: &[Elsewhere] = &[
    // batches
    text(
        "gradient_accumulation_steps gradient_accumulation grad_accumulation_steps accumulate_grad_batches \
         grad_accum_steps",
        "set `train.batch_size` to the whole batch of a step, accumulation included; `train.micro_batch_tokens` \
         sets how many tokens are computed at a time",
    ),
    key(
        "per_device_train_batch_size micro_batch_size per_device_batch_size train_batch_size mini_batch_size bs",
        "train.batch_size",
        "it is the whole batch of a step: batch per device x accumulation steps x devices",
    ),
    text(
        "per_device_eval_batch_size eval_batch_size val_batch_size val_batches",
        "leave it out: validation computes `train.micro_batch_tokens` tokens at a time",
    ),
    key(
        "auto_find_batch_size",
        "train.micro_batch_tokens",
        "`\"auto\"` takes as many tokens as fit into memory",
    ),
    // dtypes
    text(
        "bf16 fp16 tf32 half float16 bfloat16 mixed_precision torch_dtype dtype compute_type pure_bf16",
        "set `base.precision` for the dtype of the frozen weights (default: as stored) and, on libtorch devices, \
         `base.compute = \"bf16\"` to compute in bf16; trainable parameters are always f32",
    ),
    text(
        "load_in_4bit load_in_8bit quantization_bit quantization_method quantization_config bnb_4bit_quant_type \
         bnb_4bit_compute_dtype bnb_config quantization quantize qlora bits",
        "use a base model in bf16 or f16, or a quantised .gguf file, which is widened when it is read: this version \
         has no QLoRA",
    ),
    // adapters
    key(
        "lora peft peft_config lora_config lora_parameters adapter_config adapters",
        "[method.lora]",
        "",
    ),
    key("full full_finetuning", "[method.full]", ""),
    key("r lora_r lora_rank", "method.lora.rank", ""),
    key("lora_alpha", "method.lora.alpha", ""),
    key("lora_dropout", "method.lora.dropout", ""),
    key(
        "target_modules lora_target_modules lora_target lora_targets lora_modules",
        "method.lora.targets",
        "",
    ),
    text(
        "lora_target_linear lora_all_linear target_all_linear",
        "set `method.lora.targets = \"all-linear\"`",
    ),
    key(
        "lora_modules_to_save additional_target",
        "method.lora.modules_to_save",
        "",
    ),
    key(
        "lora_model_dir adapter_name_or_path resume_adapter_file adapter_file",
        "method.lora.from",
        "",
    ),
    key(
        "num_layers lora_layers layers_to_tune",
        "method.lora.layers_to_transform",
        "it takes the numbers of the layers, from 0",
    ),
    text(
        "scale lora_scale",
        "set `method.lora.alpha` to the scale times the rank",
    ),
    text(
        "use_dora dora loraplus_lr_ratio loraplus_lr_embedding loftq_config init_lora_weights pissa_init use_pissa \
         lora_bias trainable_token_indices peft_use_dora",
        "leave it out: this version has LoRA and rsLoRA (`use_rslora`) with PEFT's default initialisation",
    ),
    text(
        "finetuning_type fine_tune_type adapter training_type train_type peft_type tuner_type",
        "write the table [method.lora], or [method.full] to train all weights",
    ),
    text(
        "task_type inference_mode auto_mapping",
        "leave it out: every recipe trains a causal language model",
    ),
    // base models
    text(
        "revision model_revision",
        "write it after the name on the hub: path = \"ORG/NAME@REVISION\"",
    ),
    key(
        "base_model model_name_or_path model_name model_path pretrained_model_name_or_path model model_id base_model_name",
        "base.path",
        "",
    ),
    key(
        "tokenizer_config tokenizer_name tokenizer_name_or_path tokenizer_path",
        "base.tokenizer",
        "",
    ),
    key(
        "new_special_tokens additional_special_tokens",
        "base.add_special_tokens",
        "",
    ),
    text(
        "special_tokens",
        "set `base.pad_token` and `base.add_special_tokens`; the EOS token is the tokenizer's",
    ),
    text(
        "trust_remote_code",
        "leave it out: code in a model's folder is never run",
    ),
    key(
        "device_map cuda_visible_devices no_cuda use_cpu use_mps_device accelerator gpu gpus gpu_id",
        "device",
        "such as \"cpu\" or \"libtorch-cuda:0\"",
    ),
    text(
        "flash_attention flash_attn flash_attention_2 use_flash_attention_2 attn_implementation sdp_attention \
         xformers_attention use_liger_kernel enable_liger_kernel use_unsloth torch_compile flash_attn_2 s2_attention",
        ALWAYS_FUSED,
    ),
    text(
        "deepspeed fsdp fsdp_config ddp tensor_parallel num_gpus world_size ddp_find_unused_parameters local_rank",
        "leave it out: a run uses one device",
    ),
    key("tokens", "base.add_tokens", ""),
    // data
    key("ds_type formatting", "data.train.N.format", ""),
    key(
        "field_instruction field_messages field_output field_input message_property_mappings columns",
        "data.train.N.fields",
        "",
    ),
    text(
        "drop_system_message roles_to_train",
        "set `data.train_on`: it selects among answers and marked messages",
    ),
    text(
        "train_on_eos",
        "leave it out: the EOS token after an answer is always trained on",
    ),
    key(
        "loss_watchdog_threshold loss_watchdog_patience",
        "train.guard",
        "such as guard = { spike = { times = 3 } }",
    ),
    key(
        "datasets dataset train_file train_files dataset_name train_dataset data_path data_files dataset_path \
         dataset_id train_data",
        "data.train",
        "it is a list of sources: train = [{ path = \"rows.jsonl\", template = \"chat\" }]",
    ),
    key(
        "val_set_size val_size eval_dataset test_datasets test_size validation_split eval_split val_dataset \
         validation_file eval_data split_ratio valid",
        "data.validation",
        "such as validation = { fraction = 0.05 }",
    ),
    key(
        "sequence_len cutoff_len max_seq_length max_seq_len max_length model_max_length seq_len block_size \
         context_length max_sequence_length sequence_length",
        "data.max_tokens",
        "",
    ),
    text(
        "sample_packing packing neat_packing pad_to_sequence_len group_by_length padding_side padding_free \
         multipack_sampler eval_sample_packing pad_to_max_length padding",
        ALWAYS_PACKED,
    ),
    key(
        "train_on_inputs train_on_prompt completion_only_loss assistant_only_loss mask_prompt \
         train_on_responses_only mask_inputs train_on_input",
        "data.train_on",
        "\"answers\" (default) trains on answers alone, \"everything\" on prompts too",
    ),
    key("mask_history", "data.train_on", "\"last_answer\""),
    text(
        "chat_template prompt_style template_name dataset_text_field prompt_template prompt_format \
         conversation_template formatting_func text_column apply_chat_template",
        "name the template of each source: train = [{ path = \"rows.jsonl\", template = \"chat\" }]",
    ),
    key("streaming", "data.stream", ""),
    key("buffer_size shuffle_buffer_size", "data.shuffle_rows", ""),
    key(
        "excess_length_strategy truncation",
        "data.overlong",
        "\"truncate\" (default), \"drop\" or \"split\"",
    ),
    key("shuffle_merged_datasets", "data.shuffle", ""),
    text(
        "interleave_probs mix_strategy interleave_strategy",
        "set `weight` of each source in `data.train`",
    ),
    text(
        "max_samples max_train_samples num_samples",
        "set `train.max_steps`, or use a shorter file",
    ),
    text(
        "preprocessing_num_workers dataset_num_proc dataloader_num_workers num_workers dataset_prepared_path \
         overwrite_cache dataset_processes num_proc",
        "leave it out: tokenising uses all cores, and nothing is cached",
    ),
    // steps and rates
    key("num_train_epochs num_epochs n_epochs", "train.epochs", ""),
    key(
        "iters num_iters total_steps max_iters",
        "train.max_steps",
        "",
    ),
    key("lr peak_lr", "train.learning_rate", ""),
    text(
        "warmup_ratio warmup_steps warmup lr_warmup_steps num_warmup_steps",
        "set it in the schedule: `schedule = { cosine = { warmup_ratio = 0.03 } }` in [train]",
    ),
    key(
        "lr_scheduler lr_scheduler_type scheduler lr_schedule scheduler_type",
        "train.schedule",
        "\"constant\", \"linear\" or \"cosine\"",
    ),
    text(
        "cosine_min_lr_ratio min_lr_ratio min_lr min_lr_rate lr_scheduler_kwargs",
        "set it in the schedule: `schedule = { cosine = { min_ratio = 0.1 } }` in [train]",
    ),
    text(
        "weight_decay adam_beta1 adam_beta2 adam_epsilon beta1 beta2 betas eps epsilon optim_args",
        "set it in the optimizer: `optimizer = { adamw = { weight_decay = 0.01 } }` in [train]; its keys are beta1, \
         beta2, eps, weight_decay and decay",
    ),
    key("optim optimizer_type", "train.optimizer", "\"adamw\""),
    key(
        "max_grad_norm gradient_clipping grad_clip gradient_clip_val clip_grad_norm max_norm",
        "train.clip",
        "such as clip = { norm = 1.0 }, the default",
    ),
    key(
        "gradient_checkpointing use_gradient_checkpointing grad_checkpoint activation_checkpointing",
        "train.recompute",
        "\"layer\" saves the most memory, \"mlp\" less of memory and time, \"none\" is the default",
    ),
    // during and after a run
    text(
        "logging_steps log_every steps_per_report logging_strategy log_interval logging_first_step log_every_n_steps",
        "leave it out: every step is in metrics.jsonl; `simmer train --log-every N` sets the lines of the terminal",
    ),
    key(
        "save_steps save_strategy saves_per_epoch save_every save_interval checkpoint_steps save_freq",
        "train.checkpoint_every",
        "\"epoch\", \"never\" or { steps = 100 }",
    ),
    key(
        "eval_steps eval_strategy evaluation_strategy evals_per_epoch steps_per_eval eval_every val_interval do_eval",
        "train.validate_every",
        "\"epoch\", \"never\" or { steps = 100 }",
    ),
    key("save_total_limit", "train.keep", ""),
    key("load_best_model_at_end", "train.weights", "\"best\""),
    key(
        "early_stopping_patience early_stopping",
        "train.early_stop",
        "such as early_stop = { patience = 3 }",
    ),
    text(
        "output_dir out_dir adapter_path save_path run_name overwrite_output_dir logging_dir",
        "name the folder of the run with `simmer train RECIPE --out FOLDER`; a run is never overwritten",
    ),
    text(
        "report_to use_tensorboard wandb wandb_project wandb_entity use_wandb use_mlflow use_comet tensorboard",
        "leave it out: TensorBoard's event file is always written, and `simmer report` writes a page; this version has \
         no other services",
    ),
    text(
        "resume_from_checkpoint auto_resume_from_checkpoints resume",
        "resume a run with `simmer train RECIPE --resume`",
    ),
    text(
        "push_to_hub hub_model_id hub_strategy hub_token",
        "leave it out, and upload the adapter's folder with `hf upload`",
    ),
    key("data_seed random_state random_seed", "train.seed", ""),
    text(
        "neftune_noise_alpha noisy_embedding_alpha label_smoothing_factor label_smoothing ema",
        NOT_YET,
    ),
    text(
        "rl stage dpo dpo_beta beta_dpo rl_beta reward_model kto orpo grpo pref_beta",
        "leave it out: this version trains on answers, not on preferences",
    ),
    text(
        "do_train do_predict ddp_timeout remove_unused_columns plot_loss hub_private_repo",
        "leave it out: it has no use here",
    ),
    // tables
    text(
        "training trainer training_args training_arguments train_config",
        "write the table as [train]",
    ),
];

/// Keys of a data set in other programs, which mean something else elsewhere.
const SOURCE_KEYS: &[Elsewhere] = &[
    key(
        "type prompt_style prompt_template formatting",
        "data.train.N.template",
        "the format of the rows is detected by their keys",
    ),
    text(
        "split name subset data_files config_name",
        "name the files in the path: path = \"hf://datasets/ORG/NAME:FILE\", or a pattern of local files; files of a test \
         split are never trained on",
    ),
    text(
        "revision",
        "write it after the name on the hub: path = \"hf://datasets/ORG/NAME@REVISION\"",
    ),
];

/// Values of other programs for a key of a recipe: the key, the values, and what to do.
const VALUES: &[(&str, &str, &str)] = &[
    (
        "train.optimizer",
        "adam adamw_torch adamw_hf adamw_torch_fused adamw_bnb_8bit adamw_8bit paged_adamw_8bit paged_adamw_32bit \
         adafactor lion sgd muon galore_adamw schedule_free_adamw",
        "set \"adamw\", the only optimizer of this version; its moments are in f32",
    ),
    (
        "train.schedule",
        "constant_with_warmup",
        "set schedule = { constant = { warmup_steps = 100 } }",
    ),
    (
        "train.schedule",
        "cosine_with_min_lr cosine_with_restarts cosine_annealing",
        "set schedule = { cosine = { min_ratio = 0.1 } }; this version has no restarts",
    ),
    (
        "train.schedule",
        "polynomial inverse_sqrt reduce_lr_on_plateau one_cycle wsd warmup_stable_decay",
        "set \"constant\", \"linear\" or \"cosine\": this version has no other schedule",
    ),
    (
        "method",
        "qlora",
        "write [method.lora] with a base model in bf16 or f16, or a quantised .gguf file, which is widened when it is \
         read: this version has no QLoRA",
    ),
    (
        "method",
        "dora ia3 adalora prefix prefix_tuning prompt_tuning p_tuning freeze vera oft boft loha lokr",
        "write [method.lora] or [method.full]: this version has no other method",
    ),
    (
        "base.precision",
        "int8 int4 nf4 fp4 4bit 8bit",
        "set \"bf16\", \"f16\" or \"f32\": this version has no QLoRA",
    ),
    (
        "base.precision",
        "auto",
        "leave the key out: weights then stay in the dtype in which they are stored",
    ),
    (
        "base.compute",
        "f16 fp16 float16",
        "set \"bf16\" (libtorch devices only) or \"f32\"",
    ),
    (
        "train.validate_every",
        "steps",
        "say how many: validate_every = { steps = 100 }",
    ),
    (
        "train.checkpoint_every",
        "steps",
        "say how many: checkpoint_every = { steps = 100 }",
    ),
    ("train.validate_every", "no none", "set \"never\""),
    ("train.checkpoint_every", "no none", "set \"never\""),
    (
        "data.train_on",
        "inputs prompt all true",
        "set \"everything\"",
    ),
    (
        "data.train_on",
        "completions completion responses assistant",
        "set \"answers\"",
    ),
];

/// What a recipe has in place of an unknown key.
pub(super) struct Here {
    /// The key that may be meant, if it is one of the same table, or the table, in brackets.
    pub(super) near: Option<String>,
    /// An instruction.
    pub(super) hint: Option<String>,
}

/// What a recipe has in place of the unknown key `name` in the table with this path.
pub(super) fn key_here(name: &str, table: Option<&str>) -> Option<Here> {
    let plain = plain(name);
    let of_sources = SOURCE_KEYS
        .iter()
        .find(|entry| table == Some("data.train.N") && has(entry.names, &plain));
    if let Some(found) = of_sources.or_else(|| KEYS.iter().find(|entry| has(entry.names, &plain))) {
        return Some(found.seen_from(table));
    }
    let place = place_of(&plain)?;
    Some(key("", "", "").at(&place, table))
}

/// What a recipe has in place of the unknown value `name` of a key.
pub(super) fn value_here(key: &str, name: &str) -> Option<&'static str> {
    let plain = plain(name);
    let found = VALUES
        .iter()
        .find(|(of, names, _)| *of == key && has(names, &plain))?;
    Some(found.2)
}

/// What a recipe has in place of an unknown option of a command such as `--learning-rate`.
pub fn option_here(option: &str) -> Option<String> {
    let plain = plain(
        option
            .trim_start_matches('-')
            .split('=')
            .next()
            .unwrap_or_default(),
    );
    let set = |key: &str| {
        let key = key.replace(".N.", ".0.");
        format!("set keys of the recipe with --set, here --set {key}=VALUE")
    };
    match KEYS.iter().find(|entry| has(entry.names, &plain)) {
        Some(found) if found.here.is_empty() => Some(found.more.to_owned()),
        Some(found) if found.here.starts_with('[') => {
            Some(format!("write the table {} in the recipe", found.here))
        }
        Some(found) => Some(match found.more {
            "" => set(found.here),
            more => format!("{} ({more})", set(found.here)),
        }),
        None => place_of(&plain).map(|place| set(&place)),
    }
}

impl Elsewhere {
    fn seen_from(&self, table: Option<&str>) -> Here {
        let more = (!self.more.is_empty()).then(|| self.more.to_owned());
        if self.here.is_empty() {
            return Here {
                near: None,
                hint: more,
            };
        }
        if self.here.starts_with('[') {
            return Here {
                near: Some(self.here.to_owned()),
                hint: more,
            };
        }
        self.at(self.here, table)
    }

    /// The key at `place`, seen from a table.
    fn at(&self, place: &str, table: Option<&str>) -> Here {
        let (parent, last) = match place.rsplit_once('.') {
            Some((parent, last)) => (Some(parent), last),
            None => (None, place),
        };
        let more = match self.more {
            "" => String::new(),
            more => format!("; {more}"),
        };
        if parent == table {
            return Here {
                near: Some(format!("`{last}`")),
                hint: (!self.more.is_empty()).then(|| self.more.to_owned()),
            };
        }
        let hint = match parent {
            None => format!("put `{last}` at the top of the recipe, above the first [table]{more}"),
            Some("data.train.N") => format!(
                "write `{last}` in a source: train = [{{ path = \"rows.jsonl\", template = \"chat\" }}] in [data]"
            ),
            Some(parent) => format!("write it as `{last}` in [{parent}]{more}"),
        };
        Here {
            near: None,
            hint: Some(hint),
        }
    }
}

/// Whether a list of names, separated by spaces, has this one.
fn has(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|known| known == name)
}

/// A name in small letters, with `_` between its words.
fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_there_once_and_leads_to_a_key() {
        let mut seen = BTreeSet::new();
        for entry in KEYS {
            for name in entry.names.split_whitespace() {
                assert!(seen.insert(name), "duplicate {name}");
                assert_eq!(plain(name), name);
            }
            let last = entry.here.rsplit('.').next().unwrap_or_default();
            let is_table = entry.here.starts_with('[');
            if !(entry.here.is_empty() || is_table) {
                // [train] and data.train have one name
                let place = place_of(last).unwrap_or_default();
                assert!(
                    place == entry.here || entry.here == "data.train",
                    "{}: {place}",
                    entry.here
                );
            }
            assert!(
                !(entry.here.is_empty() && entry.more.is_empty()),
                "{}",
                entry.names
            );
        }
    }

    #[test]
    fn the_words_of_the_guide_are_known() {
        let page = include_str!("../../../../docs/words.md");
        let tables = page
            .split("## Model and adapter")
            .nth(1)
            .unwrap_or_default();
        let tables = tables.split("## After training").next().unwrap_or_default();
        let mut unknown = Vec::new();
        for line in tables.lines().filter(|line| line.starts_with("| `")) {
            let elsewhere = line.split(" | ").next().unwrap_or_default();
            for name in elsewhere.split('`').skip(1).step_by(2) {
                let is_key = name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
                if is_key && key_here(name, Some("base.init")).is_none() {
                    unknown.push(name);
                }
            }
        }
        // the name of a loader, and a value of `optim`
        assert_eq!(unknown, ["text", "adamw_8bit"]);
    }

    #[test]
    fn options_lead_to_keys() {
        let said = |option| option_here(option).unwrap_or_default();
        insta::assert_snapshot!(said("--learning-rate"));
        insta::assert_snapshot!(said("--epochs=3"));
        insta::assert_snapshot!(said("--lora_r"));
        insta::assert_snapshot!(said("--per-device-train-batch-size"));
        insta::assert_snapshot!(said("--bf16"));
        insta::assert_snapshot!(said("--output_dir"));
        insta::assert_snapshot!(said("--template"));
        assert_eq!(option_here("--resum"), None);
    }
}
