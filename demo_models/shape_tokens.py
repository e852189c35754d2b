"""Tokenizers of the grammar in the classes that the pipelines expect: each word of a caption is one token."""

from transformers import CLIPTokenizer, T5TokenizerFast

END_OF_WORD = "</w>"
CHARACTERS = [chr(code) for code in range(33, 127)]


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for the 256 bytes in byte-level BPE (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(code) for code in shown] + [chr(256 + i) for i in range(len(hidden))]


def merged(symbols: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Applies byte-pair merges to one word's symbols, earliest merge first."""
    for left, right in merges:
        i = 0
        while i < len(symbols) - 1:
            if (symbols[i], symbols[i + 1]) == (left, right):
                symbols = [*symbols[:i], left + right, *symbols[i + 2 :]]
            i += 1
    return symbols


def clip_tokenizer(words: tuple[str, ...]) -> CLIPTokenizer:
    """Byte-level BPE whose merges make each of `words` one token; other text falls apart into letters."""
    merges: list[tuple[str, str]] = []
    for word in words:
        symbols = merged([*word[:-1], word[-1] + END_OF_WORD], merges)
        while len(symbols) > 1:
            merges.append((symbols[0], symbols[1]))
            symbols = merged(symbols, merges[-1:])
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(c + END_OF_WORD for c in alphabet), *(left + right for left, right in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def t5_tokenizer(words: tuple[str, ...]) -> T5TokenizerFast:
    """Unigram pieces: the words, each with its leading space, and single characters far less likely."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -8.0)]
    pieces += [("\u2581" + word, -2.0) for word in words]
    pieces += [(character, -10.0) for character in CHARACTERS]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)
