"""Generates tests/goldens/tokenizers: small SentencePiece and tiktoken files, trained on data/kitchen, and the tokens of
texts by Google's sentencepiece, by tiktoken and by transformers' Gemma tokenizer.

Needs sentencepiece 0.2.3, tiktoken 0.14.0 and transformers: python tests/reference/tokenizer_files.py
"""

import base64
import json
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken
from transformers import GemmaTokenizer
from transformers.convert_slow_tokenizer import generate_merges
from tiktoken._educational import bpe_train

from originals import LLAMA3_PATTERN, tiktoken_encoding
from texts import NASTY, random_texts

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/goldens/tokenizers"

# The training settings stored in LLaMA 1's tokenizer.model.
LLAMA = dict(
    model_type="bpe", vocab_size=600, character_coverage=0.99995, byte_fallback=True, split_digits=True,
    normalization_rule_name="identity", add_dummy_prefix=True, remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True, max_sentencepiece_length=16, num_threads=1, minloglevel=2,
)
SENTENCEPIECE = {
    "llama": {},
    "squeezed": dict(remove_extra_whitespaces=True, byte_fallback=False, vocab_size=300, pad_id=3),
    "bare": dict(add_dummy_prefix=False, user_defined_symbols=["<x>", "<xy>", "\n\n", "▁▁", "▁▁▁"], vocab_size=500),
    # Gemma's settings: no space in front, and tokens for runs of spaces, tabs and line breaks.
    "gemma": dict(
        add_dummy_prefix=False, vocab_size=600, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>",
        bos_piece="<bos>", user_defined_symbols=[
            "<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\n\n\n", "<table>", "</table>",
            *["▁" * length for length in range(2, 32)],
        ],
    ),
    "marked": dict(user_defined_symbols=["<x>", "<xy>", "sugar", "\n\n"], control_symbols=["<|end|>"], vocab_size=500),
}


def golden(texts, encode, decode):
    """JSON with one case per line."""
    cases = []
    for text in texts:
        ids = encode(text)
        cases.append(json.dumps({"text": text, "ids": ids, "decoded": decode(ids)}))
    return "[\n" + ",\n".join(cases) + "\n]\n"


def gemma():
    """The model `gemma` as transformers converts it to `tokenizer.json`, and the tokens that it then gives."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(OUT / "gemma.model"))
    vocab = {pieces.id_to_piece(id): id for id in range(pieces.get_piece_size())}
    # As in the files of Gemma 1 and 2: the token for a tab takes the place of the byte's.
    vocab["\t"] = vocab.pop("<0x09>")
    # As in Gemma 3's: merges of runs come first, the longest first.
    runs = {"▁" * length for length in range(2, 32)}
    merges = generate_merges(vocab, None)
    merges.sort(key=lambda pair: (-len(pair[0] + pair[1]), -len(pair[0])) if pair[0] + pair[1] in runs else (0, 0))
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges)
    options = SENTENCEPIECE["gemma"]["user_defined_symbols"]
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in options if text not in turns])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=True) for text in turns], special_tokens=True)
    folder = OUT / "gemma"
    tokenizer.save_pretrained(folder)
    return lambda text: tokenizer.encode(text, add_special_tokens=False), tokenizer.decode


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line)["text"] for line in open(ROOT / "data/kitchen/text.jsonl")]
    # Sequences of spaces and line breaks, which the texts of data/kitchen do not have.
    text = rows[:600] + ["def stir(pot):\n    for spoon in pot:\n        spoon.turn(180)\n" * 3] * 20
    (OUT / "gemma").mkdir(exist_ok=True)
    texts = NASTY + list(random_texts(40)) + rows[-3:]
    for name, options in SENTENCEPIECE.items():
        model = OUT / f"{name}.model"
        with open(model, "wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(text), model_writer=file, **{**LLAMA, **options}
            )
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        (OUT / f"{name}.json").write_text(golden(texts, processor.encode, processor.decode))

    (OUT / "gemma" / "tokens.json").write_text(golden(texts, *gemma()))

    ranks = bpe_train("\n".join(text[:120]), 500, LLAMA3_PATTERN, visualise=None)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    (OUT / "tiktoken.model").write_text("".join(lines))
    encoding = tiktoken_encoding(ranks)
    (OUT / "tiktoken.json").write_text(golden(texts, encoding.encode_ordinary, encoding.decode))


if __name__ == "__main__":
    main()
