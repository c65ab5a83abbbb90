"""A text encoder as a part of a model: from the numbers of word pieces to states."""

# N utterances, S nodes of text of all of them, P pieces of a node, K pieces of all, T pieces of the longest, H features
from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from gmsa.errors import ConfigError, cut, short
from gmsa.nn.dropout import Dropout
from gmsa.text.folder import CONFIG, EncoderFolder, read_weights
from gmsa.text.packages import load_package
from gmsa.text.pieces import Pieces

MOST_HEADER = 1 << 24
"""Bytes of the header of a safetensors file, at most."""


class TextEncoder(nn.Module):
    r"""Hugging Face's encoder of the family that a folder's ``config.json`` names, with random weights.

    Every utterance is read by itself, between the special pieces of the tokenizer, which are no nodes. A node's state
    is the mean of the last hidden states of its pieces.

    Args:
        folder (EncoderFolder): The encoder.
        pieces (Pieces): Its word pieces.
        lora_rank (int, default 0): Rank of additions to all linear maps, :math:`W + 2 B A`, which alone are trained
            (Hu et al.: LoRA, ICLR 2022, with :math:`\alpha = 2 r`); 0 trains the weights themselves.
        checkpointing (bool, default False): Computes the layers again in the backward pass, which saves memory.
        frozen_layers (int, default 0): Layers that are not trained, from below; the first is the embeddings.

    Raises:
        ConfigError: transformers cannot make the encoder, its family cannot compute its layers again, or no layer would
            be trained.

    Shapes:
        - numbers of pieces :math:`(S, P)`, lengths :math:`(N)`; output :math:`(S, H)`
    """

    def __init__(
        self,
        folder: EncoderFolder,
        pieces: Pieces,
        lora_rank: int = 0,
        checkpointing: bool = False,
        frozen_layers: int = 0,
    ) -> None:
        super().__init__()
        self.width, self.lora_rank = folder.width, lora_rank
        self.before, self.after = list(pieces.before), list(pieces.after)
        self.padding = folder.padding
        model = make_network(folder)
        if lora_rank:
            peft = load_package("peft", "text.tuning: lora")
            wanted = peft.LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear")
            model.requires_grad_(False)
            model = peft.inject_adapter_in_model(wanted, model)
        self.network: Any = model
        layers = self.layers()
        if frozen_layers > (most := len(layers) - 1):
            raise ConfigError(
                f"'text.frozen_layers: {frozen_layers}' leaves nothing to train: '{short(folder.path)}' has {most + 1} "
                f"with its embeddings; set it to {most} at most, or 'text.tuning' to frozen"
            )
        for layer in layers[:frozen_layers]:
            for parameter in layer:
                parameter.requires_grad_(False)
        if checkpointing:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # newer versions call it otherwise
                    self.network.gradient_checkpointing_enable({"use_reentrant": False})
            except ValueError:
                raise ConfigError(
                    f"'text.checkpointing': the family {folder.settings['model_type']} cannot compute its layers "
                    "again; set it to false, or choose another encoder"
                ) from None

    def forward(self, numbers: Tensor, lengths: Tensor) -> Tensor:
        if not len(numbers):
            return numbers.new_zeros(0, self.width)
        there = numbers >= 0
        node = torch.arange(len(numbers), device=numbers.device)[:, None].expand_as(there)[there]  # [K]
        utterance = torch.repeat_interleave(lengths, output_size=len(numbers))[node]
        counts = torch.zeros_like(lengths).index_add(0, utterance, torch.ones_like(utterance))
        row = (counts > 0).cumsum(0)[utterance] - 1
        first = (counts.cumsum(0) - counts)[utterance]
        column = torch.arange(len(node), device=node.device) - first + len(self.before)
        rows, columns = int((counts > 0).sum()), int(counts.max()) + len(self.before) + len(self.after)
        ids = torch.full((rows, columns), self.padding, dtype=torch.long, device=numbers.device)
        for place, number in enumerate(self.before):
            ids[:, place] = number
        ends = counts[counts > 0] + len(self.before)
        every = torch.arange(rows, device=numbers.device)
        for place, number in enumerate(self.after):
            ids[every, ends + place] = number
        ids[row, column] = numbers[there].long()
        mask = torch.arange(columns, device=numbers.device) < (ends + len(self.after))[:, None]
        states = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state[row, column]  # [K, H]
        if numbers.shape[1] == 1:
            return states
        total = states.new_zeros(len(numbers), states.shape[1]).index_add(0, node, states)
        return total / there.sum(1).clamp(min=1)[:, None].to(total.dtype)

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters that are trained: those of the embeddings, with what all layers read, such as relative places;
        then layer by layer. What follows the last layer counts as a part of it."""
        stack = _stack(self.network)
        where = {id(p): depth for depth, layer in enumerate(stack, 1) for p in layer.parameters()}
        found: list[list[nn.Parameter]] = [[] for _ in range(len(stack) + 1)]
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                below = "embed" in name or "relative" in name
                depth = where.get(id(parameter), 0 if below else len(stack))
                found[depth].append(parameter)
        return found


def make_network(folder: EncoderFolder) -> Any:
    """The network of a folder's ``config.json``, with random weights and gmsa's faster dropout.

    Raises:
        ConfigError: transformers knows no such family, or its settings are wrong.
    """
    transformers = load_package("transformers", folder.key)
    try:
        wanted = transformers.AutoConfig.for_model(**folder.settings)
        network = transformers.AutoModel.from_config(wanted, trust_remote_code=False, dtype=torch.float32)
        if wanted.hidden_size != folder.width:
            raise ValueError(f"states of {wanted.hidden_size} and of {folder.width} features")
    except Exception as error:  # of many types, by what is wrong
        raise ConfigError(
            f"'{folder.key}': transformers cannot make the encoder of '{short(folder.path)}' ({cut(error)}); name "
            "another"
        ) from None
    if getattr(network, "pooler", None) is not None:  # reads one state, and is not used here
        network.pooler = None
    for module in network.modules():
        for name, part in module.named_children():
            if isinstance(part, nn.Dropout):
                setattr(module, name, Dropout(part.p))
    return network


@lru_cache(maxsize=1)
def pretrained_weights(folder: EncoderFolder) -> dict[str, Tensor]:
    """The weights of a folder by the names of :func:`make_network`.

    Raises:
        ConfigError: they are damaged, or not those of its ``config.json``.
    """
    where = f"'{folder.key}': the weights of '{short(folder.path)}'"
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        form = make_network(folder)
    size = sum(p.numel() for p in form.parameters())
    given: dict[str, Tensor] = {}
    for path in folder.weights:
        # Up to twice as many: with those of the head that was trained on masked words.
        content = read_weights(path, 16 * size + MOST_HEADER)
        try:
            given |= load_tensors(content)
        except Exception as error:  # of many types, by what is damaged
            raise ConfigError(f"{where} are damaged ({path.name}: {cut(error)}); fetch them again") from None
    lacking = [f"{size:,} numbers"]
    if sum(x.numel() for x in given.values()) >= size:  # else memory is given to weights that are not there
        with torch.random.fork_rng(devices=[]):
            try:
                found, about = type(form).from_pretrained(
                    None,
                    config=form.config,
                    state_dict=given,
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
            except Exception as error:  # of many types, by what is wrong
                raise ConfigError(f"{where} cannot be read ({cut(error)}); fetch them again") from None
        other = [name for name, *_ in about["mismatched_keys"]]
        lacking = sorted(x for x in {*about["missing_keys"], *other} if not x.startswith("pooler."))
    if lacking:
        raise ConfigError(
            f"{where} are not those of its {CONFIG} (they lack {lacking[0]!r}"
            f"{f' and {len(lacking) - 1} others' if lacking[1:] else ''}); name the folder that they belong to"
        )
    return {name: x for name, x in found.state_dict().items() if not name.startswith("pooler.")}


def _stack(network: Any) -> list[nn.Module]:
    """The layers of an encoder, from the first to the last: its longest list of modules of one class."""
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList) and len({type(x) for x in m}) == 1]
    found: list[nn.Module] = list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=[]))
    return found
