"""The command line: each verb is parsed here and imports the one function that it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from omma.commands.outcome import prepare_console, run_app

app = typer.Typer(
    name="omma",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train, check, evaluate, compare and export spatial-perception systems.\n\n"
    "Start with `omma demo` (no data needed) or `omma ls`. Settings are key.path=value words.",
)

_WITH_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}

Words = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings, such as optim.lr=1e-4")
]
RecipeArg = Annotated[
    str, typer.Argument(metavar="RECIPE", help="system/recipe, a .yaml file or a run folder")
]
RunArg = Annotated[str, typer.Argument(metavar="RUN", help="a run's folder or its name")]
RunsDir = Annotated[
    str | None, typer.Option("--runs-dir", help="where runs are; also OMMA_RUNS, else ./runs")
]
Out = Annotated[Path, typer.Option("--out", help="folder to write to")]


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    if version:
        from omma.version import __version__

        typer.echo(f"omma {__version__}")
        raise typer.Exit


@app.command()
def ls(system: Annotated[str | None, typer.Argument(metavar="[SYSTEM]")] = None) -> None:
    """List systems and recipes."""
    from omma.commands.recipes import list_recipes

    typer.echo(list_recipes(system))


@app.command()
def show(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE")] = None,
    words: Words = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="JSON schema of recipes, for editors; of one SYSTEM or of all")
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Print a recipe's settings, each with where its value came from."""
    from omma.commands.recipes import show_recipe
    from omma.commands.schema import show_schema

    if schema:
        typer.echo(show_schema(recipe))
    elif recipe is None:
        raise typer.BadParameter("give a RECIPE; `omma ls` lists them")
    else:
        typer.echo(show_recipe(recipe, words or [], runs_dir))


@app.command()
def cp(
    recipe: RecipeArg, file: Annotated[Path, typer.Argument(metavar="FILE", help="a new .yaml file")]
) -> None:
    """Make a recipe file of your own that extends RECIPE."""
    from omma.commands.recipes import copy_recipe

    typer.echo(copy_recipe(recipe, file))


@app.command()
def runs(
    places: Annotated[list[str] | None, typer.Argument(metavar="[check] [DIR ...]")] = None,
) -> None:
    """List the runs in folders; `omma runs check` says what a finished run lacks, with the fix."""
    from omma.commands import runs, runs_check

    places = places or []
    typer.echo(runs.list_runs(places)) if places[:1] != ["check"] else runs_check.check_runs(places[1:])


@app.command()
def status(run: RunArg, runs_dir: RunsDir = None) -> None:
    """Say how a run is doing."""
    from omma.commands.runs import describe_run

    typer.echo(describe_run(run, runs_dir))


@app.command()
def world(
    layout: Annotated[str, typer.Argument(metavar="FORMAT", help="on-disk format, such as simbev")],
    out: Out,
    scenes: Annotated[int, typer.Option(min=1, help="training scenes")] = 8,
    val_scenes: Annotated[int, typer.Option(min=0, help="validation scenes")] = 2,
    frames: Annotated[int, typer.Option(min=1, help="frames a scene")] = 4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    image_size: Annotated[str | None, typer.Option(metavar="HxW", help="image height x width")] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 2,
    force: Annotated[bool, typer.Option("--force", help="replace a folder that omma world made")] = False,
) -> None:
    """Make a procedural data set in a real on-disk format; needs no download."""
    from omma.commands.world import make_world

    size = {"scenes": scenes, "val_scenes": val_scenes, "frames": frames, "image_size": image_size}
    make_world(layout, out, **size, seed=seed, workers=workers, force=force)


@app.command(context_settings=_WITH_FLAGS)
def doctor(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]")] = None,
    words: Words = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for pictures of the data check")] = None,
    name: Annotated[str | None, typer.Option(help="of the run, as for train; likewise:")] = None,
    init: Annotated[str | None, typer.Option(help="RUN or FILE")] = None,
    resume: Annotated[str | None, typer.Option(help="RUN or FILE")] = None,
) -> None:
    """Check this machine; with a recipe also its data, disk and memory. Every finding names its fix."""
    from omma.commands.doctor import run_doctor

    run_doctor(recipe, words or [], out, name=name, init=init, resume=resume)


