"""What is known of how a picture was made, whatever program made it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Gap(NamedTuple):
    """Something that changes the picture and is not done here.

    Attributes:
        where: The node or field that says it.
        effect: What it would change.
    """

    where: str
    effect: str


@dataclass
class Prompt:
    """What the network is told, or what it is to keep away from.

    Attributes:
        text: For the first text encoder; for both unless `text_2` is given. None if it is not known.
        text_2: For the second text encoder, where it is told something else.
        guidance: The distilled guidance scale of FLUX. None if nothing says it.
        zeroed: Whether zeros stand in for the embeddings.
        sizes: SDXL's original_size, crops_coords_top_left and target_size, where they are not the picture's.
        where: The nodes it comes from.
    """

    text: str | None = None
    text_2: str | None = None
    guidance: float | None = None
    zeroed: bool = False
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    where: str = ""


class Lora(NamedTuple):
    """A LoRA: the name of its file, its strength on the network and on the text encoders."""

    name: str
    strength: float
    strength_text: float


class Grid(NamedTuple):
    """A sigma grid.

    Attributes:
        name: As our `sigma_grid=` has it, or as the program has it; of a node its kind.
        options: The node's numbers by their names there.
    """

    name: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


@dataclass
class Stage:
    """One run of a sampler. What is None is not known, or what the program does where nothing is said.

    Attributes:
        where: What each other attribute was read from, by the attribute's name.
        prompt: What the network is told.
        negative: None where nothing is.
        seed: Of the initial noise and, as the program does it, of the steps' noise.
        steps: The number of steps of the whole grid.
        sampler: As the program's file names it.
        scheduler: As the program's file names it, where it has a name for the sigma grid.
        sampler_options: By our functions' names for them.
        grid: The sigma grid.
        cfg: The scale of classifier-free guidance.
        denoise: The part of the grid that is run, the last, from a picture.
        start_step: The first step that is run.
        end_step: The step before which it ends.
        add_noise: Whether noise is added to what the stage begins with.
        leftover_noise: Whether it ends with the noise that is left.
        models: The files of network, text encoders and VAE, as the program names them.
        loras: In the order in which they are applied.
        shift: {"max_shift": ..., "base_shift": ..., "width": ..., "height": ...} or {"shift": ...} of a flow model.
        prediction: "epsilon" or "v_prediction" where a node sets it.
        zsnr: Whether the noise schedule is rescaled to end without signal, where a node sets it.
        clip_layer: The text encoders' layer from the end whose output is taken: 2 is SDXL's own.
        custom: Whether the grid comes from a node of its own, and so is run as it is.
    """

    where: dict[str, str] = field(default_factory=dict)
    prompt: Prompt = field(default_factory=Prompt)
    negative: Prompt | None = None
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    scheduler: str | None = None
    sampler_options: dict[str, Any] = field(default_factory=dict)
    grid: Grid | None = None
    cfg: float | None = None
    denoise: float | None = None
    start_step: int | None = None
    end_step: int | None = None
    add_noise: bool = True
    leftover_noise: bool = False
    models: list[str] = field(default_factory=list)
    loras: list[Lora] = field(default_factory=list)
    shift: dict[str, float] = field(default_factory=dict)
    prediction: str | None = None
    zsnr: bool | None = None
    clip_layer: int | None = None
    custom: bool = False

    def told(self, where: str, **values) -> None:
        """Set attributes, and note where they were read."""
        for name, value in values.items():
            setattr(self, name, value)
            self.where[name] = where


@dataclass
class Recipe:
    """How a picture was made.

    Attributes:
        source: What it was read from: "ComfyUI's workflow, API form", "parameters of A1111 v1.10.1", ...
        program: As our `program=` takes it; None for diffusers' conventions.
        settings: Of the program, by the names that A1111's text has for them.
        stages: The runs of a sampler, the first one first.
        width: Of the picture, in pixels. None if it is not known.
        height: The same.
        batch: How many pictures are made at once.
        image: The file of the picture that it begins with.
        mask: The file of the mask of what is made anew.
        mask_channel: Of that file: "alpha", what is transparent; or "red", "green", "blue", what is bright.
        family: "sdxl" or "flux", as far as the file tells.
        keywords: More of the pipeline's keywords, as a picture of ours has them.
        model: The weights, where the file names them so that they can be found.
        gaps: What changes the picture and is not done here.
        notes: What else is to be known.
        where: What width, height, batch, image and mask were read from.
    """

    source: str
    program: str | None
    settings: dict[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    width: int | None = None
    height: int | None = None
    batch: int = 1
    image: str | None = None
    mask: str | None = None
    mask_channel: str = "alpha"
    family: str = "sdxl"
    keywords: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    gaps: list[Gap] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether a program of ours made it, whose samplers have our names."""
        return self.program is None and self.model is not None

    @property
    def complete(self) -> bool:
        """Whether all that changes the picture is done here too."""
        return not self.gaps

    def told(self, where: str, **values) -> None:
        """Set attributes, and note where they were read."""
        for name, value in values.items():
            setattr(self, name, value)
            self.where[name] = where

    def lacks(self, where: str, effect: str) -> None:
        """Note what is not done, once."""
        gap = Gap(where, effect)
        if gap not in self.gaps:
            self.gaps.append(gap)
