"""The text in a picture of ours made a recipe."""

from k_diffusing.model.guidance_asked import GuidanceChoice, asked, of_text
from k_diffusing.names.texts import literal
from k_diffusing.reproduce.recipe import Grid, Prompt, Recipe, Stage
from k_diffusing.reproduce.values import MAX_SEED, MAX_STEPS, BadFile, brief, real, whole

MARK = "k-diffusing"  # whose version each of our pictures tells
NONE = "(none)"  # what a picture says of an argument that was None
KEYWORDS = ("noise", "flow_coordinates", "max_sequence_length", "program")


def is_own(texts: dict[str, str]) -> bool:
    """Whether a picture's texts are ours."""
    return MARK in texts and "sampler" in texts


def read_own(texts: dict[str, str], width: int, height: int) -> Recipe:
    """How the picture was made.

    Args:
        texts: In the picture, by name.
        width: Of the picture, in pixels.
        height: The same.

    Raises:
        BadFile: A value cannot be.
    """
    said = {name: value for name, value in texts.items() if value != NONE}
    recipe = Recipe(f"text of k-diffusing {texts[MARK][:40]}", None, model=said.get("model"))
    recipe.told("the picture", width=width, height=height)
    stage = Stage(where={"stage": "text"}, prompt=Prompt(said.get("prompt"), where="prompt"))
    stage.negative = Prompt(said["negative_prompt"], where="negative_prompt") if "negative_prompt" in said else None
    recipe.stages.append(stage)
    stage.told("seed", seed=whole(said.get("seed"), "seed", 0, MAX_SEED))
    stage.told("steps", steps=whole(said.get("steps"), "steps", 1, MAX_STEPS))
    name, *options = said["sampler"].split(",")
    stage.told("sampler", sampler=name.removeprefix("sample_"), sampler_options=dict(map(_option, options)))
    if ".py:" in name:
        recipe.lacks("sampler", "is a function of a file that is not in this picture")
    if "eta" in said:
        stage.sampler_options["eta"] = real(said["eta"], "eta", 0)
    grid = said.get("sigma_grid", "scheduler")
    stage.told("sigma_grid", grid=None if grid == "scheduler" else Grid(grid))
    _guidance(recipe, stage, said)
    if "guidance" in said:
        choice = _by_step(said["guidance"])
        recipe.keywords["guidance"], recipe.where["guidance"] = choice, "guidance"
        if asked(choice).has_weights:
            stage.cfg = None  # it has no part in the picture
    for keyword in KEYWORDS:
        if keyword in said:
            recipe.keywords[keyword] = _literal(said[keyword])
            recipe.where[keyword] = keyword
    return recipe


def _guidance(recipe: Recipe, stage: Stage, said: dict[str, str]) -> None:
    scale = real(said.get("guidance_scale"), "guidance_scale")
    if "true_cfg_scale" not in said:
        stage.told("guidance_scale", cfg=scale)
        return
    recipe.family, stage.prompt.guidance = "flux", scale
    stage.where["guidance"] = "guidance_scale"
    stage.told("true_cfg_scale", cfg=real(said["true_cfg_scale"], "true_cfg_scale"))


def _by_step(text: str) -> GuidanceChoice:
    try:
        return of_text(text)
    except (ValueError, TypeError) as error:
        raise BadFile(f"guidance is {brief(text)}: {error}") from error


def _option(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadFile(f"sampler has {brief(text)} after its name: an option is like eta=0.5")
    return name.strip(), _literal(value)


def _literal(text: str) -> object:
    """A number or a truth value; any other text as it is."""
    value = literal(text)
    return value if isinstance(value, (int, float, bool)) else text