@app.command(context_settings=_WITH_FLAGS)
def prepare(
    step: Annotated[
        str | None, typer.Argument(metavar="[STEP]", help="such as lss-resize; none lists all")
    ] = None,
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Prepare data ahead of training, such as resized copies."""
    from omma.commands.prepare import run_prepare

    run_prepare(step, words or [])


@app.command(context_settings=_WITH_FLAGS)
def train(
    recipe: RecipeArg,
    words: Words = None,
    name: Annotated[str | None, typer.Option(help="name of the run; default SYSTEM-RECIPE-TIME")] = None,
    smoke: Annotated[
        int | None, typer.Option(min=1, help="a trial of N steps: train, validate, save")
    ] = None,
    overfit: Annotated[
        int | None, typer.Option(min=1, help="train and validate on the same N samples")
    ] = None,
    init: Annotated[str | None, typer.Option(help="start from the weights of a RUN or a FILE")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="of these weights take what fits")] = False,
    resume: Annotated[
        str | None, typer.Option(help="continue RUN, or a checkpoint FILE of the original tool")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="move an existing run of that name aside")
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Train a recipe. Flags of the original tools (--dataroot, --bsz ...) are understood too."""
    from omma.commands.typed import train_words

    kind = {"smoke": smoke, "overfit": overfit, "init": init, "partial": partial, "resume_from": resume}
    train_words(recipe, words or [], name=name, **kind, overwrite=overwrite, runs_dir=runs_dir)


@app.command()
def resume(run: RunArg, words: Words = None, runs_dir: RunsDir = None) -> None:
    """Continue a run exactly where it stopped, or a chain with its first unfinished stage."""
    from omma.commands.typed import resume_words

    resume_words(run, words or [], runs_dir=runs_dir)


@app.command("train-worker", hidden=True)
def train_worker(run: RunArg) -> None:
    """One process of a training on several devices; started by `omma train`."""
    from omma.commands.train import train_worker as work

    raise typer.Exit(work(run))


@app.command("eval", context_settings=_WITH_FLAGS)
def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN|CKPT", help="RUN, RUN@best, RUN@last, RUN@step_N or a file")
    ],
    words: Words = None,
    split: Annotated[str | None, typer.Option(help="part of the data set; default data.val_split")] = None,
    predictions: Annotated[Path | None, typer.Option(help="score these saved predictions instead")] = None,
    study: Annotated[list[str] | None, typer.Option(help="also a study, such as robustness")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Evaluate a run or a checkpoint and write its metrics."""
    from omma.commands.evaluate import evaluate_words

    evaluate_words(
        run, words or [], split=split, predictions=predictions, studies=study or [], runs_dir=runs_dir
    )


@app.command()
def predict(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN [RUN ...]", help="several are drawn side by side")
    ],
    out: Out,
    indices: Annotated[str | None, typer.Option(help="samples of the split: 0,10 or 0-39 or 0-39:2")] = None,
    input: Annotated[list[str] | None, typer.Option("--input", help="a file of your own; repeatable")] = None,
    sparse: Annotated[list[str] | None, typer.Option(help="known depth of each --input, in order")] = None,
    split: Annotated[str | None, typer.Option(help="part of the data set; default data.val_split")] = None,
    video: Annotated[Path | None, typer.Option(help="also one .gif or .mp4 of all pictures")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="a setting, such as data.root=PATH")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Draw predictions of one run, or of several side by side."""
    from omma.commands.predict import predict as predict_runs

    files = {"inputs": input or [], "sparse": sparse or [], "video": video, "runs_dir": runs_dir}
    predict_runs(runs, out, indices=indices, split=split, overrides=set_ or [], **files)


@app.command(context_settings=_WITH_FLAGS)
def diagnose(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN|CKPT", help="RUN, RUN@last, RUN@step_N or a checkpoint")
    ] = None,
    words: Words = None,
    split: Annotated[
        str | None, typer.Option("--split", "--dataset-split", help="default: data.val_split")
    ] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="samples to look at")] = 50,
    vis_num: Annotated[int, typer.Option(min=0, help="samples to draw")] = 8,
    out: Annotated[Path | None, typer.Option("--out", "--out-dir", help="default: RUN/diagnose/")] = None,
    camera: Annotated[str | None, typer.Option(help="this camera only, such as CAM_FRONT")] = None,
    probe_only: Annotated[bool, typer.Option("--probe-only", help="config, curves and labels only")] = False,
    device: Annotated[str | None, typer.Option(help="such as cpu or cuda:0")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the choice of samples")] = 42,
    checkpoint: Annotated[str | None, typer.Option(help="another way to name RUN|CKPT")] = None,
    config: Annotated[str | None, typer.Option(hidden=True)] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Say what is wrong with a run, most severe first, and what to do; exit code 0 whatever is found."""
    from omma.commands.diagnose import diagnose_words

    looks = {"split": split, "num_samples": num_samples, "vis_num": vis_num, "out": out, "camera": camera}
    looks |= {"probe_only": probe_only, "seed": seed, "runs_dir": runs_dir}
    diagnose_words(run, words or [], checkpoint=checkpoint, config=config, device=device, **looks)


@app.command()
def report(run: RunArg, runs_dir: RunsDir = None) -> None:
    """Write a run's report.html."""
    from omma.commands.runs import write_report

    typer.echo(write_report(run, runs_dir))


@app.command()
def card(run: RunArg, runs_dir: RunsDir = None) -> None:
    """Write a run's model card, README.md."""
    from omma.commands.card import write_card

    typer.echo(write_card(run, runs_dir))


@app.command(context_settings=_WITH_FLAGS)
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN [RUN ...]", help="the first is what others are compared with")
    ],
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="folder to write to")],
    names: Annotated[str | None, typer.Option(help="A,B: their names; or --experiment-names A B")] = None,
    metrics: Annotated[str | None, typer.Option(help="what to draw: mIoU,lr or all")] = None,
    fig_size: Annotated[tuple[float, float], typer.Option(help="inches, such as 12 6")] = (12, 6),
    dpi: Annotated[int, typer.Option(min=20, max=1200, help="pixels an inch")] = 150,
    runs_dir: RunsDir = None,
) -> None:
    """Compare runs: curves, tables, differences with their interval, and a report.html."""
    from omma.commands.compare import Picture, compare_words

    picture = Picture(fig_size, dpi)
    compare_words(runs, out, names=names, metrics=metrics, picture=picture, runs_dir=runs_dir)


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN|CKPT")],
    format: Annotated[str, typer.Option("--format", help="onnx, pt2 or reference")] = "onnx",
    out: Annotated[Path | None, typer.Option("--out", help="file to write; default RUN/export/")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Export a model and check the exported file against PyTorch."""
    from omma.commands.export import export as export_run

    export_run(run, format, out=out, runs_dir=runs_dir)


@app.command("import")
def import_(
    system: Annotated[str, typer.Argument(metavar="SYSTEM")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="checkpoint of the original project")],
    recipe: Annotated[str, typer.Option("--recipe", help="recipe that the weights belong to")],
    out: Annotated[Path, typer.Option("--out", help="run folder to make")],
    words: Words = None,
) -> None:
    """Turn a checkpoint of the original project into a run folder."""
    from omma.commands.import_ import import_reference

    import_reference(system, file, recipe, words or [], out)


@app.command(context_settings=_WITH_FLAGS)
def bench(
    recipe: RecipeArg,
    words: Words = None,
    steps: Annotated[int, typer.Option(min=3, help="measured steps")] = 10,
    memory: Annotated[float | None, typer.Option(min=0.1, help="GiB: say which batch fits, no more")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the numbers here too")] = None,
) -> None:
    """Measure a training step: data, forward, backward, optimiser; and estimate the largest batch."""
    from omma.commands.bench import bench_recipe

    bench_recipe(recipe, words or [], steps=steps, memory_gib=memory, json_file=json_file)


@app.command()
def sweep(
    recipe: RecipeArg,
    words: Words = None,
    name: Annotated[
        str | None, typer.Option(help="name of the sweep; its runs are NAME-1, NAME-2 ...")
    ] = None,
    smoke: Annotated[int | None, typer.Option(min=1, help="N steps a run")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs, train none")] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Train a grid: key=a,b is an axis. Prints and saves one table; finished runs are not repeated."""
    from omma.commands.sweep import sweep as run_sweep

    run_sweep(recipe, words or [], name=name, smoke=smoke, dry_run=dry_run, runs_dir=runs_dir)


@app.command()
def slurm(
    recipe: RecipeArg,
    words: Words = None,
    nodes: Annotated[int, typer.Option(min=1)] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs a node")] = 1,
    hours: Annotated[int, typer.Option(min=1, help="time limit")] = 24,
    name: Annotated[str | None, typer.Option(help="name of the run")] = None,
) -> None:
    """Print a batch file for SLURM that saves ahead of the limit, is requeued and resumes."""
    from omma.commands.slurm import sbatch

    typer.echo(sbatch(recipe, words or [], nodes=nodes, gpus=gpus, hours=hours, name=name))


@app.command()
def demo(
    system: Annotated[str | None, typer.Argument(metavar="[SYSTEM]")] = None,
    words: Words = None,
    runs_dir: RunsDir = None,
) -> None:
    """From nothing to a trained model and its report: makes data, trains, evaluates, diagnoses, draws."""
    from omma.commands.demo import run_demo

    run_demo(system, words or [], runs_dir=runs_dir)


def main() -> None:
    """Entry point: runs a verb and turns every failure into one clear line and an exit code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    prepare_console()
    sys.exit(_run([word for word in arguments if word != "--debug"], debug=debug))


def _run(arguments: list[str], *, debug: bool) -> int:
    return run_app(app, arguments, debug=debug)
