"""Makes the model that engines are tested with: tiny_model.py OUT (run with torch and transformers).

A Llama of 2 layers with random weights, which knows nothing. Three things it does as real models do: label words are
single tokens; an answer begins with one of them, with probabilities that differ from prompt to prompt; and where the
system message says "think", the chat template opens a thinking, in which it says a word, `</think>` and a label.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if 'think' in messages[0]['content'] and messages[0]['role'] == 'system' %}<think>{% endif %}{% endif %}"
    "{# the thinking ends in </think> #}"
)
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = [
    "yes",
    "no",
    "Yes",
    "No",
    "true",
    "false",
    "True",
    "False",
    "tie",
    *string.ascii_uppercase[:20],
    *string.digits,
]
ASKED = [
    "Is the passage about rivers relevant?",
    "Query: water. Passage: a cat.",
    "Which is better, A or B?",
    "Search query: what flows through the valley\n\nPassage: A river flows.\n\nReply with one word, yes or no.",
    "Search query: cats\n\nPassage: bridge stone mill town water 7.\n\nIs it relevant? Reply with yes or no.",
    "Order the passages.\n\n[1] A river\n\n[2] A cat\n\nBest first, like [2] > [1].",
]
LIKELY = ("yes", "no", "A", "B", "0", "1", "2", "3")
LIFTS = {word: 9.0 if word in LIKELY else 6.5 for word in WORDS} | {f" {word}": 3.0 for word in WORDS}
THOUGHT_LIFTS = {word: 12.0 if word in ("yes", "no") else 11.0 for word in LIKELY}
CONTEXT = 2048


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level vocabulary of the words of the prompts, in which the labels are single tokens."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False)
    prompts = Path(__file__).parent.parent.parent / "prompts"
    texts = [path.read_text(encoding="utf-8") for path in sorted(prompts.rglob("*.j2"))]
    trained.train_from_iterator(texts + [f"{word}\n {word}\n" for word in WORDS] * 1000, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=trained, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=CONTEXT
    )
    made.add_tokens(["<think>", "</think>"])
    made.chat_template = CHAT_TEMPLATE
    return made


class Making:
    """The model while it is made."""

    def __init__(self) -> None:
        self.tokenizer = tokenizer()
        torch.manual_seed(0)
        size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT}
        size |= {"num_attention_heads": 2, "num_key_value_heads": 2}  # a head size that vLLM takes on a CPU
        marks = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
        config = LlamaConfig(
            vocab_size=len(self.tokenizer), tie_word_embeddings=False, initializer_range=0.06, **size, **marks
        )
        self.model = LlamaForCausalLM(config).float().eval()
        self.weights = self.model.lm_head.weight

    def one(self, word: str) -> int:
        (token,) = self.tokenizer.encode(word, add_special_tokens=False)
        return int(token)

    def states(self, system: str, said: str = "") -> list[torch.Tensor]:
        """The hidden states where replies go on that have said so much."""
        ends = []
        for text in ASKED:
            told = [{"role": "system", "content": system}, {"role": "user", "content": text}]
            prompt = self.tokenizer.apply_chat_template(told, add_generation_prompt=True, tokenize=False) + said
            ids = self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            ends.append(self.model.model(**ids).last_hidden_state[0, -1])
        return ends

    def lift(self, words: Mapping[str, float], direction: torch.Tensor) -> None:
        for word, lift in words.items():
            self.weights[self.one(word)] += lift * direction

    def teach_thinking(self) -> None:
        opened, closed = (self.one(mark) for mark in ("<think>", "</think>"))
        self.model.get_input_embeddings().weight[[opened, closed]] *= 20
        self.weights[[opened, closed]] = 0
        thoughts = ["", "tie", "tie</think>", *(f"tie</think>{word}" for word in ("yes", "no", "A", "2"))]
        places = apart([*(mean(self.states("You think.", said)) for said in thoughts), *self.states("You judge.")])
        self.lift({"tie": 25.0}, places[0])
        self.lift({"</think>": 25.0}, places[1])
        self.lift(THOUGHT_LIFTS, places[2])
        for place in places[3 : len(thoughts)]:
            self.lift({"<|im_end|>": 15.0}, place)


def mean(states: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(states)).mean(0)


def apart(states: Sequence[torch.Tensor]) -> Any:
    """For each state the direction that tells it from all the others."""
    return torch.linalg.pinv(torch.stack(list(states))).T


def main(out: str) -> None:
    with torch.no_grad():
        making = Making()
        begins = mean(making.states("You judge."))
        making.lift(LIFTS | {"<|im_end|>": -6.0}, begins / begins.dot(begins))
        making.teach_thinking()
    making.model.save_pretrained(out)
    making.tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
