"""Prompts encoded as ComfyUI and A1111 do it, with a pipeline's own text encoders: weights, and prompts of any length.

embeds = encode_prompts(pipe, "a (red:1.3) ring", "blurry", program="comfyui")
image = pipe(**embeds, program="comfyui", ...)

ComfyUI moves each token's embedding away from that of an empty prompt, by its weight. A1111 multiplies it, and then all
embeddings, so that their mean is what it was. Both cut a prompt into chunks of 75 tokens, and put their embeddings side
by side; T5 takes a prompt whole.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from k_diffusing.reproduce.emphasis import BREAK, Words, read_a1111, read_comfyui

CHUNK = 75  # tokens, between the first and the last one that CLIP needs
KEPT_WHOLE = 8  # ComfyUI cuts parts of a prompt with so many tokens or more, where a chunk ends
BACKTRACK = 20  # tokens: A1111 ends a chunk at the last comma, if that is no further back
T5_LENGTH = 256  # ComfyUI pads to this

Token = tuple[int, float]  # and its weight


class Encoded(NamedTuple):
    """A prompt's embeddings, [1, tokens, channels], and the pooled one, [1, channels]."""

    embeds: torch.Tensor
    pooled: torch.Tensor


@torch.no_grad()
def encode_prompts(
    pipe, prompt: str, negative_prompt: str | None = "", *, program: str, prompt_2: str | None = None,
    negative_prompt_2: str | None = None, zero_negative: bool = False, clip_layer: int = 2,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """The embeddings of a prompt and a negative prompt, by the pipeline's keywords for them.

    Args:
        pipe: An SDXL or FLUX pipeline.
        prompt: With weights, as the program reads them.
        negative_prompt: The same; None for no negative prompt.
        program: "comfyui", "a1111" or "forge". FLUX's prompts are encoded as ComfyUI does it.
        prompt_2: For the second text encoder; the same prompt if left out.
        negative_prompt_2: The same of the negative prompt.
        zero_negative: Whether zeros stand in for the negative prompt's embeddings.
        clip_layer: The layer of SDXL's text encoders, counted from the end, whose output is taken.
    """

    def encoded(text: str, text_2: str | None) -> Encoded:
        second = text if text_2 is None else text_2
        if hasattr(pipe, "transformer"):
            return _flux(pipe, text, second)
        return _sdxl(pipe, text, second, program, clip_layer)

    told = encoded(prompt, prompt_2)
    found = {"prompt_embeds": told.embeds, "pooled_prompt_embeds": told.pooled}
    if negative_prompt is None and not zero_negative:
        return found
    kept_from = encoded(negative_prompt or "", negative_prompt_2)
    if zero_negative:
        kept_from = Encoded(*(torch.zeros_like(one) for one in kept_from))
    if not hasattr(pipe, "transformer"):
        found["prompt_embeds"], kept_from = _of_one_length(told.embeds, kept_from)
    return found | {"negative_prompt_embeds": kept_from.embeds, "negative_pooled_prompt_embeds": kept_from.pooled}


def _of_one_length(embeds: torch.Tensor, other: Encoded) -> tuple[torch.Tensor, Encoded]:
    """Both repeated to the same number of tokens, which changes nothing for attention."""
    length = math.lcm(embeds.shape[1], other.embeds.shape[1])
    repeated = [one.repeat(1, length // one.shape[1], 1) for one in (embeds, other.embeds)]
    return repeated[0], Encoded(repeated[1], other.pooled)


def _sdxl(pipe, text: str, text_2: str, program: str, layer: int) -> Encoded:
    pairs = ((pipe.tokenizer, pipe.text_encoder, text), (pipe.tokenizer_2, pipe.text_encoder_2, text_2))
    found = []
    for tokenizer, encoder, words in pairs:

        def run(ids: torch.Tensor, encoder=encoder) -> Encoded:
            out = encoder(ids.to(encoder.device), output_hidden_states=True)
            return Encoded(out.hidden_states[-layer], out[0])

        found.append(WEIGHTED[program](tokenizer, run, words))
    tokens = min(one.embeds.shape[1] for one in found)
    return Encoded(torch.cat([one.embeds[:, :tokens] for one in found], dim=-1), found[1].pooled)


def _flux(pipe, text: str, text_2: str) -> Encoded:
    """The pooled embedding of CLIP's first chunk, and T5's embeddings."""
    [first, *_] = _comfyui_chunks(pipe.tokenizer, text)
    pooled = pipe.text_encoder(_ids([first]).to(pipe.text_encoder.device)).pooler_output
    tokens = [*_tokens(pipe.tokenizer_2, read_comfyui(text_2).words), (pipe.tokenizer_2.eos_token_id, 1.0)]
    padding = max(T5_LENGTH - len(tokens), 0)
    tokens += [(pipe.tokenizer_2.pad_token_id, 1.0)] * padding
    empty = [pipe.tokenizer_2.eos_token_id] + [pipe.tokenizer_2.pad_token_id] * (len(tokens) - 1)

    def run(ids: torch.Tensor) -> Encoded:
        return Encoded(pipe.text_encoder_2(ids.to(pipe.text_encoder_2.device))[0], pooled)

    return Encoded(_from_empty(run, [tokens], empty).embeds, pooled)


def _tokens(tokenizer, words: list[Words]) -> list[Token]:
    """Each part's tokens, with its weight."""
    return [(token, one.weight) for one in words for token in _part(tokenizer, one.text)]


def _part(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids


def _ids(chunks: list[list[Token]]) -> torch.Tensor:
    return torch.tensor([[token for token, _ in chunk] for chunk in chunks])


def _weights(chunks: list[list[Token]], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[[weight] for _, weight in chunk] for chunk in chunks]).to(like)


def _whole(tokenizer, tokens: list[Token], pad: int) -> list[Token]:
    """A chunk with its first and last token, as long as the others."""
    ends = (tokenizer.bos_token_id, 1.0), (tokenizer.eos_token_id, 1.0)
    return [ends[0], *tokens, ends[1], *[(pad, 1.0)] * (CHUNK - len(tokens))]


def _side_by_side(run: Callable[[torch.Tensor], Encoded], chunks: list[list[Token]]) -> Encoded:
    """The chunks' embeddings [chunks, tokens, channels], and the pooled one of the first."""
    out = run(_ids(chunks))
    return Encoded(out.embeds, out.pooled[:1])


# ComfyUI's way.


def _comfyui(tokenizer, run: Callable[[torch.Tensor], Encoded], text: str) -> Encoded:
    empty = [tokenizer.bos_token_id, tokenizer.eos_token_id] + [tokenizer.pad_token_id] * CHUNK
    return _from_empty(run, _comfyui_chunks(tokenizer, text), empty)


def _from_empty(run: Callable[[torch.Tensor], Encoded], chunks: list[list[Token]], empty: list[int]) -> Encoded:
    """Each token's embedding, `weight` times as far from that of an empty prompt at its place."""
    out = _side_by_side(run, chunks)
    weights = _weights(chunks, out.embeds)
    if not (weights == 1).all():
        none = run(torch.tensor([empty])).embeds
        out = out._replace(embeds=torch.where(weights == 1, out.embeds, (out.embeds - none) * weights + none))
    return out._replace(embeds=out.embeds.flatten(0, 1)[None])


def _comfyui_chunks(tokenizer, text: str) -> list[list[Token]]:
    """Chunks of a prompt; a part with few tokens is not cut where a chunk ends."""
    chunks: list[list[Token]] = [[]]
    for one in read_comfyui(text).words:
        tokens = [(token, one.weight) for token in _part(tokenizer, one.text)]
        if len(tokens) < KEPT_WHOLE and len(chunks[-1]) + len(tokens) > CHUNK:
            chunks.append([])
        while len(chunks[-1]) + len(tokens) > CHUNK:
            room = CHUNK - len(chunks[-1])
            chunks[-1] += tokens[:room]
            tokens = tokens[room:]
            chunks.append([])
        chunks[-1] += tokens
    return [_whole(tokenizer, chunk, tokenizer.pad_token_id) for chunk in chunks]


# A1111's way.


def _a1111(tokenizer, run: Callable[[torch.Tensor], Encoded], text: str) -> Encoded:
    """Each token's embedding times its weight, and each chunk's embeddings by a factor that restores their mean."""
    chunks = [_whole(tokenizer, chunk, tokenizer.pad_token_id) for chunk in _a1111_chunks(tokenizer, text)]
    out = _side_by_side(run, chunks)
    weighted = out.embeds * _weights(chunks, out.embeds)
    means = [one.mean(dim=(1, 2), keepdim=True) for one in (out.embeds, weighted)]
    return Encoded((weighted * (means[0] / means[1])).flatten(0, 1)[None], out.pooled)


def _a1111_chunks(tokenizer, text: str) -> list[list[Token]]:
    """Chunks of a prompt: they end at BREAK, at a comma if there is one near their end, or where they are full."""
    chunks: list[list[Token]] = [[]]
    comma, last = _part(tokenizer, ",")[-1:], None  # where the last comma of the chunk stands
    for one in read_a1111(text).words:
        if one == BREAK:
            chunks, last = [*chunks, []], None
            continue
        for token in _part(tokenizer, one.text):
            full = len(chunks[-1]) == CHUNK
            if [token] == comma:
                last = len(chunks[-1])
            elif full and last is not None and CHUNK - last <= BACKTRACK:
                rest = chunks[-1][last + 1 :]
                chunks[-1], last = chunks[-1][: last + 1], None
                chunks.append(rest)
            if len(chunks[-1]) == CHUNK:
                chunks, last = [*chunks, []], None
            chunks[-1].append((token, one.weight))
    return chunks if chunks[-1] or len(chunks) == 1 else chunks[:-1]


WEIGHTED = {"comfyui": _comfyui, "a1111": _a1111, "forge": _a1111}
