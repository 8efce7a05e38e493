"""Rows to token ids with token-aligned masks, and token rows to batches.

A mask marks the tokens that belong to an answer; a batch names them as indices. Predicting a token from the
one before it is the loss's business alone: nothing here is shifted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import jinja2
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from innerloop.core.errors import InputError
from innerloop.llm.data.rows import Message, Row

Truncation = Literal["error", "left", "right"]


class NoTargetError(InputError):
    """Truncation left no token of the answer that something stands before, so that nothing can be learned."""


@dataclass(frozen=True)
class TokenizedRow:
    """One row as token ids.

    Args:
        input_ids: the whole chat, n ids.
        response_mask: n flags, true where the token itself belongs to an answer or ends one (EOS). The first
            is never true: nothing stands before it to predict it from.
    """

    input_ids: tuple[int, ...]
    response_mask: tuple[bool, ...]

    @property
    def target_count(self) -> int:
        """How many tokens there are to predict."""
        return sum(self.response_mask)


@dataclass(frozen=True)
class TokenBatch:
    """A batch, or a piece of one, of B rows of length L, with at most R targets a row; packed: B = 1.

    Args:
        input_ids: (B, L) int64.
        position_ids: (B, L) int64, from 0 in each row, also when packed; 0 in the padding.
        segment_ids: (B, L) int64; 0 = padding; packed rows count from 1, padded rows are all 1.
        shared: () int64, packed: with so many tokens all rows begin, and only the first row holds them.
        targets: (B, R) int64, indices into L of the tokens to predict; 0 where the weight is 0.
        target_weights: (B, R) float32, 1 for a target and 0 for filling.
        normalizer: () float32, the number of targets of the whole batch this is a piece of. The loss is the
            weighted sum divided by it, so that the losses of the pieces add up to the loss of the batch.
        hidden: (B, L, width) what enters the lowest adapted layer of the model the batch is for, where the
            layers below are frozen and have been run already; otherwise none.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    targets: Tensor
    target_weights: Tensor
    normalizer: Tensor
    shared: Tensor
    hidden: Tensor | None = None

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch on a device."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: t.to(device) for name, t in columns.items() if t is not None})

    @property
    def token_count(self) -> int:
        """The tokens of the rows, padding left out and a shared beginning counted for each."""
        own, others = (self.segment_ids > 0).sum(), self.segment_ids.max() - 1
        return int(own + (self.shared * others).sum())


def tokenize(
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    truncation: Truncation = "error",
    last_answer_only: bool = False,
    append_eos: bool = True,
) -> TokenizedRow:
    """Tokenises one row the way verl does: prompt and response apart, then joined, then EOS once.

    The turns go through the tokenizer's chat template, with its generation prompt before each answer. Of a
    chat of several turns every answer is learned, with the token that ends it. A tokenizer without a chat
    template gets plain text in the manner of lm-evaluation-harness: a space before each answer (none after
    white space), EOS after it, line breaks between other turns, and a BOS in front where the tokenizer itself
    puts one.

    Args:
        row: the example.
        tokenizer: it must have an EOS token.
        max_length: the most tokens to keep, at least 2.
        truncation: what happens to a longer row: ``left`` cuts its beginning, ``right`` its end, ``error``
            raises.
        last_answer_only: leaves earlier answers of the chat unlearned (the shots of an in-context prompt).
        append_eos: whether EOS ends the last answer, and in plain text the earlier ones, where an empty line
            takes its place otherwise.

    Raises:
        NoTargetError: if truncation leaves nothing to learn.
        InputError: if the row is too long under ``error``, or the tokenizer cannot render it.
    """
    if max_length < 2:
        raise InputError(f"data.max_length is {max_length}; at least 2 tokens are needed to predict one")
    ids, mask = _encode(row.messages, tokenizer, last_answer_only, append_eos)
    if len(ids) > max_length:
        if truncation == "error":
            raise InputError(
                f"a row has {len(ids)} tokens and data.max_length is {max_length}; raise it, or set "
                f"data.truncation to left or right (the row begins {row.prompt[:60]!r})"
            )
        kept = slice(-max_length, None) if truncation == "left" else slice(max_length)
        ids, mask = ids[kept], mask[kept]
    mask[0] = False
    if not any(mask):
        raise NoTargetError(
            f"truncated to {max_length} tokens ({truncation}), a row keeps no answer to learn; raise "
            f"data.max_length or cut the other end (the row begins {row.prompt[:60]!r})"
        )
    return TokenizedRow(tuple(ids), tuple(mask))


