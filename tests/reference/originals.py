"""The original libraries for tokenizer files: sentencepiece and tiktoken."""

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
    """Encode and decode functions for a tokenizer file.

    A SentencePiece model starts with its first piece: the tag of field 1, a message, is the byte 0x0A.
    """
    if model.read_bytes()[:1] == b"\n":
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        return processor.encode, processor.decode
    encoding = tiktoken_encoding(load_tiktoken_bpe(str(model)))
    return encoding.encode_ordinary, encoding.decode
