#!/usr/bin/env bash
# Trains on the tiny models with simmer and loads the adapters into PEFT: without warnings, missing keys or unexpected keys,
# and with the same log-probabilities. In the other direction, simmer scores texts with the adapters that PEFT saved. Finally
# the package tensorboard reads the event files of these runs, one of which was resumed.
#
#   tests/reference/check_peft.sh SIMMER
#
# Installs requirements.txt into its own virtual environment, target/ci/reference, or uses $REFERENCE_VENV.
set -euo pipefail
cd "$(dirname "$0")/../.."
simmer=$(realpath "${1:?usage: check_peft.sh SIMMER}")
count=0
venv=${REFERENCE_VENV:-target/ci/reference}
goldens=tests/goldens
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[[ -n ${REFERENCE_VENV:-} ]] || python3 tests/reference/environment.py "$venv"

cat >"$work/data.json" <<'JSON'
[
    {"instruction": "Name a color.", "input": "", "output": "Red."},
    {"instruction": "Add the numbers.", "input": "2 and 3", "output": "5"},
    {"instruction": "Say hello.", "input": "", "output": "Hello there!"},
    {"instruction": "What falls from the sky?", "input": "", "output": "the rain"}
]
JSON
cat >"$work/texts.jsonl" <<'JSONL'
{"text": "the rain in the mountains"}
{"text": "Q: 2 + 2?\nA: {4}"}
{"text": "<|im_start|>the rain<|im_end|>"}
JSONL

compare() { # MODEL ADAPTER TITLE: scores with one adapter; PEFT's are compared with all of them at the end
    local scores="$work/scores-$((++count)).jsonl"
    # as PEFT gets the base model: a QLoRA recipe's is quantised otherwise
    "$simmer" score --base "$goldens/$1" --adapter "$2" --precision f32 --json "$work/texts.jsonl" >"$scores"
    printf '%s\t%s\t%s\t%s\n' "$goldens/$1" "$2" "$scores" "$3" >>"$work/list"
}

train() { # MODEL LINE...: trains with these lines in [method.$method], of lora by default, and $base in [base], and compares
    local model=$1 run="$work/run-$((count + 1))"
    shift
    {
        printf '[base]\npath = "%s"\n%s\n\n[method.%s]\n' "$goldens/$model" "${base-}" "${method-lora}"
        printf '%s\n' "$@"
        printf '\n[data]\ntrain = [{ path = "%s", template = "alpaca" }]\n' "$work/data.json"
        printf '\n[train]\nepochs = 5\nbatch_size = 2\nlearning_rate = 1e-2\n'
    } >"$work/recipe.toml"
    "$simmer" train "$work/recipe.toml" --out "$run" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    compare "$model" "$run/adapter" "simmer -> PEFT: $model, ${base+$base, }${method+$method, }$*"
}

for adapter in "$goldens"/*/adapters/*; do
    [[ $(basename "$adapter") == llama-adapter ]] && continue # with a gate for each head, which PEFT does not have
    compare "$(basename "$(dirname "$(dirname "$adapter")")")" "$adapter" "PEFT -> simmer: ${adapter#"$goldens"/}"
done
qkvo='targets = ["q_proj", "k_proj", "v_proj", "o_proj"]'
train tied-gqa 'rank = 4' 'alpha = 8' "$qkvo"
train untied-mha 'rank = 2' 'alpha = 8' 'use_rslora = true' 'targets = "all-linear"' 'bias = "all"'
train llama3-rope 'rank = 2' 'alpha = 2' 'targets = ["q_proj", "v_proj"]' 'modules_to_save = ["lm_head"]'
method=ia3 train tied-gqa 'targets = ["k_proj", "v_proj", "down_proj"]'
method=ia3 train untied-mha 'targets = "all-linear"'
method=adaption_prompt train llama3-rope 'adapter_len = 3' 'adapter_layers = 2'
train tied-gqa 'rank = 4' 'alpha = 6' "$qkvo" 'init_lora_weights = "pissa"'
train tied-gqa 'rank = 4' 'alpha = 6' "$qkvo" 'init_lora_weights = "pissa"' 'convert_to_lora = false'
train untied-mha 'rank = 3' 'alpha = 2' 'targets = "all-linear"' 'init_lora_weights = "olora"' 'use_rslora = true'
train untied-mha 'rank = 2' 'init_lora_weights = "pissa_niter_4"'
base='add_special_tokens = ["<|im_start|>", "<|im_end|>"]'
train tied-gqa 'rank = 2'
train untied-mha 'rank = 2'
train untied-mha 'rank = 2' 'modules_to_save = ["embed_tokens", "lm_head"]'
train untied-mha 'rank = 2' 'targets = ["q_proj", "lm_head"]'
train untied-mha 'rank = 2' 'targets = ["q_proj", "embed_tokens"]'
unset base
for model in mistral qwen2 qwen3 smollm3 phi3 gemma gemma2 gemma3_text olmo2 granite; do
    train "$model" 'rank = 2' 'targets = "all-linear"'
done

# Every shipped recipe with LoRA: two steps on a tiny model, with rows in the recipe's format.
for recipe in recipes/*.toml; do
    grep -q '^\[method.lora\]' "$recipe" || continue
    case $(grep -m 1 '^path' "$recipe") in
        *Llama-3*) model=llama3-rope ;;
        *TinyLlama* | *SmolLM2*) model=tied-gqa ;;
        *) model=untied-mha ;;
    esac
    sets=(--set "base.path=$goldens/$model" --set train.batch_size=3 --set train.max_steps=2 --set data.max_tokens=256)
    number=0
    templates=$(awk '/^train = /, /]$/ { if (sub(/.*template = "/, "")) { sub(/".*/, ""); print } }' "$recipe")
    for template in $templates; do
        case $template in
            vicuna-v1.1) rows=sharegpt ;;
            baize) rows=baize ;;
            gpt4all) rows=prompt_response ;;
            *) rows=alpaca ;;
        esac
        sets+=(--set "data.train.$number.path=$goldens/rows/$rows.jsonl")
        number=$((number + 1))
    done
    if grep -q '^validation' "$recipe"; then sets+=(--set data.validation.rows=2); fi
    run="$work/run-$(basename "$recipe" .toml)"
    # the recipe's sample prompts are longer than the context of the tiny models
    sed '/^\[samples\]/,$d' "$recipe" >"$work/recipe.toml"
    "$simmer" train "$work/recipe.toml" --out "$run" "${sets[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    compare "$model" "$run/adapter" "simmer -> PEFT: $recipe"
done

# one process for all of them: loading PyTorch takes longer than any comparison
"$venv/bin/python" tests/reference/check_adapter.py --all "$work/list"

"$simmer" train "$work/recipe.toml" --out "$run" "${sets[@]}" --resume >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$venv/bin/python" tests/reference/check_tensorboard.py "$work"/run-*
