"""Every command block of the documentation runs, on small data."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest
from tests.e2e.docs_blocks import PAGES, ROOT, Block, blocks
from tests.e2e.docs_world import DATA, Stock, tiny, write_detections, write_files
from typer.main import get_command

import omma
from omma.cli import _run, app
from omma.config.yaml import parse_yaml
from omma.doctor import environment
from omma.systems import systems
from omma.systems.recipes import chain_stages, find_recipe, open_recipe
from omma.world.build import FORMATS

pytestmark = pytest.mark.e2e
# page -> finished runs that it speaks of without making them: name -> system
RUNS = {
    "docs/concepts.md": {"first": "lss", "second": "lss"},
    "docs/troubleshooting.md": {"first": "lss", "diffbev": "diffbev"},
}
SLOW = {f"src/omma/systems/{name}/README.md" for name in ("diffbev", "g2_monodepth", "sdpose", "panollava")}
# blocks that no test can run here, by the reason that stands before them
NOT_RUN = {
    "README.md": ["installs packages", "installs packages"],
    "README.ko.md": ["installs packages", "installs packages"],
    "README.zh.md": ["installs packages", "installs packages"],
    "docs/index.md": ["installs packages"],
    "docs/add-a-system.md": ["the test of this page runs it in a process of its own"],
    "docs/benchmarks.md": ["measures this machine", "trains for an hour"],
    "docs/nuscenes-runbook.md": ["needs the full data set"],
}
# run word for word by a test of their own, or the same blocks as another page has
ELSEWHERE = {
    "docs/nuscenes-runbook.md": "test_diffbev_runbook.py",
    "docs/add-a-system.md": "test_sixth_system.py",
}
TRANSLATIONS = ("README.ko.md", "README.zh.md")
RUN_HERE = [page for page in PAGES if page not in ELSEWHERE and page not in TRANSLATIONS]
SETTINGS = {"train", "doctor", "bench", "sweep"}  # take a recipe and settings of which it gets small ones


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Stock:
    return Stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture(autouse=True)
def _installed_already(monkeypatch):
    """The doctor imports each package in a process of its own, which takes longer than all the rest."""
    for check in ("_packages", "_device"):
        monkeypatch.setattr(environment, check, lambda: iter(()))


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, ...], Path]:
    """Trainings that were run already: their words without a name -> run."""
    return {}


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in RUN_HERE]
)
def test_every_command_of_a_page_runs(page, stock, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    if "person_detections.json" in (ROOT / page).read_text(encoding="utf-8"):
        write_detections(tmp_path / "person_detections.json", stock.data("sdpose"))
    for name, system in RUNS.get(page, {}).items():
        stock.run(system, tmp_path / "runs" / name)
    runner = _Runner(stock, trained, monkeypatch)
    for block in blocks(page):
        if block.reason:
            continue
        if block.kind == "console":
            runner.compare(block)
        elif block.kind == "bash":
            for words in block.commands():
                runner.run(words)
    assert not (tmp_path / "runs").is_dir() or not list((tmp_path / "runs").glob("*/*.tmp"))


class _Runner:
    """Runs the commands of a page, smaller."""

    def __init__(self, stock: Stock, trained: dict[tuple[str, ...], Path], monkeypatch) -> None:
        self.stock, self.trained, self.monkeypatch = stock, trained, monkeypatch

    def run(self, words: list[str]) -> None:
        words = [self._data(word) for word in words]
        if words[0] == "export":
            self.monkeypatch.setenv(*words[1].split("=", 1))
        elif words[0] == "tensorboard":
            assert Path(words[words.index("--logdir") + 1]).is_dir()
        else:
            assert words[0] == "omma", f"{words}: only commands of omma are run"
            self._omma(words[1:])

    def compare(self, block: Block) -> None:
        """A command's answer is the one that stands below it; ... leaves something out."""
        (words,) = block.commands()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            _run([self._data(word) for word in words[1:]], debug=False)
        for line in block.text.splitlines()[1:]:
            pattern = ".*".join(map(re.escape, line.split("...")))
            assert re.search(pattern, said.getvalue()), f"{line!r} is not in\n{said.getvalue()}"

    def _omma(self, words: list[str]) -> None:
        if words[0] == "world":
            assert {word for word in words if word.startswith("--")} <= _options("world")
            shutil.copytree(self.stock.world(words[1]), words[words.index("--out") + 1])
            return
        output = io.StringIO()
        if ">" in words:
            words, file = words[:-2], Path(words[-1])
        else:
            file = None
        smaller = self._smaller(words)
        key = tuple(_without_name(smaller))
        name = smaller[smaller.index("--name") + 1] if "--name" in smaller else None
        if words[0] == "train" and key in self.trained:
            if name:
                shutil.copytree(self.trained[key], Path("runs") / name)
            return
        with contextlib.redirect_stdout(output):
            assert _run(smaller, debug=True) == 0, words
        if file:
            file.write_text(output.getvalue(), encoding="utf-8")
        if words[0] == "train" and name and (Path("runs") / name).is_dir():
            self.trained[key] = shutil.copytree(
                Path("runs") / name, self.stock.root / f"run{len(self.trained)}"
            )

    def _smaller(self, words: list[str]) -> list[str]:
        """The same command with a small network, few steps and few samples."""
        if words[0] in SETTINGS and len(words) > 1:
            words = [*words[:2], *self._tiny(words[1]), *words[2:]]
        if words[0] == "train":
            words = [*_without(words, "--smoke"), "--smoke", "2"]
        if words[0] == "bench" and "--memory" not in words:
            words = [*words, "--steps", "3"]
        if words[0] == "resume" and any(word.startswith("train.length=") for word in words):
            words = [*words[:2], "train.length=4"]
        if "--indices" in words:
            at = words.index("--indices") + 1
            words = [*words[:at], "0,1" if len(words[at]) > 1 else words[at], *words[at + 1 :]]
        if words[0] == "diagnose":
            words = [
                *_without(_without(words, "--num-samples"), "--vis-num"),
                "--num-samples",
                "2",
                "--vis-num",
                "1",
            ]
        return words

    def _tiny(self, recipe: str) -> list[str]:
        stages = chain_stages(recipe)
        if stages:
            return [f"{stage.name}:{word}" for stage in stages for word in self._tiny(stage.recipe)]
        return tiny(open_recipe(recipe).system.name, recipe)

    def _data(self, word: str) -> str:
        for folder, layout in DATA.items():
            if folder in word:
                return word.replace(folder, str(self.stock.data(layout)))
        return word


