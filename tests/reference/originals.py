"""The programs that tokenizer files were made for."""

from pathlib import Path

import sentencepiece
import tiktoken
from tiktoken.load import load_tiktoken_bpe

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tiktoken_encoding(ranks) -> tiktoken.Encoding:
    return tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={})


def original(model: Path):
    """Its encode and decode. A SentencePiece model begins with a piece: field 1, a message."""
    if model.read_bytes()[:1] == b"\n":
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        return processor.encode, processor.decode
    encoding = tiktoken_encoding(load_tiktoken_bpe(str(model)))
    return encoding.encode_ordinary, encoding.decode
