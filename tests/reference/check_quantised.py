"""Compares `simmer convert --quantize` with transformers and bitsandbytes, and with llama.cpp.

    target/reference/bin/python check_quantised.py SIMMER                 # nf4, fp4 and int8
    target/reference/bin/python check_quantised.py SIMMER LIBLLAMA.so     # the types and mixes of GGUF too

nf4, fp4: transformers loads simmer's folder, and computes the same logits as after quantising the original itself.
int8: the same, with the same codes; there transformers quantises activations too, so that a plain model of the widened weights
(which is what simmer computes) differs a little: the difference is printed.
GGUF: each tensor has the type that llama.cpp's `llama_model_quantize` chooses, and the same bytes.

Needs `bitsandbytes` and `gguf` beside the packages of requirements.txt. llama.cpp runs on one thread of the processor.
"""

import ctypes
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, Phi3Config, Qwen2Config

ROOT = Path(__file__).resolve().parent.parent.parent
BASE = ROOT / "data/tiny-base"
TEXT = "The kettle is on the stove. What is the opposite of hot?"


def simmer(program: str, *arguments) -> str:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"simmer {arguments}: {done.stderr}")
    return done.stdout


def logits(folder: Path, ids: list[int], **more) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", device_map="cpu", **more).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def log_probs(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
    return torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def check_bitsandbytes(program: str, folder: Path) -> None:
    # in f32, so that simmer's f32 computes the same
    plain = folder / "plain"
    simmer(program, "convert", BASE, plain, "--dtype", "f32")
    four_bit = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}
    for name, arguments, config in [
        ("nf4", [], four_bit | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
        ("nf4-plain", ["--double-quant", "false"], four_bit | {"bnb_4bit_quant_type": "nf4"}),
        ("fp4", [], four_bit | {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True}),
        ("int8", [], {"load_in_8bit": True}),
    ]:
        out = folder / name
        simmer(program, "convert", plain, out, "--quantize", name.removesuffix("-plain"), *arguments)
        scored = json.loads(simmer(program, "score", "--base", out, "--text", TEXT, "--json"))
        ids = scored["ids"]
        ours = logits(out, ids)
        theirs = logits(plain, ids, quantization_config=BitsAndBytesConfig(**config), dtype=torch.float32)
        difference = (ours - theirs).abs().max().item()
        found = torch.tensor(scored["logprobs"])
        found = (found - log_probs(ours, ids)).abs().max().item()
        print(f"{name}: logits differ by {difference}; simmer score by {found:.2e}")
        assert difference == 0.0
        assert found < (1e-4 if name != "int8" else 0.2)


class QuantizeParameters(ctypes.Structure):
    """`llama_model_quantize_params` of llama.h."""

    _fields_ = [
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int),
        ("output_tensor_type", ctypes.c_int),
        ("token_embedding_type", ctypes.c_int),
        *[
            (name, ctypes.c_bool)
            for name in ("allow_requantize", "quantize_output_tensor", "only_copy", "pure", "keep_split", "dry_run")
        ],
        *[(name, ctypes.c_void_p) for name in ("imatrix", "kv_overrides", "tt_overrides", "prune_layers")],
        ("max_buf_size", ctypes.c_size_t),
    ]


# llama.cpp's file types; a single type is its `--pure`
PURE = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q4_k": 14, "q5_k": 16, "q6_k": 18}
MIXES = {"q4_k_s": 14, "q4_k_m": 15, "q5_k_m": 17}
SHAPE = {"vocab_size": 1536, "hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": 256}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def random_models(folder: Path):
    """Names and folders of random models: untied with many layers, tied, fused, and 70B's number of layers."""
    torch.manual_seed(0)
    for name, config in [
        ("untied", LlamaConfig(**SHAPE, **HEADS, num_hidden_layers=18, tie_word_embeddings=False)),
        ("tied", Qwen2Config(**SHAPE, **HEADS, num_hidden_layers=9, tie_word_embeddings=True)),
        ("fused", Phi3Config(**SHAPE, **HEADS, num_hidden_layers=8, pad_token_id=0)),
        ("odd", LlamaConfig(**SHAPE | {"hidden_size": 96, "intermediate_size": 80}, **HEADS, num_hidden_layers=8)),
        ("like-70b", LlamaConfig(**SHAPE | {"intermediate_size": 256}, **HEADS, num_hidden_layers=80)),
    ]:
        path = folder / name
        config.dtype = "float32"
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
        for file in BASE.iterdir():
            if file.name.startswith("tokenizer"):
                shutil.copy(file, path)
        yield name, path


def check_gguf(program: str, library: str, folder: Path) -> None:
    llama = ctypes.CDLL(library)
    llama.llama_model_quantize_default_params.restype = QuantizeParameters
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(QuantizeParameters)]
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama.llama_log_set(quiet, None)
    for name, model in random_models(folder):
        whole = folder / f"{name}.gguf"
        simmer(program, "convert", model, whole, "--dtype", "f32")
        for kind, file_type in (PURE | MIXES).items():
            if name != "untied" and kind in ("q4_0", "q4_1", "q5_0", "q5_1"):
                continue
            ours, theirs = folder / f"{name}.{kind}.gguf", folder / f"{name}.{kind}.llama.gguf"
            simmer(program, "convert", model, ours, "--quantize", kind)
            parameters = llama.llama_model_quantize_default_params()
            parameters.nthread = 1
            parameters.ftype = file_type
            parameters.pure = kind in PURE
            if llama.llama_model_quantize(str(whole).encode(), str(theirs).encode(), ctypes.byref(parameters)) != 0:
                print(f"{name} {kind}: llama.cpp refuses the model")
                continue
            compare(f"{name} {kind}", ours, theirs)
            ours.unlink()
            theirs.unlink()


def compare(name: str, ours: Path, theirs: Path) -> None:
    ours, theirs = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    found = {tensor.name: tensor for tensor in ours.tensors}
    expected = {tensor.name: tensor for tensor in theirs.tensors}
    assert found.keys() == expected.keys(), name
    kinds, other_bytes = {}, 0
    for key, tensor in expected.items():
        assert found[key].tensor_type == tensor.tensor_type, (name, key, found[key].tensor_type, tensor.tensor_type)
        kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
        other_bytes += int((found[key].data.reshape(-1).view("uint8") != tensor.data.reshape(-1).view("uint8")).sum())
    numbers = [reader.fields["general.file_type"].parts[-1][0] for reader in (ours, theirs)]
    print(f"{name}: types {kinds}, file type {numbers[0]}; {other_bytes} other bytes")
    assert numbers[0] == numbers[1] and other_bytes == 0, (name, numbers, other_bytes)


def main() -> None:
    torch.set_num_threads(1)
    program, libraries = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        check_bitsandbytes(program, Path(folder))
        for library in libraries:
            check_gguf(program, library, Path(folder))


if __name__ == "__main__":
    main()