def token_count(row: Row, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the whole row has, EOS included."""
    ids, _ = _encode(row.messages, tokenizer, last_answer_only=False, append_eos=True)
    return len(ids)


def tokenize_prompt(row: Row, tokenizer: PreTrainedTokenizerBase, append_eos: bool = True) -> tuple[int, ...]:
    """The ids before the last answer, generation prompt included: where generation starts."""
    *context, _ = row.messages
    ids, _ = _turns(context, tokenizer, append_eos)
    return tuple(ids)


def decode_answer(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a generated answer, without the space that plain text has before it."""
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True))
    return text if tokenizer.chat_template else text.removeprefix(" ")


def collate(
    rows: Sequence[TokenizedRow],
    pad_id: int,
    packed: bool = False,
    micro_tokens: int | None = None,
    sharing: bool = False,
    hidden: Mapping[TokenizedRow, Tensor] | None = None,
) -> tuple[TokenBatch, ...]:
    """Makes one batch of the rows, in one piece or in several whose losses add up to the batch's.

    Args:
        rows: at least one.
        pad_id: fills the right side of shorter rows.
        packed: whether the rows are laid end to end in one sequence; otherwise padded to the longest.
        sharing: whether packed rows hold the tokens that all of them begin with (a system turn, the task's
            instruction) once; for models that attend to rows one by one.
        micro_tokens: the most tokens a piece may hold, padding included; None makes one piece. With it the
            rows are sorted by length, the longest first.
        hidden: each row's states at the lowest adapted layer, ``(n, width)``, if they are known.

    Raises:
        InputError: if a single row is longer than ``micro_tokens``.
    """
    if not rows:
        raise ValueError("a batch needs at least one row")
    normalizer = torch.tensor(float(sum(row.target_count for row in rows)))
    pieces = [list(rows)] if micro_tokens is None else _pieces(rows, packed, micro_tokens)
    made = []
    for piece in pieces:
        shared = shared_beginning(piece) if packed and sharing else 0
        batch = _packed(piece, normalizer, shared) if packed else _padded(piece, pad_id, normalizer)
        if hidden is not None:
            batch = replace(batch, hidden=_joined([hidden[row] for row in piece], packed, shared))
        made.append(batch)
    return tuple(made)


def shared_beginning(rows: Sequence[TokenizedRow]) -> int:
    """How many tokens all rows begin with, short of what the first target of each is predicted from."""
    most = min(row.response_mask.index(True) for row in rows) - 1
    first = rows[0].input_ids
    for place in range(most):
        if any(row.input_ids[place] != first[place] for row in rows):
            return place
    return max(most, 0) if len(rows) > 1 else 0


def _pieces(rows: Sequence[TokenizedRow], packed: bool, micro_tokens: int) -> list[list[TokenizedRow]]:
    """First fit, the longest rows first."""
    pieces: list[list[TokenizedRow]] = []
    for row in sorted(rows, key=lambda row: len(row.input_ids), reverse=True):
        if len(row.input_ids) > micro_tokens:
            raise InputError(
                f"a row of {len(row.input_ids)} tokens does not fit into micro-batches of {micro_tokens}; "
                "raise the token budget or lower data.max_length"
            )
        for piece in pieces:
            if _size([*piece, row], packed) <= micro_tokens:
                piece.append(row)
                break
        else:
            pieces.append([row])
    return pieces


def _size(rows: Sequence[TokenizedRow], packed: bool) -> int:
    lengths = [len(row.input_ids) for row in rows]
    return sum(lengths) if packed else len(lengths) * max(lengths)


def _padded(rows: Sequence[TokenizedRow], pad_id: int, normalizer: Tensor) -> TokenBatch:
    length = max(len(row.input_ids) for row in rows)
    width = max(row.target_count for row in rows)
    input_ids = torch.full((len(rows), length), pad_id)
    position_ids, segment_ids = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    targets = torch.zeros(len(rows), width, dtype=torch.long)
    target_weights = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        size = len(row.input_ids)
        input_ids[index, :size] = torch.tensor(row.input_ids)
        position_ids[index, :size] = torch.arange(size)
        segment_ids[index, :size] = 1
        targets[index, : row.target_count] = _target_indices(row)
        target_weights[index, : row.target_count] = 1
    shared = torch.tensor(0)
    return TokenBatch(input_ids, position_ids, segment_ids, targets, target_weights, normalizer, shared)


def _packed(rows: Sequence[TokenizedRow], normalizer: Tensor, shared: int) -> TokenBatch:
    """Every row but the first goes without its ``shared`` first tokens."""
    skipped = [0] + [shared] * (len(rows) - 1)
    sizes = [len(row.input_ids) - skip for row, skip in zip(rows, skipped, strict=True)]
    starts = [sum(sizes[:index]) - skip for index, skip in enumerate(skipped)]
    targets = torch.cat([start + _target_indices(row) for start, row in zip(starts, rows, strict=True)])
    own = [(row.input_ids[skip:], skip) for row, skip in zip(rows, skipped, strict=True)]
    return TokenBatch(
        input_ids=torch.tensor([[token for tokens, _ in own for token in tokens]]),
        position_ids=torch.cat([torch.arange(skip, skip + len(tokens)) for tokens, skip in own])[None],
        segment_ids=torch.repeat_interleave(torch.arange(1, len(rows) + 1), torch.tensor(sizes))[None],
        targets=targets[None],
        target_weights=torch.ones(1, len(targets)),
        normalizer=normalizer,
        shared=torch.tensor(shared),
    )


