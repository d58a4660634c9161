"""What changes while training: weights, optimiser, counters. One call of `train_step` is one optimiser step."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib_sdtrain.data.draws import Draw, Draws
from lib_sdtrain.data.latents import Latents
from lib_sdtrain.errors import JobFailed, UserError
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.model.keys import UNET
from lib_sdtrain.settings.run_method import EMBEDDING, FULL, LossSettings
from lib_sdtrain.settings.run_outputs import USE
from lib_sdtrain.train import loss_scale
from lib_sdtrain.train.attention import choose_attention
from lib_sdtrain.train.backward_steps import NOT_IN_PIECES, PIECES_REMEDY, BackwardSteps
from lib_sdtrain.train.batches import Batch, make_batch
from lib_sdtrain.train.causes import likely_cause
from lib_sdtrain.train.clipping import clip
from lib_sdtrain.train.conditioning import Conditioning
from lib_sdtrain.train.convolutions import choose_convolutions
from lib_sdtrain.train.criterion import Criterion
from lib_sdtrain.train.ema import Average
from lib_sdtrain.train.embeddings import inversions_of
from lib_sdtrain.train.frozen import autocast, narrow, narrows
from lib_sdtrain.train.optimizers import kept
from lib_sdtrain.train.optimizers.elsewhere import MomentsElsewhere, lie_elsewhere
from lib_sdtrain.train.optimizers.registry import make_optimizer, moment_bytes
from lib_sdtrain.train.parts import swapped, trained_parts
from lib_sdtrain.train.plan import Plan
from lib_sdtrain.train.products import Products
from lib_sdtrain.train.prompts import PromptEncoder
from lib_sdtrain.train.rates import SmoothedLoss, rate_factor
from lib_sdtrain.train.soundness import NotFiniteError, Unsound, broken_parts
from lib_sdtrain.train.splitting import doubled, pieces
from lib_sdtrain.train.state import State
from lib_sdtrain.train.text_cache import keeps_text
from lib_sdtrain.train.token_vectors import prepare_vectors
from lib_sdtrain.train.zeroed import ZeroedMemory, begin_in

RUINED = "lower train.learning_rate; no such weights are saved"
_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class StepResult:
    """`loss` is the mean over micro-steps, `lr` the rate of the first group."""

    loss: float
    smoothed: float
    lr: float


class Trainer:
    """Trains the chosen parts of `model` on the samples of `draws`, from sample 0 or from a saved state.

    `pieces` is in how many pieces a micro-batch is taken: more than one once memory has run out. `zeros` is where
    AdamW's moments begin, if not wherever torch makes them.
    """

    def __init__(
        self, plan: Plan, model: LoadedModel, latents: Latents, draws: Draws, zeros: ZeroedMemory | None = None
    ) -> None:
        self.plan, self.settings, self.model = plan, plan.settings, model
        self.latents, self.draws = latents, draws
        self.step = self.samples = self._rows = 0
        self.pieces = 1
        self._batch: Batch | None = None  # the last one, to tell of it when a step finds no numbers
        self.smoothed = SmoothedLoss()
        self.device = torch.device(plan.device)
        family = model.family
        self.criterion = Criterion(self.settings.loss, family.prediction_type, family.schedule.table())
        self.conditioning = Conditioning(family, latents, self.settings.model.inpainting_mask)
        self.inversions = inversions_of(self.settings, model)
        self.model_parts = trained_parts(self.settings, model)
        self.parts = dict(self.model_parts)
        if self.inversions.trained is not None:
            self.parts[EMBEDDING] = self.inversions.trained
        self.prompts = PromptEncoder(
            model, self.settings.model, self.parts, self.inversions, keeps_text(self.settings)
        )
        self._prepare_modules()
        self.products = Products(self.device.type, sum(weight.numel() for weight in model.unet.parameters()))
        self.optimizer = make_optimizer(self.settings, self.parts, self.device.type, plan.pictures)
        if zeros:
            begin_in(self.optimizer, zeros)
        train = self.settings.train
        self.elsewhere = MomentsElsewhere(self.optimizer) if lie_elsewhere(train, self.device.type) else None
        self.in_backward = BackwardSteps(
            self.optimizer, train.max_grad_norm, 0 if zeros else moment_bytes(train.optimizer)
        ) if train.step_in_backward else None
        growth = max(1, plan.in_steps(self.settings.train.grad_scaler_growth))
        self.scaler = loss_scale.make_scaler(self.device.type, growth) if self._precision == "fp16" else None
        self.average = self._new_average()

    @property
    def _precision(self) -> str:
        return self.settings.train.mixed_precision

    def _prepare_modules(self) -> None:
        for module in (self.model.unet, *self.model.text_encoders):
            module.requires_grad_(False).to(torch.float32)
        for module in self.parts.values():
            module.requires_grad_(True)
        prepare_vectors(self.settings, self.model, self.model_parts)
        choose_attention(self.model.unet, self.device.type, self._precision)
        choose_convolutions(self.model.unet, self.device.type, self.settings)
        if narrows(self.settings):
            narrow(self.model.unet, self.device.type, _HALF[self._precision])
        for module in (self.model.unet, *self.model.text_encoders, *self.parts.values()):
            module.to(self.device)
        if self.settings.train.gradient_checkpointing:
            for module in (self.model.unet, *self.model.text_encoders):
                enable = getattr(module, "enable_gradient_checkpointing", None) or module.gradient_checkpointing_enable
                enable()
                module.train()  # checkpointing works in training mode only; these models have no dropout

    def _new_average(self) -> Average | None:
        """The moving average, going on from the one that the checkpoint carries."""
        ema = self.settings.ema
        if ema.decay is None:
            return None
        device = torch.device("cpu") if ema.on_cpu else self.device
        in_steps = self.plan.in_steps
        average = Average(self.parts, ema, in_steps(ema.after), in_steps(ema.every), device)
        if self.settings.method.kind == FULL:
            average.go_on_from(self.plan.checkpoint)
        return average

    @contextmanager
    def shown_weights(self, ema: str = "") -> Iterator[None]:
        """While open, the trained parts hold the weights that are saved and drawn; `ema` in place of `save.ema`."""
        with swapped(self._meant_weights(ema or self.settings.save.ema)):
            yield

    @contextmanager
    def averaged_weights(self, which: str) -> Iterator[None]:
        """While open, the trained parts hold their averages: all (`use`), or as a file keeps them, the UNet's (`keep`).

        Raises `ValueError` when there is no average.
        """
        if self.average is None:
            message = "nothing is averaged"
            raise ValueError(message)
        own = self.average.parameters
        names = [name for name in own if which == USE or name.startswith(f"{UNET}.")]
        with swapped((own[name], self.average.weights[name]) for name in names):
            yield

    def _meant_weights(self, ema: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter that stands for other values than its own, and these: an average."""
        if self.average and ema == USE:
            yield from zip(self.average.parameters.values(), self.average.weights.values(), strict=True)
        elif hasattr(self.optimizer, "averages"):
            yield from self.optimizer.averages()

    def train_step(self) -> StepResult:
        """One optimiser step over `gradient_accumulation_steps` micro-batches.

        Raises `Unsound` when the loss or a gradient is no finite number (with steps in backward: a gradient that is
        clipped), `JobFailed` when memory does not suffice or kept latents are damaged, and `UserError` for a picture or
        mask that is no longer what it was. All is then as it was before the step, unless it is `torn`.
        """
        first = self.samples
        try:
            return self._step()
        except NotFiniteError as error:
            self._take_back(first)
            rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
            cause = likely_cause(self.settings, self._batch, rates)
            raise Unsound(f"{error} at step {self.step + 1}", where="training", fix=cause) from error
        except (UserError, JobFailed):  # from before the update: what updates knows neither
            self._take_back(first)
            raise

    @property
    def torn(self) -> bool:
        """Whether a step failed when some of its weights had moved within backward: they are no state to save."""
        return self.in_backward is not None and self.in_backward.moved

    def _take_back(self, samples: int) -> None:
        """Forget what a step has begun, which had come to so many `samples` before it."""
        self.samples = samples
        self.optimizer.zero_grad(set_to_none=True)

    def _step(self) -> StepResult:
        lr = self._set_rate()
        if self.in_backward:
            self.in_backward.make_room()
        mean = self._gradients()
        self._update()
        self.step += 1
        if self.average and self.step % self.average.every == 0:
            self.average.update()
        return StepResult(mean, self.smoothed.update(mean), lr)

    def _finite(self, loss: Tensor) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss is {value}")
        return value

    def _gradients(self) -> float:
        """Gradients of a step; the mean loss. Where memory runs out, the step begins anew with more, smaller pieces."""
        first = self.samples
        while True:
            try:
                count = self.settings.train.gradient_accumulation_steps
                return sum(self._micro_step(self.next_batch()) for _ in range(count)) / count
            except torch.cuda.OutOfMemoryError as error:
                if self.in_backward:
                    raise JobFailed(NOT_IN_PIECES, where="training", fix=PIECES_REMEDY) from error
                self.pieces = doubled(self.pieces, self._rows)
            self._take_back(first)
            torch.cuda.empty_cache()

    def _micro_step(self, batch: Batch) -> float:
        """Add a micro-batch's gradients; its loss, which is finite."""
        self._batch, self._rows = batch, len(batch.prompts)
        count = self.settings.train.gradient_accumulation_steps
        if self.pieces == 1:
            loss = self.loss(batch)
            self._backward(loss / count)
            return self._finite(loss)
        total, shares = torch.zeros(()), self.criterion.shares(batch).to(self.device)
        chunks = self.prompts.chunk_count(batch.prompts)  # as many in each piece as the batch's longest caption has
        for part, rows in pieces(batch, self.pieces):
            prediction, target = self.answer(part, chunks)
            losses = self.criterion.per_sample(prediction, target, part.timesteps, part.mask)
            loss = (losses * shares[rows.to(self.device)]).sum()
            self._backward(loss / count)
            total += loss.detach().cpu()
        return self._finite(total)

    def next_batch(self) -> Batch:
        """The next micro-batch; moves the sample counter on."""
        first, count = self.samples, self.settings.train.batch_size
        self.samples += count
        return self.batch_of(list(self.draws_of(range(first, first + count))))

    def batch_of(self, draws: Sequence[Draw], seed: int | None = None, loss: LossSettings | None = None) -> Batch:
        """The micro-batch of these draws, with what the family's conditioning needs.

        With a `seed` it has noise of its own, with a `loss` another form of noise than the run's.
        """
        seed = self.settings.train.seed if seed is None else seed
        batch = make_batch(
            draws, self.latents, self.model.family.scale_factor, seed, loss or self.settings.loss,
            len(self.criterion.alphas_cumprod),
        )
        return replace(batch, **self.conditioning.facts(draws, tuple(batch.latents.shape[2:]), seed))

    def draws_of(self, indices: range) -> Iterator[Draw]:
        """Instance draws, then the class draws that go with them."""
        yield from (self.draws.at(index) for index in indices)
        for index in indices:
            draw = self.draws.class_at(index)
            if draw:
                yield draw

    def remember_words(self, prompt: str) -> list[str]:
        """Have what the frozen text encoders say of a prompt kept, computed as in a step; names of damaged files."""
        with self._computing():
            return self.prompts.remember(prompt)

    def loss(self, batch: Batch) -> Tensor:
        """The scalar loss of a micro-batch, with its graph."""
        prediction, target = self.answer(batch)
        return self.criterion.total(prediction, target, batch)

    def answer(self, batch: Batch, chunks: int = 1) -> tuple[Tensor, Tensor]:
        """What the model says to a micro-batch, and what it should have said, (B, 4, h, w) each.

        Captions are read in `chunks` of 75 tokens at least.
        """
        clean = batch.latents.to(self.device)
        noisy = self.criterion.noisy(batch, clean)
        with self._computing():
            words = self.prompts.encode(batch.prompts, chunks)
            steps = batch.timesteps.to(self.device)
            prediction = self.conditioning.predict(self.model.unet, noisy, steps, words, batch)
        return prediction, self.criterion.target(batch, clean)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        half = _HALF.get(self._precision)
        with self.products(), autocast(self.device.type, half) if half else nullcontext():
            yield

    def _backward(self, loss: Tensor) -> None:
        with self.products():
            if self.in_backward:
                self._finite(loss)  # afterwards the weights have moved
                self.in_backward.backward(loss)
            else:
                (self.scaler.scale(loss) if self.scaler else loss).backward()

    def _set_rate(self) -> float:
        train, lead = self.settings.train, self.plan.lead
        warmup = self.plan.in_steps(train.lr_warmup)
        for group in self.optimizer.param_groups:
            base = group["base_lr"]
            group["lr"] = base * rate_factor(
                train.lr_scheduler, self.step - lead, self.plan.steps - lead, warmup, train.lr_scheduler_args, base
            )
        return self.optimizer.param_groups[0]["lr"]

    def _update(self) -> None:
        if self.in_backward:
            self.in_backward.finish()
            return
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        largest = self.settings.train.max_grad_norm
        if largest or not self.scaler:  # a loss scale looks for what is no number itself
            clip(kept.parameters_of(self.optimizer), largest or math.inf, checked=not self.scaler)
        if self.scaler:
            self.scaler.step(self.optimizer)
            loss_scale.update(self.scaler)
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def check_weights(self) -> None:
        """Raise `JobFailed` when a trained weight is no finite number: no good state may make room for such a one."""
        if broken := broken_parts(self.parts):
            raise JobFailed(
                f"a weight of {broken[0]} is no number any more at step {self.step}", where="training", fix=RUINED
            )

    def state(self) -> State:
        """Everything that is needed to go on from here, bit for bit."""
        tensors = {f"weights.{name}.{key}": value for name, part in self.parts.items()
                   for key, value in part.state_dict().items()}
        tensors |= {f"optimizer.{name}": value for name, value in kept.tensors_of(self.optimizer).items()}
        if self.average:
            tensors |= {f"average.{name}": value for name, value in self.average.weights.items()}
        facts = {
            "step": self.step, "samples": self.samples, "average_updates": self.average and self.average.updates,
            "smoothed": [self.smoothed.total, self.smoothed.weight],
            "average_waited": self.average and self.average.waited,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "optimizer": kept.facts_of(self.optimizer),
        }
        return State(facts, tensors)

    def begin_from(self, state: State) -> None:
        """Begin with the weights and averages of a state of the same parts, nothing else of it."""
        for name, part in self.parts.items():
            part.load_state_dict(_under(state.tensors, f"weights.{name}."))
        if self.average and state.facts.get("average_updates") is not None:
            self.average.load(_under(state.tensors, "average."), state.facts["average_updates"],
                              state.facts.get("average_waited"))
        elif self.average:  # it was turned on while the run stood still, or between two stages
            self.average.load(self.average.parameters, 0)

    def restore(self, state: State) -> None:
        """Go on from a state of the same parts."""
        self.step, self.samples = state.facts["step"], self.draws.batch_start(state.facts["samples"])
        self.smoothed.total, self.smoothed.weight = state.facts["smoothed"]
        self.begin_from(state)
        kept.restore(
            self.optimizer, _under(state.tensors, "optimizer."), state.facts.get("optimizer", {}),
            elsewhere=self.elsewhere is not None,
        )
        if self.scaler and state.facts["scaler"]:
            loss_scale.restore(self.scaler, state.facts["scaler"])


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}
