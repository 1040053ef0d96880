"""Rows of tokens, and a model's results on them: logits, loss, log-probabilities, greedy continuations."""

import torch
import torch.nn.functional as F
from transformers import GenerationConfig, PreTrainedModel

IGNORE = -100


def random_rows(lengths: list[int], vocab: int, seed: int) -> list[dict]:
    """Rows with Hugging Face labels: `labels[i]` is `input_ids[i]`, or -100 if that token is masked.

    About the first third of a row is its prompt. The second row also has a masked token in its answer, as with a second
    turn. The third row has labels from its first token on, which no position predicts.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index, length in enumerate(lengths):
        ids = torch.randint(3, vocab, (length,), generator=generator).tolist()
        prompt = 0 if index == 2 else max(1, length // 3)
        labels = [IGNORE] * prompt + ids[prompt:]
        if index == 1 and length > 4:
            labels[length // 2] = IGNORE
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def logits(model, ids: list[int]) -> torch.Tensor:
    """[tokens, vocab], with this row as the whole batch."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def trained_tokens(rows: list[dict]) -> int:
    """Number of labels. The first label of a row does not count, because no position predicts it."""
    return sum(label != IGNORE for row in rows for label in row["labels"][1:])


def backward(model, rows: list[dict]) -> float:
    """Mean cross-entropy over the labels of all rows together; adds its gradients to those of the parameters."""
    count, total = trained_tokens(rows), 0.0
    for row in rows:
        if trained_tokens([row]):
            targets = torch.tensor(row["labels"][1:])
            predicted = logits(model, row["input_ids"])[:-1]
            part = F.cross_entropy(predicted, targets, ignore_index=IGNORE, reduction="sum") / count
            part.backward()
            total += part.item()
    return total


@torch.no_grad()
def log_probs(model, ids: list[int]) -> list[float]:
    """Log-probability of every token after the first."""
    predicted = F.log_softmax(logits(model, ids)[:-1].double(), dim=-1)
    return predicted.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


@torch.no_grad()
def greedy(model: PreTrainedModel, prompt: list[int], new_tokens: int, eos: int | list[int] | None) -> list[int]:
    """The ids that transformers' greedy generation adds. If it stops at an `eos` token, that is the last one."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=new_tokens, eos_token_id=eos, bos_token_id=None, pad_token_id=0
    )
    model.generation_config = config
    ids = torch.tensor([prompt])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return out[0, len(prompt) :].tolist()


@torch.no_grad()
def margin(model, prompt: list[int], answer: list[int]) -> float:
    """The smallest margin of a chosen token's logit over the second: a rounding error below it cannot change the answer."""
    if "longrope" in str(model.config.rope_parameters):  # the frequencies depend on the length of the text so far
        steps = torch.stack([logits(model, prompt + answer[:end])[-1] for end in range(len(answer))])
    else:
        steps = logits(model, prompt + answer)[len(prompt) - 1 : -1]
    best = steps.topk(2)
    assert best.indices[:, 0].tolist() == answer or best.values.diff().abs().min() < 1e-4, "the cache changes the answer"
    return (best.values[:, 0] - best.values[:, 1]).min().item()