def _joined(states: Sequence[Tensor], packed: bool, shared: int) -> Tensor:
    if not packed:
        return pad_sequence(list(states), batch_first=True)
    return torch.cat([states[0], *(row[shared:] for row in states[1:])])[None]


def _target_indices(row: TokenizedRow) -> Tensor:
    return torch.tensor(row.response_mask).nonzero().flatten()


def _encode(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, last_answer_only: bool, append_eos: bool
) -> tuple[list[int], list[bool]]:
    """Token ids and mask of a chat that ends with an answer."""
    *context, last = messages
    ids, mask = _turns(context, tokenizer, append_eos)
    if last_answer_only:
        mask = [False] * len(ids)
    answer = _ids(_gap(context, tokenizer) + last.content, tokenizer)
    if append_eos and (not answer or answer[-1] != _eos(tokenizer)):
        answer.append(_eos(tokenizer))
    return ids + answer, mask + [True] * len(answer)


def _turns(
    context: Sequence[Message], tokenizer: PreTrainedTokenizerBase, append_eos: bool
) -> tuple[list[int], list[bool]]:
    """Token ids and mask of the turns before an answer, up to where that answer starts."""
    if tokenizer.chat_template:
        return _templated(context, tokenizer)
    return _plain(context, tokenizer, append_eos)


def _templated(
    context: Sequence[Message], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """Renders up to each answer in turn; what follows the last answer is its end and a question."""
    ids: list[int] = []
    mask: list[bool] = []
    shown, answer = "", ""
    stops = [index for index, message in enumerate(context) if message.role == "assistant"]
    for stop in (*stops, len(context)):
        rendered = _render(context[:stop], tokenizer)
        between = _beyond(rendered, shown, answer)
        if answer:
            end = str(tokenizer.eos_token)
            learned = _ids(answer, tokenizer)
            if between.startswith(end):
                learned.append(_eos(tokenizer))
                between = between.removeprefix(end)
                rest = _ids(between, tokenizer)
            else:
                first, *rest = _ids(between, tokenizer)  # the template ends turns with a token of its own
                learned.append(first)
            ids, mask = ids + learned, mask + [True] * len(learned)
        else:
            rest = _ids(between, tokenizer)
        ids, mask = ids + rest, mask + [False] * len(rest)
        shown, answer = rendered, context[stop].content if stop < len(context) else ""
    return ids, mask


def _beyond(rendered: str, shown: str, answer: str) -> str:
    """What a rendered chat holds after an earlier rendering and the answer that followed it."""
    for form in (answer, answer.strip()):  # some templates strip the turns
        if rendered.startswith(shown + form):
            return rendered[len(shown) + len(form) :]
    raise InputError(
        "the tokenizer's chat template rewrites earlier turns, so that a chat of several turns cannot be "
        f"masked; use single turns or another template (the answer begins {answer[:60]!r})"
    )


def _plain(
    context: Sequence[Message], tokenizer: PreTrainedTokenizerBase, append_eos: bool
) -> tuple[list[int], list[bool]]:
    own = tokenizer("").input_ids
    starts_with_bos = tokenizer.bos_token_id is not None and own[:1] == [tokenizer.bos_token_id]
    ids: list[int] = own[:1] if starts_with_bos else []
    mask = [False] * len(ids)
    for index, message in enumerate(context):
        before = context[:index]
        if message.role == "assistant":
            answer = _ids(_gap(before, tokenizer) + message.content, tokenizer)
            end = [_eos(tokenizer)] if append_eos else _ids("\n\n", tokenizer)
            ids, mask = ids + answer + end, mask + [True] * len(answer) + [append_eos] * len(end)
        else:
            line_break = "\n" if before and before[-1].role != "assistant" else ""
            turn = _ids(line_break + message.content, tokenizer)
            ids, mask = ids + turn, mask + [False] * len(turn)
    return ids, mask


def _gap(context: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands between a question and its answer: under a chat template nothing but its own marks."""
    asked = context[-1].content if context else ""
    return "" if tokenizer.chat_template or not asked or asked[-1].isspace() else " "


def _render(context: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    turns = [{"role": message.role, "content": message.content} for message in context]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except jinja2.TemplateError as error:
        roles = ", ".join(message.role for message in context)
        raise InputError(f"the tokenizer's chat template refuses the turns {roles}: {error}") from error


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _eos(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no EOS token; set one (tokenizer.eos_token) and save it again")
    return int(tokenizer.eos_token_id)
