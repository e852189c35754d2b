"""The noise that a sampler of the user's draws by itself, taken from the run's own streams.

    with UserDraws(function, x.shape, sigmas, noise) as draws:
        function(draws.model(denoiser), x, sigmas)  # its torch.randn_like(x) is noise(interval)

torch's global generator is left alone, and so is the function: what it calls is looked at on its way into torch, in
this thread alone, wherever the call stands: in a helper, a method, another module.
"""

import contextlib
import threading
import weakref
from collections.abc import Callable

import torch
from diffusers.utils import logging
from torch.overrides import TorchFunctionMode

from k_diffusing._k_diffusion import k_sampling  # noqa: F401 - before diffusers: it copes with a broken torchvision
from k_diffusing.noise.interval import Interval

logger = logging.get_logger(f"diffusers.{__name__}")  # under diffusers' verbosity settings

# Of unit noise: the tensor to be filled, and by what it is scaled and shifted, from the arguments of the draw.
GAUSSIAN = {
    "randn": lambda *size, **kwargs: (torch.empty(*size, **kwargs), 0.0, 1.0),
    "randn_like": lambda x, **kwargs: (torch.empty_like(x, **kwargs), 0.0, 1.0),
    "normal_": lambda x, mean=0.0, std=1.0: (x, mean, std),
}
DRAWS = {*GAUSSIAN, "normal", "rand", "rand_like", "randint", "randint_like", "randperm", "bernoulli", "multinomial"}
DRAWS |= {"poisson", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_"}

_told = weakref.WeakSet()  # the functions whose users were warned


class UserDraws(TorchFunctionMode):
    """While it is entered, Gaussian draws of the latents' shape are noise(interval); others are warned of.

    function: the user's, for the warning. sigmas: the grid, where x is. noise: unit noise for an Interval of it, or for
    churn, which a function draws before it calls the model. After that call the noise is for the step at hand. A draw
    from a generator of the user's own stays that.
    """

    def __init__(self, function: Callable, shape: torch.Size, sigmas: torch.Tensor, noise: Callable):
        super().__init__()
        self.function, self.shape, self.sigmas, self.noise = function, shape, sigmas, noise
        self.called_at: torch.Tensor | None = None
        self.churns, self.thread = False, threading.get_ident()
        self.inside = False

    def __enter__(self) -> "UserDraws":
        self.inside = True
        return super().__enter__()

    def __exit__(self, *error) -> None:
        self.inside = False
        super().__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", None), kwargs or {}
        if name not in DRAWS or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if name in GAUSSIAN:
            drawn, mean, std = GAUSSIAN[name](*args, **{key: kwargs[key] for key in kwargs if key != "generator"})
            if drawn.shape == self.shape:
                noise = self.noise(self._interval())
                return drawn.copy_(noise if name != "normal_" else mean + std * noise)
        self._warn(name)
        return func(*args, **kwargs)

    def outside(self, function: Callable) -> Callable:
        """The same function, run outside of this mode: what a network draws (dropout), or a callback, is its own."""

        def call(*args, **kwargs):
            if not self.inside or threading.get_ident() != self.thread:
                return function(*args, **kwargs)
            self.__exit__(None, None, None)
            try:
                return function(*args, **kwargs)
            finally:
                self.__enter__()

        return call

    def model(self, denoiser: Callable) -> Callable:
        """The denoiser, run outside of this mode, with the level of its latest call kept."""
        evaluate = self.outside(denoiser)

        def model(x, sigma, **extra_args):
            self.called_at = sigma
            return evaluate(x, sigma, **extra_args)

        return model

    def _interval(self) -> Interval:
        """The step of the grid in which the model was last called, found where x is, so that nothing waits."""
        if self.called_at is None or self.churns:
            self.churns = True
            return Interval.of_churn(None)
        sigma = self.called_at.flatten()[0]
        step = ((self.sigmas >= sigma * (1 - 1e-6)).sum() - 1).clamp(0, len(self.sigmas) - 2)
        return Interval(self.sigmas.take(step), self.sigmas.take(step + 1))

    def _warn(self, draw: str) -> None:
        with contextlib.suppress(TypeError):  # what cannot be remembered is told again
            if self.function in _told:
                return
            _told.add(self.function)
        name = getattr(self.function, "__name__", type(self.function).__name__)
        logger.warning(
            f"{name} draws with {draw} from torch's global generator, of which generator= and seeds= know nothing, so "
            "that its results cannot be repeated: give it a parameter noise_sampler=None and draw with "
            "noise_sampler(sigma, sigma_next), or draw a whole batch with torch.randn_like(x)"
        )
