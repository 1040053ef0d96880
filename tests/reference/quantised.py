"""Tiny models with quantised weights, as bitsandbytes and the writers of fp8 checkpoints store them: `quantised`.

Each folder is a model as transformers saves it (or, for fp8, as published models have it), without a tokenizer. Beside it,
`expected.safetensors` has the widened weights, by the library that quantised them, and `expected.json` the log-probabilities
of one row: `widened` from a plain model with the widened weights in f32, and `quantised` from the quantised model itself,
if transformers runs it on a processor. int8 also quantises activations there, so `quantised` is only near.

Needs `bitsandbytes` beside the packages of requirements.txt. Versions: `versions.json` in the folder.
"""

import json
import shutil
import sys
from pathlib import Path

import bitsandbytes
import bitsandbytes.functional as F
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"
OUT = GOLDENS / "quantised"
ROW = [1, 20, 31, 7, 44, 9, 60, 12, 71, 33, 50, 18]
PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format", "_scale", "_scale_inv")
KEPT = {"config.json", "model.safetensors"}

FOUR_BIT = {
    "nf4": ("tied-gqa", torch.float32, {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "nf4-bf16": ("untied-mha", torch.bfloat16, {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "fp4": ("qwen2", torch.float16, {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}),
}


def log_probs(model) -> list[float]:
    ids = torch.tensor([ROW])
    with torch.no_grad():
        logits = model(ids).logits[0, :-1].float()
    picked = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])
    return picked[:, 0].tolist()


def widened_model(folder: Path, weights: dict) -> torch.nn.Module:
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._attn_implementation = "eager"
    config.dtype = torch.float32
    model = AutoModelForCausalLM.from_config(config).float().eval()
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    assert not unexpected and all(config.tie_word_embeddings and "lm_head" in name for name in missing), (missing, unexpected)
    if config.tie_word_embeddings:
        model.tie_weights()
    return model


def finish(folder: Path, quantised: dict, plain: dict, model=None) -> None:
    """Writes the widened weights of the quantised matrices, and the log-probabilities."""
    for file in folder.iterdir():
        if file.name not in KEPT:
            file.unlink()
    save_file({k: v.contiguous() for k, v in quantised.items()}, folder / "expected.safetensors")
    result = {"ids": ROW, "widened": log_probs(widened_model(folder, plain | quantised))}
    if model is not None:
        result["quantised"] = log_probs(model)
        difference = max(abs(a - b) for a, b in zip(result["widened"], result["quantised"]))
        print(folder.name, "largest difference of the quantised model", difference)
    (folder / "expected.json").write_text(json.dumps(result) + "\n")


def plain_of(folder: Path) -> dict:
    """The tensors that are not quantised."""
    tensors = load_file(folder / "model.safetensors")
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.dtype in (torch.float32, torch.bfloat16, torch.float16) and not name.endswith(PARTS)
    }


def with_bitsandbytes(name: str, source: str, dtype: torch.dtype, config: BitsAndBytesConfig) -> None:
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(
        GOLDENS / source, quantization_config=config, dtype=dtype, attn_implementation="eager", device_map="cpu"
    ).eval()
    model.save_pretrained(folder)
    again = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", device_map="cpu").eval()
    quantised = {}
    for module_name, module in again.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            state = module.weight.quant_state
            quantised[f"{module_name}.weight"] = F.dequantize_4bit(module.weight.data, state)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            scale = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
            quantised[f"{module_name}.weight"] = F.int8_vectorwise_dequant(module.weight.data, scale)
    finish(folder, quantised, plain_of(folder), again)


# e4m3 without infinities: the largest value
LARGEST = 448.0


def fp8(name: str, source: str, config: dict, scale_name: str, skip: tuple, scales) -> None:
    """A checkpoint in fp8: `scales` gives the scale of each element, and the scales as they are stored."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors = load_file(GOLDENS / source / "model.safetensors")
    written, quantised, plain = {}, {}, {}
    for key, weight in tensors.items():
        if weight.dim() != 2 or any(part in key for part in skip):
            written[key] = plain[key] = weight.to(torch.bfloat16)
            continue
        weight = weight.float()
        of_element, stored = scales(weight)
        codes = (weight / of_element).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
        written[key] = codes
        written[key.removesuffix("weight") + scale_name] = stored
        quantised[key] = codes.float() * of_element
    save_file(written, folder / "model.safetensors", {"format": "pt"})
    own = json.loads((GOLDENS / source / "config.json").read_text())
    own["dtype"] = "bfloat16"
    own["quantization_config"] = config
    (folder / "config.json").write_text(json.dumps(own, indent=2) + "\n")
    finish(folder, quantised, plain)


def by_block(size: int):
    def scales(weight):
        rows, columns = weight.shape
        stored = torch.zeros(-(-rows // size), -(-columns // size))
        for row in range(stored.shape[0]):
            for column in range(stored.shape[1]):
                block = weight[row * size : (row + 1) * size, column * size : (column + 1) * size]
                stored[row, column] = block.abs().max() / LARGEST
        of_element = stored.repeat_interleave(size, 0)[:rows].repeat_interleave(size, 1)[:, :columns]
        return of_element, stored

    return scales


def by_row(weight):
    # in bf16, as compressed-tensors stores the scales of bf16 models
    stored = (weight.abs().amax(1, keepdim=True) / LARGEST).to(torch.bfloat16)
    return stored.float().expand_as(weight), stored


def by_row_f32(weight):
    stored = weight.abs().amax(1, keepdim=True) / LARGEST
    return stored.expand_as(weight), stored


def by_tensor(weight):
    stored = (weight.abs().max() / LARGEST).reshape(())
    return stored.expand_as(weight), stored


HEAD = ("lm_head", "embed_tokens", "norm")


def compressed(strategy: str) -> dict:
    """As llm-compressor writes it: FP8_DYNAMIC and FP8."""
    weights = {"dynamic": False, "num_bits": 8, "strategy": strategy, "symmetric": True, "type": "float", "group_size": None}
    inputs = {"dynamic": True, "num_bits": 8, "strategy": "token", "symmetric": True, "type": "float"}
    return {
        "config_groups": {"group_0": {"input_activations": inputs, "weights": weights, "targets": ["Linear"]}},
        "format": "float-quantized",
        "ignore": ["lm_head"],
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    for name, (source, dtype, settings) in FOUR_BIT.items():
        if not wanted or name in wanted:
            config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **settings)
            with_bitsandbytes(name, source, dtype, config)
    if not wanted or "int8" in wanted:
        with_bitsandbytes("int8", "mistral", torch.bfloat16, BitsAndBytesConfig(load_in_8bit=True))
    if not wanted or "fp8" in wanted:
        blocks = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}
        fp8("fp8-blocks", "qwen3", blocks, "weight_scale_inv", HEAD, by_block(16))
        fp8("fp8-tensor", "tied-gqa", compressed("tensor"), "weight_scale", HEAD, by_tensor)
        fp8("fp8-channel", "smollm3", compressed("channel"), "weight_scale", HEAD, by_row)
        fbgemm = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}
        fp8("fp8-fbgemm", "llama3-rope", fbgemm, "weight_scale", HEAD, by_row_f32)
    versions = {"bitsandbytes": bitsandbytes.__version__, "torch": torch.__version__}
    (OUT / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
