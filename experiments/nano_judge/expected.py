"""Writes the log-probabilities by which nano's numpy forward pass is tested, as transformers gives them:
`python experiments/nano_judge/expected.py`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmrank import templates
from llmrank.llm.backends import nano

OUTPUT = Path(__file__).parents[2] / "tests" / "llm" / "nano_expected.json"
ASKED = (
    ("pointwise/yes-no", "why does bread go stale", ["Starch crystallises when bread cools, and the crumb hardens."]),
    ("pointwise/yes-no", "naïve Bayes, 朴素贝叶斯?", ["NAÏVE methods\n\n* assume independence (朴素).\t“Why?” 🙂"]),
    ("pointwise/yes-no", "file", ["file " * 700]),
    ("pointwise/graded", "open a file", ["Open the file and return a stream. Raises OSError upon failure."]),
    ("pairwise/prefer", "sort a list", ["Return a new sorted list.", "Close the socket."]),
)


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(nano.folder())
    model = AutoModelForCausalLM.from_pretrained(nano.folder(), dtype=torch.float32).eval()
    prompts = [list(templates.load(name).render(query, texts).messages) for name, query, texts in ASKED]
    prompts.append([("user", "Is bread baked?")])
    prompts.append([("user", "Is bread baked?"), ("assistant", "yes"), ("user", "And wine?")])
    cases = []
    for messages in prompts:
        told = [{"role": role, "content": content} for role, content in messages]
        text = tokenizer.apply_chat_template(told, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            likeliest = model(ids).logits[0, -1].log_softmax(-1).topk(20)
        words = [tokenizer.decode([i]) for i in likeliest.indices.tolist()]
        top = [[word, round(value, 5)] for word, value in zip(words, likeliest.values.tolist(), strict=True)]
        cases.append({"messages": messages, "prompt_tokens": ids.shape[1], "top": top})
    found = {"model": nano.NanoBackend().identity.model, "prompts": cases}
    OUTPUT.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
