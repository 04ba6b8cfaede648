"""The language model's weights as a decoding step reads them: fused, and the model's own memory where types agree."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Layer:
    """One decoder layer. qkv: (heads + 2 x kv heads) x head dim rows. gate_up: the MLP's first two as one."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Weights:
    """Views of a library model's text weights, or copies of them in `dtype`, brought up to date by `refresh`.

    Matrices that a step multiplies by at once (queries, keys, values; gate, up) lie one behind the other: where `dtype`
    is the weights' own, the model's parameters become views of that memory, so that nothing is held twice and an
    optimiser's step is seen at once. Other weights, adapters above all, are copied; those that FSDP has cut into shards
    are gathered, which all processes must do together.
    """

    def __init__(self, core: nn.Module, dtype: torch.dtype):
        self._core, text = core, core.model.language_model
        config = core.config.text_config
        self.dtype, self.device = dtype, core.device
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, self.epsilon = config.hidden_size // config.num_attention_heads, config.rms_norm_eps
        self.frequencies: Tensor = text.rotary_emb.inv_freq.float()
        self._copied: list[tuple[Tensor, list[nn.Module], str]] = []
        self._viewed: list[tuple[Tensor, list[nn.Module], str]] = []
        embed = text.embed_tokens
        self.embed = self._fused([embed]) if _sharded(embed.weight) else embed.weight
        self.head = self._fused([core.lm_head])
        self.norm = self._fused([text.norm])
        self.layers = [self._layer(layer) for layer in text.layers]
        self.refresh()

    def are_of(self, core: nn.Module, dtype: torch.dtype) -> bool:
        """Whether they are this model's, in this type, where it lies now."""
        return self._core is core and self.dtype == dtype and self.device == core.device

    def _layer(self, layer: nn.Module) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
        return Layer(
            norm=self._fused([layer.input_layernorm]),
            qkv=self._fused(qkv),
            qkv_bias=self._fused(qkv, "bias"),
            out=self._fused([attention.o_proj]),
            mlp_norm=self._fused([layer.post_attention_layernorm]),
            gate_up=self._fused([mlp.gate_proj, mlp.up_proj]),
            down=self._fused([mlp.down_proj]),
        )

    def _fused(self, modules: list[nn.Module], name: str = "weight") -> Tensor:
        own = [_own(module, name) for module in modules]
        viewed = all(weight.dtype == self.dtype and not _sharded(weight) for weight in own)
        viewed = viewed and not any(map(_adapted, modules))
        if viewed and len(own) == 1:
            fused = own[0].data
        else:
            shape = (sum(len(weight) for weight in own), *own[0].shape[1:])
            fused = torch.empty(shape, dtype=self.dtype, device=self.device)
        (self._viewed if viewed else self._copied).append((fused, modules, name))
        return fused

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the model's weights as they are now. A view costs nothing unless the model has got other memory."""
        into, values = [], []
        for fused, modules, name in self._copied:
            into += fused.split([len(_own(module, name)) for module in modules])
            values += [_now(module, name) for module in modules]
        if into:
            torch._foreach_copy_(into, values)
        for fused, modules, name in self._viewed:
            place = 0
            for weight in (_own(module, name) for module in modules):
                view = fused[place : place + len(weight)]
                place += len(weight)
                if weight.data_ptr() != view.data_ptr():
                    view.copy_(weight)
                    weight.data = view


def _own(module: nn.Module, name: str) -> Tensor:
    """The parameter itself, inside an adapter too."""
    return getattr(getattr(module, "base_layer", module), name)


def _adapted(module: nn.Module) -> bool:
    return hasattr(module, "base_layer")


def _sharded(weight: Tensor) -> bool:
    return isinstance(weight, DTensor)


def _now(module: nn.Module, name: str) -> Tensor:
    """What the module multiplies by: with an adapter, the sum of both."""
    weight = _own(module, name)
    if _sharded(weight):
        weight = weight.full_tensor()
    if name == "weight" and _adapted(module) and not module.merged and not module.disable_adapters:
        for adapter in module.active_adapters:
            weight = weight + module.get_delta_weight(adapter)
    return weight
