//! The values of other programs.

/// Values of other programs for a key of a recipe: the key, the values, and what to do.
pub(super) const VALUES: &[(&str, &str, &str)] = &[
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
        "write [method.lora], and precision = \"nf4\" in [base]",
    ),
    ("method", "dora", "write [method.lora] with use_dora = true"),
    ("method", "IA3 IA³ (ia)3", "write the table [method.ia3]"),
    (
        "method",
        "pissa olora",
        "write [method.lora] with init_lora_weights = \"pissa\" or \"olora\"",
    ),
    (
        "method",
        "llama_adapter llama-adapter ADAPTION_PROMPT adaption",
        "write the table [method.adaption_prompt]",
    ),
    (
        "method",
        "adalora prefix prefix_tuning prompt_tuning p_tuning freeze vera oft boft loha lokr",
        "write [method.lora], [method.ia3], [method.adaption_prompt] or [method.full]: this version has no other method",
    ),
    ("base.precision", "int4 4bit q4", "set \"nf4\" (QLoRA)"),
    ("base.precision", "8bit q8", "set \"int8\""),
    (
        "base.precision",
        "gptq awq hqq aqlm q4_0 q4_k q4_k_m q5_k q5_k_m q6_k q8_0 fp8",
        "set \"nf4\" or \"int8\", or name a .gguf file or a folder of such a model in `base.path`: its weights stay as they \
         are stored",
    ),
    (
        "base.precision",
        "auto",
        "leave the key out: weights then stay in the dtype in which they are stored",
    ),
    (
        "base.compute",
        "f16 fp16 float16",
        "set \"bf16\" or \"f32\"",
    ),
    ("base.compute", "float8 e4m3 e4m3fn f8", "set \"fp8\""),
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
        "train.track",
        "comet_ml comet clearml neptune swanlab trackio aim dvclive azure_ml all",
        "list \"tensorboard\", \"mlflow\" or \"wandb\": this version has no other trackers",
    ),
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