def _options(verb: str) -> set[str]:
    """The options of a verb."""
    return {option for parameter in get_command(app).commands[verb].params for option in parameter.opts}


def _without(words: list[str], option: str) -> list[str]:
    """The words without an option and its value."""
    if option not in words:
        return words
    at = words.index(option)
    return [*words[:at], *words[at + 2 :]]


def _without_name(words: list[str]) -> list[str]:
    return _without(words, "--name")


def test_the_python_of_the_documentation_runs(stock, tmp_path, monkeypatch, capsys):
    """The blocks of the Python page one after the other, with a small network and few steps."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stock.data("lss"), "data/town")
    train, build = omma.train, omma.build
    small = {
        key: parse_yaml(text, key) for key, text in (word.split("=", 1) for word in tiny("lss", "lss/demo"))
    }
    quick = {"smoke": 2, "quiet": True}
    monkeypatch.setattr(
        omma, "train", lambda recipe, **given: train(recipe, **small, **given, **quick), raising=False
    )
    monkeypatch.setattr(omma, "build", lambda recipe, **given: build(recipe, **small, **given), raising=False)
    names: dict[str, object] = {}
    for number, block in enumerate(block for block in blocks("docs/python.md") if block.kind == "python"):
        exec(compile(block.text, f"docs/python.md, block {number}", "exec"), names)
    assert names["picture"].shape[2] == 3
    assert set(names["prediction"].arrays) >= {"probability", "target"}
    assert [file.name for file in names["pictures"]] == ["sample_0000.png", "sample_0001.png"]
    assert names["scores"]["iou"] == omma.evaluate("first").metrics["iou"]
    (answer,) = re.findall(r"print\(error\) +# (.*)", (ROOT / "docs/python.md").read_text(encoding="utf-8"))
    assert answer in capsys.readouterr().out


def test_every_page_with_python_is_run():
    pages = [page for page in PAGES if any(block.kind == "python" for block in blocks(page))]
    assert pages == ["docs/add-a-system.md", "docs/python.md"]


def test_only_listed_blocks_are_not_run():
    found = {page: [block.reason for block in blocks(page) if block.reason] for page in PAGES}
    assert {page: reasons for page, reasons in found.items() if reasons} == NOT_RUN


def test_commands_that_are_not_run_name_verbs_and_recipes_that_are_there():
    for page in PAGES:
        for block in blocks(page):
            for words in block.commands() if block.reason else ():
                if words[0] != "omma":
                    continue
                assert words[1] in get_command(app).commands, words
                if words[1] in SETTINGS and len(words) > 2:
                    assert find_recipe(words[2])
    for test in ELSEWHERE.values():
        assert (ROOT / "tests" / "e2e" / test).is_file()


def test_no_command_stands_in_a_block_that_no_test_reads():
    for page in PAGES:
        for block in blocks(page):
            if block.kind not in {"bash", "console"}:
                lines = [line for line in block.text.splitlines() if re.match(r"(\$ )?(\S*/)?omma \w", line)]
                assert lines == [], f"{page}: write it as bash"


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_translations_have_the_commands_of_the_english_page(page):
    """So that these are run, and none is forgotten when one changes."""
    english = [
        command for block in blocks("README.md") for command in block.commands() if block.kind == "bash"
    ]
    own = [command for block in blocks(page) for command in block.commands() if block.kind == "bash"]
    assert own
    assert [command for command in own if command not in english] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"^\[[^\]]+\]: (\S+)$", prose, re.MULTILINE)
    for link in links:
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.is_file(), f"{page}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, f"{page}: {link}"


def _anchor(heading: str) -> str:
    """As GitHub and the site name a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_system_has_its_page_and_every_flag_its_row():
    index = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    coming = (ROOT / "docs/coming-from.md").read_text(encoding="utf-8")
    for system in systems().values():
        assert f"systems/{system.name}.md" in index
        page = (ROOT / f"docs/systems/{system.name}.md").read_text(encoding="utf-8")
        assert f"src/omma/systems/{system.name}/README.md:page" in page
        aliases = system.load(system.aliases) if system.aliases else {}
        absent = [flag for flag in aliases if not _forms(flag) & set(re.findall(r"--[\w-]+", coming))]
        assert absent == [], system.name


def test_every_recipe_is_on_the_page_of_its_system():
    for page in sorted((ROOT / "src/omma/systems").glob("*/README.md")):
        text, recipes = page.read_text(encoding="utf-8"), page.parent / "recipes"
        names = [file.relative_to(recipes).with_suffix("").as_posix() for file in recipes.rglob("*.yaml")]
        assert [name for name in names if f"`{name}`" not in text] == [], page.parent.name


def test_every_command_and_world_format_is_listed():
    page = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    listed = re.findall(r"`omma (\w+)`", page[page.index("## Commands") :])
    shown = {name for name, command in get_command(app).commands.items() if not command.hidden}
    assert set(listed) == shown
    formats = page[page.index("| format of `omma world`") : page.index("## Exit codes")]
    assert set(re.findall(r"`([\w-]+)`", formats)) == set(FORMATS)


def _forms(flag: str) -> set[str]:
    """A flag with blanks as hyphens and as underlines."""
    return {flag, f"--{flag[2:].replace('_', '-')}", f"--{flag[2:].replace('-', '_')}"}
