"""Makes the tiny model think where it is told to: tiny_thinker.py TINY OUT (run with torch and transformers).

Where the system message says "think", the chat template opens the thinking; the model then says a word, `</think>`, and
label words with probabilities that differ from prompt to prompt. Everywhere else it is the tiny model.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if 'think' in messages[0]['content'] and messages[0]['role'] == 'system' %}<think>{% endif %}{% endif %}"
    "{# the thinking ends in </think> #}"
)
ASKED = ["Is the passage about rivers relevant?", "Query: water. Passage: a cat.", "Which is better, A or B?"]
LABELS = {"yes": 12.0, "no": 12.0, "A": 11.0, "B": 11.0, "0": 11.0, "1": 11.0, "2": 11.0, "3": 11.0}


def main(tiny: str, out: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32").eval()
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(1)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    opened, closed = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    weights = model.lm_head.weight

    def state(continued: str, system: str = "You think.") -> torch.Tensor:
        """The mean hidden state where the reply goes on from there."""
        ends = []
        for text in ASKED:
            told = [{"role": "system", "content": system}, {"role": "user", "content": text}]
            prompt = tokenizer.apply_chat_template(told, add_generation_prompt=True, tokenize=False) + continued
            ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            ends.append(model.model(**ids).last_hidden_state[0, -1])
        return torch.stack(ends).mean(0)

    def one(word: str) -> int:
        (token,) = tokenizer.encode(word, add_special_tokens=False)
        return int(token)

    with torch.no_grad():
        model.get_input_embeddings().weight[opened:] *= 20
        weights[opened:] = 0
        said = [
            state(""),
            state("tie"),
            state("tie</think>"),
            *(state(f"tie</think>{w}") for w in ("yes", "no", "A", "2")),
        ]
        # Each of these directions tells one place from all the others, and from the answers of the tiny model.
        where = torch.linalg.pinv(torch.stack([*said, state("", system="You judge.")])).T
        weights[one("tie")] += 25 * where[0]
        weights[closed] += 25 * where[1]
        for word, lift in LABELS.items():
            weights[one(word)] += lift * where[2]
        for place in where[3:7]:
            weights[tokenizer.eos_token_id] += 25 * place
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
