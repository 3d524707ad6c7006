"""Text encoders of a few hundred weights, and a tokenizer that needs no file."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

__all__ = ["CLIP_DIM", "T5_DIM", "clip", "t5", "umt5", "words"]

CLIP_DIM, T5_DIM = 8, 16
_WORDS = ["<pad>", "<eos>", "<unk>", "<|vision_start|>", "a", "dog", "runs"]


def words(*, max_length: int = 8) -> PreTrainedTokenizerFast:
    """Knows three words; the rest is unknown."""
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(_WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=["<|vision_start|>"],
        model_max_length=max_length,
    )


def t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=8, d_model=T5_DIM, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def umt5() -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(vocab_size=8, d_model=T5_DIM, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def clip() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=8,
            hidden_size=CLIP_DIM,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=8,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
