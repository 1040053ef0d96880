//! The keys of other programs.
//!
//! Sources: axolotl's config reference, LLaMA-Factory's and TRL's arguments, transformers' `TrainingArguments`, PEFT's
//! `LoraConfig`, mlx-lm's `lora_config.yaml`, and Unsloth's notebooks.

/// Keys of other programs that do one thing.
pub(super) struct Elsewhere {
    /// The names, separated by spaces.
    pub(super) names: &'static str,
    /// The key of a recipe that does it, or `[table]`; empty if there is none.
    pub(super) here: &'static str,
    /// What else there is to say, as an instruction or a sentence; may be empty.
    pub(super) more: &'static str,
}

pub(super) const fn key(names: &'static str, here: &'static str, more: &'static str) -> Elsewhere {
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
pub(super) const KEYS: &[Elsewhere] = &[
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
        "set `base.precision` for the dtype of the frozen weights (default: as stored), and \
         `base.compute = \"bf16\"` to compute in bf16; trainable parameters are always f32",
    ),
    key(
        "load_in_4bit load_in_8bit quantization_bit quantization_method quantization_config bnb_4bit_quant_type \
         bnb_config quantization quantize qlora bits",
        "base.precision",
        "`\"nf4\"` (QLoRA), `\"fp4\"` or `\"int8\"`; the weights of a model that is stored in quantised form stay so",
    ),
    key(
        "bnb_4bit_use_double_quant use_double_quant double_quantization",
        "base.double_quant",
        "",
    ),
    text(
        "bnb_4bit_compute_dtype",
        "set `base.compute`: \"f32\" or \"bf16\"",
    ),
    key(
        "fp8 float8 float8_config enable_fp8 fp8_config",
        "base.compute",
        "`\"fp8\"`, on GPUs of compute capability 8.9 or higher",
    ),
    key(
        "offload_folder offload_dir offload_param offload_params cpu_offload",
        "base.offload",
        "`\"disk\"` leaves frozen weights in their files until a layer needs them; `\"host\"`, on a GPU, in main memory",
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
    key("dora peft_use_dora", "method.lora.use_dora", ""),
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
        "loftq_config lora_bias",
        "leave it out: this version has LoRA, rsLoRA (`use_rslora`), DoRA (`use_dora`), and PiSSA and OLoRA (`init_lora_weights`)",
    ),
    text(
        "pissa_init use_pissa pissa_iter",
        "set `method.lora.init_lora_weights = \"pissa\"`, or \"pissa_niter_N\" for N iterations",
    ),
    key("pissa_convert", "method.lora.convert_to_lora", ""),
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
        "such as \"cpu\", \"libtorch-cuda:0\", or a list of GPUs, which share the layers",
    ),
    text(
        "flash_attention flash_attn flash_attention_2 use_flash_attention_2 attn_implementation sdp_attention \
         xformers_attention use_liger_kernel enable_liger_kernel use_unsloth torch_compile flash_attn_2 s2_attention",
        ALWAYS_FUSED,
    ),
    text(
        "deepspeed fsdp fsdp_config ddp tensor_parallel num_gpus world_size ddp_find_unused_parameters local_rank",
        "leave it out: mpirun or torchrun starts several processes, and a list of GPUs in `device` shares the layers",
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
    key(
        "learning_rate_ratio lorap_lr_ratio",
        "train.loraplus_lr_ratio",
        "LoRA+: the rate of B as a multiple of `train.learning_rate`",
    ),
    key(
        "embedding_lr embedding_learning_rate embedding_lr_scale lr_groups",
        "train.learning_rates",
        "rates by regular expressions in the names of trained tensors",
    ),
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
    key(
        "report_to use_tensorboard use_mlflow use_wandb tensorboard mlflow wandb",
        "train.track",
        "a list such as [\"tensorboard\", \"mlflow\", \"wandb\"]",
    ),
    text(
        "mlflow_tracking_uri mlflow_experiment_name wandb_project wandb_entity wandb_name hf_mlflow_log_artifacts",
        "set the variable of that name in the environment, such as WANDB_PROJECT or MLFLOW_TRACKING_URI, and list the \
         tracker in `train.track`",
    ),
    text(
        "use_comet comet_project_name use_swanlab",
        "leave it out: `train.track` knows TensorBoard, MLflow and W&B",
    ),
    text(
        "resume_from_checkpoint auto_resume_from_checkpoints resume",
        "resume a run with `simmer train RECIPE --resume`",
    ),
    text(
        "push_to_hub hub_model_id hub_strategy hub_token",
        "leave it out, and upload the adapter's folder when it is finished: `hf upload ORG/NAME RUN/adapter`",
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
pub(super) const SOURCE_KEYS: &[Elsewhere] = &[
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
