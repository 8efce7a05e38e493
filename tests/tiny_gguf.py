"""A tiny Llama written as a GGUF file, in llama.cpp's layout and with its names."""

from pathlib import Path

import torch
from gguf import GGUFWriter
from transformers import LlamaForCausalLM

from tiny_llama import CHAT_TEMPLATE, tiny_llama, tiny_tokenizer

MERGES = ("Ċ Ċ", "Ġ Ġ")  # two line breaks, two spaces
_CONTROL, _NORMAL = 3, 1
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_vocabulary() -> list[str]:
    """The tiny tokenizer's tokens, and one for each merge."""
    vocabulary = tiny_tokenizer().get_vocab()
    return [*sorted(vocabulary, key=vocabulary.__getitem__), *(merge.replace(" ", "") for merge in MERGES)]


def gguf_llama() -> LlamaForCausalLM:
    """The model that the file holds."""
    config = tiny_llama().config
    config.vocab_size = len(gguf_vocabulary())
    return LlamaForCausalLM(config)


def write_gguf(path: Path, model: LlamaForCausalLM, pre_tokenizer: str) -> Path:
    """Writes the model and its tokenizer as one file of 32-bit floats."""
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(gguf_vocabulary())
    writer.add_token_types([_CONTROL] * 3 + [_NORMAL] * (config.vocab_size - 3))
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":  # tied
            writer.add_tensor(_gguf_name(name), _gguf_layout(name, tensor, model).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, module = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_NAMES[module]}.weight"


def _gguf_layout(name: str, tensor: torch.Tensor, model: LlamaForCausalLM) -> torch.Tensor:
    """llama.cpp keeps the two halves that rotate together side by side in queries and keys."""
    heads = {
        "q_proj.weight": model.config.num_attention_heads,
        "k_proj.weight": model.config.num_key_value_heads,
    }
    count = next((count for ending, count in heads.items() if name.endswith(ending)), None)
    if count is None:
        return tensor
    halves = tensor.reshape(count, 2, tensor.shape[0] // count // 2, tensor.shape[1])
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()
