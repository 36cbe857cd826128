"""Folders that are told by name: the work of another job is not written over, and nothing is changed there."""

import json
import logging
import os
import re
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from kd_lightning.apps.arguments import as_told, told_by
from kd_lightning.apps.command_line import ending, notes, occupied, sweeps
from kd_lightning.apps.command_line import jobs as jobs_of_sweeps
from kd_lightning.apps.command_line.ending import told_in_one_line
from kd_lightning.apps.command_line.foreseen import check_is_of_all, check_jobs
from kd_lightning.apps.command_line.grids import jobs_of_grid
from kd_lightning.apps.command_line.jobs import NotOursError, marked_as_running, state_of
from kd_lightning.apps.command_line.notes import command_of, model_of, note_told, overrides_of, refused_jobs
from kd_lightning.apps.command_line.occupied import check_is_ours
from kd_lightning.apps.command_line.sweep_end import end_of_sweep
from kd_lightning.apps.command_line.sweep_start import fix_folder
from kd_lightning.apps.processes.seat import Seat
from kd_lightning.apps.settings.config_hash import config_hash
from kd_lightning.apps.settings.early import resolve
from kd_lightning.errors import UserError
from kd_lightning.files import locked_if_free


def composed(*told):
    """Return a configuration as if it was composed: a default, and what was told."""
    defaults = {"seed": 1, "logger": "csv", "data": {"limit": None, "root": None}, "name": "x"}
    defaults["paths"] = {"output": "outputs"}
    return OmegaConf.merge(defaults, OmegaConf.from_dotlist([one.lstrip("+") for one in told]))


@pytest.fixture(autouse=True)
def loader(monkeypatch):
    """Hydra, which composes the jobs of a sweep."""

    def compose(config, told):
        own = OmegaConf.masked_copy(config, "hydra")
        return OmegaConf.merge(own, composed(*told))

    own = SimpleNamespace(load_sweep_config=compose)
    hydra = SimpleNamespace(config_loader=lambda: own, is_initialized=lambda: False)
    monkeypatch.setattr(GlobalHydra, "instance", lambda: hydra)
    monkeypatch.setattr(HydraConfig, "set_config", lambda self, config: None)


def leave(folder, *told, command="train", status="finished", checkpoint=False):
    """Leave what a job has made: its results, or a checkpoint, and what Hydra notes of it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(told)))
    (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(composed(*told)))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"job": {"config_name": command}}}))
    written = {"status": status, "config_hash": config_hash(OmegaConf.to_container(composed(*told)))}
    (folder / "summary.json").write_text(json.dumps(written))
    if checkpoint:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()


def sweep(folder, *told, subdir="${hydra.job.num}", sweeper=(), command="train"):
    """Return the configuration of a sweep into a folder."""
    node = {
        "sweep": {"dir": str(folder), "subdir": subdir},
        "sweeper": dict(sweeper),
        "overrides": {"task": list(told)},
    }
    own = composed(*(one for one in told if "," not in one and "glob" not in one))
    return OmegaConf.merge(own, {"hydra": {**node, "job": {"config_name": command}}})


def check(config):
    """Check the jobs of a sweep, as its launching process does."""
    check_jobs(config, jobs_of_grid(config.hydra.sweeper, told_by(config.hydra)))


def take(folder, *told, command="train", mode=RunMode.RUN):
    """Take a folder, as a job does that is told this."""
    now = {"job": {"config_name": command}, "overrides": {"task": list(told)}, "mode": mode}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))
        patch.setattr(HydraConfig, "instance", lambda: SimpleNamespace(cfg=OmegaConf.create({"hydra": now})))
        folder.mkdir(exist_ok=True)
        settings = composed(*told)
        with marked_as_running(folder, partial(check_is_ours, settings), partial(note_told, settings)):
            assert state_of(folder) == "running"


@pytest.mark.parametrize("told", ["seed=1,2", "seed=1,2,3", "seed=1", "++seed=1,2"])
def test_a_sweep_that_is_told_the_same_goes_on_in_its_folder(tmp_path, told):
    """With what changes no result, too; what has no number there is not written over."""
    for number in (0, 1):
        leave(tmp_path / str(number), "skip_finished=true", f"seed={number + 1}", "logger=csv")
    leave(tmp_path / "earlier" / "0", "seed=7")
    check(sweep(tmp_path, told, "logger=wandb"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["seed=2,3"], "0 holds what kd-train with seed=1 has made: choose another hydra.sweep.dir, or take it away"),
        (["seed=1,3"], "1 holds what kd-train with seed=2 has made"),
        (["seed=1,2", "optimizer.lr=1"], "0 holds what kd-train without optimizer.lr=1 has made"),
    ],
)
def test_another_sweep_is_refused(tmp_path, told, said):
    """Seed 3 was trained over seed 2, to which a job pointed that had skipped it: its score under another seed."""
    for number in (0, 1):
        leave(tmp_path / str(number), f"seed={number + 1}")
    with pytest.raises(UserError) as error:
        check(sweep(tmp_path, *told))
    assert str(error.value).startswith(f"{tmp_path}/{said}")


def test_another_command_is_refused(tmp_path):
    leave(tmp_path / "0", "seed=1", command="distill")
    summary = json.loads((tmp_path / "0" / "summary.json").read_text())
    (tmp_path / "0" / "summary.json").write_text(json.dumps(summary | {"config_hash": "of a distillation"}))
    with pytest.raises(UserError, match="0 holds what kd-distill has made"):
        check(sweep(tmp_path, "seed=1,2"))
    for command in ("train", "evaluate"):
        with pytest.raises(UserError, match=r"0 holds what kd-distill has made: choose another hydra\.run\.dir"):
            take(tmp_path / "0", "seed=1", command=command)


@pytest.mark.parametrize(
    "subdir", [".", "../up/${hydra.job.num}", "${hydra.job.num}/../x", "/elsewhere/${hydra.job.num}"]
)
def test_jobs_lie_in_the_folder_of_their_sweep(tmp_path, subdir):
    """Outside they were not found at its end, and written over without a look."""
    with pytest.raises(UserError, match=r"hydra\.sweep\.subdir is .*, expected a folder below hydra\.sweep\.dir"):
        check(sweep(tmp_path, "seed=1,2", subdir=subdir))


@pytest.mark.parametrize("is_new", [False, True])
def test_a_place_that_cannot_be_told_is_one_line(tmp_path, is_new):
    """Eighty lines of traceback, of a misspelt setting; where all folders are new the first job shows it."""
    with pytest.raises(UserError, match=r"^hydra\.sweep\.subdir, of job 0: Interpolation key 'nix'"):
        check_jobs(sweep(tmp_path, subdir="${hydra.job.num}_${nix}"), [["seed=1"], ["seed=2"]], is_new)


def test_the_trials_of_a_search_are_written_over_by_no_other(tmp_path):
    """Each begins at 0, and draws its own values."""
    search = sweep(tmp_path, "optimizer.lr=interval(0,1)", sweeper={"n_trials": 2})
    (tmp_path / ".sweep.lock").touch()
    check(search)
    leave(tmp_path / "0", "optimizer.lr=0.5")
    with pytest.raises(UserError, match="0 is of an earlier sweep, and trials of this one would be written over it"):
        check(search)


@pytest.mark.parametrize(
    ("folder", "subdir", "holds"),
    [
        ("", "${hydra.job.num}/x", "0/x"),
        ("", "job_${hydra.job.num}", "job_0"),
        ("", "seed_${seed}", "seed_2"),
        ("", "${logger}/${hydra.job.id}", "csv/0"),
        ("${logger}/s", "${hydra.job.num}", "csv/s/0"),
        ("limit_${data.limit}", "seed_${seed}", "limit_8/seed_2"),
    ],
)
def test_folders_may_be_named_by_anything(tmp_path, folder, subdir, holds):
    """Each job's is looked at as its launcher composes it; who goes on there is not refused."""
    leave(tmp_path / holds, "seed=2", "data.limit=8")
    check(sweep(tmp_path / folder, "seed=2,3", "data.limit=8", subdir=subdir))
    with pytest.raises(UserError, match=f"{holds} holds what kd-train without optimizer.lr=1 has made: choose"):
        check(sweep(tmp_path / folder, "seed=2,3", "data.limit=8", "optimizer.lr=1", subdir=subdir))


@pytest.mark.parametrize(
    ("subdir", "is_new", "composed"),
    [
        ("${hydra.job.num}", True, []),
        ("${seed}_${hydra:job.num}", True, ["seed=1"]),
        ("x_${seed}", True, ["seed=1", "seed=2", "seed=3"]),
        ("${hydra.job.num}", False, ["seed=2"]),
        ("./${hydra:job.num}/", False, ["seed=2"]),
        ("job_${hydra.job.num}", False, []),
        ("${logger}_${hydra.job.num}", False, ["seed=1", "seed=2", "seed=3"]),
    ],
)
def test_what_nobody_can_hold_is_not_looked_at(tmp_path, monkeypatch, subdir, is_new, composed):
    """A fifth of a second a job, before any begins."""
    asked = []
    loader = GlobalHydra.instance().config_loader()
    compose = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda config, told: asked.extend(told) or compose(config, told))
    (tmp_path / "1").mkdir()
    jobs = [[f"seed={seed}"] for seed in (1, 2, 3)]
    OmegaConf.register_new_resolver("hydra", lambda name: {"job.num": len(asked)}[name], replace=True)
    try:
        check_jobs(sweep(tmp_path, subdir=subdir), jobs, is_new)
    finally:
        setup_globals()  # Hydra's own
    assert asked == composed


def test_a_job_that_cannot_be_composed_says_so_itself(tmp_path, monkeypatch):
    """The others are looked at; and what Hydra holds is the launching command's again."""
    loader = GlobalHydra.instance().config_loader()
    compose, held = loader.load_sweep_config, []

    def refuses(config, told):
        if told == ["seed=1"]:
            raise ConfigCompositionException
        return compose(config, told)

    monkeypatch.setattr(loader, "load_sweep_config", refuses)
    monkeypatch.setattr(HydraConfig, "set_config", lambda self, config: held.append(config))
    leave(tmp_path / "x_2", "seed=2")
    asking = sweep(tmp_path, "seed=1,2", subdir="x_${seed}")
    check(asking)
    assert [config.get("seed") for config in held] == [2, 1]
    assert held[-1] is asking
    leave(tmp_path / "x_3", "seed=4")
    with pytest.raises(UserError, match="x_3 holds what kd-train with seed=4 has made"):
        check(sweep(tmp_path, "seed=1,3", subdir="x_${seed}"))


def test_what_lies_beside_is_no_trial(tmp_path):
    """Nor is a trial refused that is named by its values: it looks for itself."""
    for other in ("2026-01-01", "job_1", "other"):
        leave(tmp_path / other, "seed=1")
    for named in ("${hydra.job.num}", "lr_${optimizer.lr}"):
        check(sweep(tmp_path, "optimizer.lr=interval(0,1)", subdir=named, sweeper={"n_trials": 2}))


@pytest.mark.parametrize(
    "named", ["t_${hydra.job.num}", "${logger}_${hydra.job.num}", "${hydra.job.num}/x", "./t_${hydra:job.num}/"]
)
def test_trials_are_known_by_their_number(tmp_path, named):
    """One that drew what lay there was trained over it; another was refused, a trial less."""
    search = sweep(tmp_path, "optimizer.lr=interval(0,1)", subdir=named, sweeper={"n_trials": 2})
    leave(tmp_path / "other_x", "seed=1")
    check(search)
    told = re.sub(r"\$\{hydra.job.num\}", "12", named).replace("${logger}", "csv")
    leave(tmp_path / told, "optimizer.lr=0.5")
    with pytest.raises(UserError, match=r"12(/x)? is of an earlier sweep, and trials of this one would be written"):
        check(search)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("x_${seed}", "seed"),
        ("${optimizer.lr}", "optimizer.lr"),
        ("a/${hydra.job.num}", "job.num"),
        ("a/${hydra:job.id}", "job.id"),
        ("${hydra:runtime.choices.encoder}", "encoder"),
        ("${hydra.runtime.choices.encoder}_x", "encoder"),
        ("${encoder.hidden_size}", "encoder.hidden_size"),
        ("${oc.select:seed}", "seed"),
        ("${at:${seed}}", "seed"),
        ("${paths.output}/${name}/sweep_${now:%S}", ""),
        ("${limit}", ""),
        ("x_${seeds}", ""),
        ("seed", ""),
    ],
)
def test_a_folder_is_of_the_whole_sweep(told, name):
    """Of a search the defaults' settings, for all; of ``${hydra:job.num}`` a folder called None."""
    drawn = ["seed=1,2", "encoder=a,b", "optimizer.lr=interval(0,1)", "limit=3", "name=a,b"]
    asking = sweep(told, *drawn, sweeper={"n_trials": 2})
    says = re.escape(f"hydra.sweep.dir is {told}, and {name} differs between jobs, expected the folder of the whole")
    with pytest.raises(UserError, match=says) if name else nullcontext():
        check_is_of_all(asking)
    OmegaConf.update(asking, "paths.output", told)
    asking.hydra.sweep.dir = "${paths.output}/s"
    with pytest.raises(UserError, match="expected the folder of the whole sweep") if name else nullcontext():
        check_is_of_all(asking)
    for more in ("paths.output=a,b", "paths=a,b"):
        with pytest.raises(UserError, match=r"^paths\.output differs between jobs, expected one for the whole sweep$"):
            check_is_of_all(sweep("s", more))


@pytest.mark.parametrize("folder", ["s", "it's", "2026_11", "a b,c=d", "x\\", "${paths.output}/s"])
def test_jobs_have_the_folder_of_their_sweep(folder):
    """Of ``name=a,b``, ``paths.output=a,b`` they lay elsewhere, ended well, and were said to have never started."""
    asking = sweep(folder, "name=a,b")
    OmegaConf.update(asking, "hydra.overrides.hydra", ["hydra.launcher.n_jobs=2"])
    OmegaConf.set_readonly(asking.hydra, True)
    fix_folder(asking)
    *others, told = as_told(asking.hydra.overrides.hydra)
    assert others == ["hydra.launcher.n_jobs=2"]
    found = OverridesParser.create().parse_override(told)
    assert (found.get_key_element(), found.value()) == ("hydra.sweep.dir", folder.replace("${paths.output}", "outputs"))
    assert asking.hydra.sweep.dir == found.value()


def test_two_jobs_of_a_sweep_share_no_folder(tmp_path):
    """The later wrote over the earlier, both ended well, and the table had one."""
    sharing = sweep(tmp_path, "seed=1,2", "data.limit=4,8", subdir="seed_${seed}")
    with pytest.raises(UserError, match=r"jobs 0 and 1 would both write to .*/seed_1: with \$\{hydra.job.num\} in"):
        check(sharing)


def test_a_folder_is_known_however_it_is_called(tmp_path):
    """By links, two jobs had one folder, and a job one that is outside; a sweep's own may well be a link."""
    for name in ("s/seed_1", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "s" / "seed_2").symlink_to("seed_1")
    (tmp_path / "s" / "seed_3").symlink_to("../elsewhere")
    (tmp_path / "link").symlink_to("s")
    by_seed = {"subdir": "seed_${seed}"}
    with pytest.raises(UserError, match=r"jobs 0 and 1 would both write to .*/s/seed_2: with"):
        check(sweep(tmp_path / "s", "seed=1,2", **by_seed))
    with pytest.raises(UserError, match=r"subdir of job 1 is .*/s/seed_3, expected a folder below hydra\.sweep\.dir"):
        check(sweep(tmp_path / "s", "seed=1,3", **by_seed))
    check(sweep(tmp_path / "link", "seed=1,4", **by_seed))


def test_a_run_and_a_sweep_share_no_folder(tmp_path):
    """Each leaves a ``report.md``."""
    leave(tmp_path / "run", "seed=1")
    with pytest.raises(UserError, match=r"run holds what a single run has made: choose another hydra\.sweep\.dir"):
        check(sweep(tmp_path / "run", "seed=1"))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    with pytest.raises(UserError, match=r"sweep holds what a sweep has made: choose another hydra\.run\.dir"):
        take(tmp_path / "sweep", "seed=1")
    take(tmp_path / "sweep", "seed=1", mode=RunMode.MULTIRUN)
    take(tmp_path / "sweep" / "0", "seed=1")


def test_a_job_that_is_refused_its_folder_is_told_at_the_end_of_its_sweep(tmp_path, monkeypatch, capsys):
    """By a process that did not see it; a search of two whose trials share a folder ended well, with one."""
    leave(tmp_path / "s", "seed=1")
    for number in (10, 9):
        now = {"mode": RunMode.MULTIRUN, "job": {"num": number}, "sweep": {"dir": "."}, "launcher": {"_target_": "x"}}
        now["runtime"] = {"output_dir": str(tmp_path / "s"), "cwd": str(tmp_path)}  # hydra.job.chdir may be true
        now["overrides"] = {"task": [f"seed={number}"]}
        monkeypatch.setattr(HydraConfig, "get", lambda now=now: OmegaConf.create(now))

        def take(folder):
            raise NotOursError(f"{folder.name} is another's")

        with pytest.raises(NotOursError), told_in_one_line("train", take):
            pytest.fail("it has begun")
    for sweeper in ({"_target_": "mine.Sweeper"}, {}):
        node = {**now, "sweeper": sweeper, "overrides": {"task": ["seed=9,10"]}, "sweep": {"dir": str(tmp_path)}}
        monkeypatch.setattr(sweeps, "begun", [sweeps.Sweep(OmegaConf.create({"hydra": node}), 0.0)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            end_of_sweep("train")
        last = capsys.readouterr().err
        if sweeper:
            assert not list(tmp_path.glob(".*.refused"))
            assert ended.value.code == 2
            assert "2 of 3 jobs did not finish: 9 (seed=9, its folder is not its own), 10 (seed=10, its" in last
            assert "; mend them, then the same command" in last
            assert "error.txt" not in last
        else:
            assert "2 of 2 jobs did not finish: 0 (seed=9, not started)" in last, "it is told once"


def test_a_sweep_of_which_each_job_was_refused_its_folder_had_jobs(tmp_path):
    """Of a search it was said that none of its trials had finished, and not why; its notes stayed."""
    node = {"sweep": {"dir": str(tmp_path)}, "sweeper": {"n_trials": 1}, "overrides": {"task": []}}
    search = sweeps.Sweep(OmegaConf.create({"hydra": node}), 0.0)
    assert not search.has_jobs()
    (tmp_path / ".0.refused").write_text('{"told": ["seed=1"], "error": "it is another\'s"}')
    assert search.has_jobs()
    assert [(job.name, job.state, job.error) for job in search.jobs()] == [
        ("0", "its folder is not its own", "refused: it is another's")
    ]
    search.remove_notes()
    assert not search.has_jobs()


def refusal(folder, number, told):
    """Leave the note of a job that was refused its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{number}.refused").write_text(json.dumps({"told": told, "error": "it is another's"}))


def test_a_refusal_is_of_one_sweep(tmp_path):
    """Known by what it was told, in a folder that an earlier one had; half of a note is none."""
    for number, name in enumerate(("b", "c")):
        refusal(tmp_path, number, [f"experiment={name}"])
    (tmp_path / ".3.refused").write_text("{")

    def told(planned):
        return [job.told for job in refused_jobs(tmp_path, planned)]

    assert told(None) == [["experiment=b"], ["experiment=c"]]
    assert told([["experiment=c"]]) == [["experiment=c"]]
    assert told([["experiment=d"]]) == []


def test_who_was_refused_and_has_begun_since_is_told_once(tmp_path):
    """Another command, told the same, has the folder: two of two jobs, and not two of three."""
    leave(tmp_path / "0", "seed=1")
    refusal(tmp_path, 0, ["seed=1"])
    refusal(tmp_path, 1, ["seed=2"])
    node = {"sweep": {"dir": str(tmp_path)}, "sweeper": {}, "overrides": {"task": ["seed=1,2"]}}
    for sweeper, refused in (({}, ["seed=2"]), ({"n_trials": 2}, ["seed=1", "seed=2"])):  # trials may be told the same
        jobs = sweeps.Sweep(OmegaConf.create({"hydra": node | {"sweeper": sweeper}}), 0.0).jobs()
        assert [(job.told, job.state) for job in jobs] == [
            (["seed=1"], "finished"),
            *(([told], "its folder is not its own") for told in refused),
        ]


@pytest.mark.parametrize(("checkpoint", "refused"), [(True, True), (False, False)])
def test_what_is_not_finished_counts_by_its_checkpoint(tmp_path, checkpoint, refused):
    """What was refused, or crashed at once, is mended in its place."""
    leave(tmp_path / "0", "seed=1", status="failed", checkpoint=checkpoint)
    jobs = partial(check, sweep(tmp_path, "seed=2,3"))
    for asks in (jobs, partial(take, tmp_path / "0", "seed=2")):
        if refused:
            with pytest.raises(UserError, match="0 holds what kd-train with seed=1 has made"):
                asks()
        else:
            asks()


def test_soft_targets_are_of_one_model(tmp_path):
    """They are a folder among what ``kd-predict`` has made."""
    take(tmp_path, "run=a", command="predict")
    (tmp_path / "toy-train").mkdir()
    (tmp_path / "toy-train" / "manifest.json").touch()
    with pytest.raises(NotOursError, match=r"holds what kd-predict with run=.*a has made"):
        take(tmp_path, "run=b", command="predict")


def test_a_run_that_has_failed_is_mended_beside_its_parts(tmp_path):
    """Its summary says how it stands."""
    leave(tmp_path, "seed=1", status="failed")
    (tmp_path / "identity").touch()
    take(tmp_path, "seed=2")


def test_a_folder_is_of_the_sweeps_of_one_command(tmp_path):
    """What was missing of the first was told no more: its jobs are known by what the second left of itself."""
    check(sweep(tmp_path, "seed=1,2"))
    noted = {"hydra": {"job": {"config_name": "train"}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(noted))
    check(sweep(tmp_path, "seed=2,3"))
    with pytest.raises(UserError, match="holds what a sweep of kd-train has made: choose another hydra"):
        check(sweep(tmp_path, "run=a,b", subdir="p${hydra.job.num}", command="predict"))


@pytest.mark.parametrize(
    "part",
    ["fit.json", "encoder/model.safetensors", "manifest.json", "checkpoints/last.ckpt", ".hydra/overrides.yaml"],
)
def test_parts_of_runs_are_no_folders_of_others(tmp_path, part):
    """A student, a fit in the store, soft targets: a run was trained over them."""
    (tmp_path / part).parent.mkdir(exist_ok=True)
    (tmp_path / part).touch()
    with pytest.raises(NotOursError, match="holds what another command has made"):
        take((tmp_path / part).parent, "seed=1")


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_who_has_begun_keeps_the_folder(tmp_path, status):
    """A distillation that was killed has its checkpoint in the store, and goes on here."""
    leave(tmp_path, "seed=1", status=status, command="distill")
    take(tmp_path, "seed=1", command="distill")
    with pytest.raises(NotOursError, match="holds what kd-distill with seed=1 has made"):
        take(tmp_path, "seed=2", command="distill")


def test_soft_targets_lie_in_the_store(tmp_path):
    """The first wave of two leaves no scores, and the second may have its folder."""
    leave(tmp_path, "seed=1", "until=soft_targets")
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"until": "soft_targets"}))
    take(tmp_path, "seed=1")


def test_what_was_skipped_is_no_work(tmp_path):
    leave(tmp_path / "run", "seed=1")
    leave(tmp_path / "0", "seed=1", status="running")
    (tmp_path / "0" / "finished_in.txt").write_text("../run\n")
    check(sweep(tmp_path, "seed=2,3"))


@pytest.mark.parametrize("mode", [RunMode.RUN, RunMode.MULTIRUN])
def test_a_job_has_its_folder_for_itself(tmp_path, mode):
    """Not a file is changed of another's; a default may be told, or not."""
    which = "run" if mode is RunMode.RUN else "sweep"
    own, new = tmp_path / "own", tmp_path / "new"
    leave(own, "ckpt_path=last")
    (own / ".running").touch()  # it was killed
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    with pytest.raises(NotOursError, match=rf"holds what kd-train without seed=2 has made: .* hydra\.{which}\.dir"):
        take(own, "seed=2", mode=mode)
    for held in ("job", "fit"):
        with locked_if_free(own / held), pytest.raises(NotOursError, match="is of a command that goes on: wait"):
            take(own, "seed=1", mode=mode)
    (own / ".fit.lock").unlink(missing_ok=True)
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    take(own, "seed=1", mode=mode)
    assert overrides_of(own) == ["seed=1"]
    take(new, "seed=2", "name='x_${seed}'", mode=mode)
    assert overrides_of(new) == ["seed=2", "name='x_${seed}'"], "as it was told"
    assert command_of(new) == "train"
    assert OmegaConf.load(new / ".hydra" / "config.yaml").seed == 2
    assert sorted(os.listdir(new)) == [".hydra"]


def test_settings_that_are_told_alike_may_differ(tmp_path, monkeypatch):
    """By a variable of the environment, or what a default has become: the values count."""
    monkeypatch.setenv("SEED", "1")
    told = "seed=${oc.decode:${oc.env:SEED}}"
    leave(tmp_path, told)
    summary = json.loads((tmp_path / "summary.json").read_text())
    settings = OmegaConf.to_container(composed(told), resolve=True)
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"config_hash": config_hash(settings)}))
    take(tmp_path, told)
    monkeypatch.setenv("SEED", "2")
    with pytest.raises(NotOursError, match="holds what kd-train with other settings or data has made"):
        take(tmp_path, told)


def test_data_of_another_place_make_another_result(tmp_path):
    """As ``skip_finished`` takes it; what is told of a default's place is no difference in words."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    leave(tmp_path / "run", f"data.root={here}")
    with pytest.raises(NotOursError, match="holds what kd-train with other settings or data has made"):
        take(tmp_path / "run", f"data.root={there}")
    take(tmp_path / "run", f"data.root={here}")


def test_a_wrong_setting_is_told_and_nothing_is_changed(tmp_path):
    """The folder is not known to be its own, so it is not noted there as what failed; a sweep's other jobs are run."""
    leave(tmp_path / "0", "seed=1")
    with pytest.raises(NotOursError, match="Interpolation key 'nope' not found"):
        take(tmp_path / "0", "seed=${nope}")
    assert overrides_of(tmp_path / "0") == ["seed=1"]
    check(sweep(tmp_path, "seed='${nope}'"))


def test_one_who_is_led_is_refused_as_its_first_is(tmp_path, monkeypatch):
    """It waited ten minutes for the first; what is noted is the first's to write, and who we have started is ours."""
    leave(tmp_path, "seed=1")
    before = (tmp_path / ".hydra" / "overrides.yaml").stat().st_mtime_ns
    for seat, refused in ((Seat(1, 2, 1, 0, "slurm"), True), (Seat(1, 2, 1, 0, "us"), False)):
        now = {"mode": RunMode.RUN, "runtime": {"output_dir": str(tmp_path)}, "job": {"config_name": "train"}}
        now["overrides"] = {"task": ["seed=2"]}
        for module in (occupied, ending):
            monkeypatch.setattr(module, "own_seat", lambda seat=seat: seat)
        monkeypatch.setattr(HydraConfig, "get", lambda now=now: OmegaConf.create(now))
        with pytest.raises(SystemExit) if refused else nullcontext():  # noqa: SIM117
            with told_in_one_line("train", partial(check_is_ours, composed("seed=2")), pytest.fail):
                assert not refused
    assert (tmp_path / ".hydra" / "overrides.yaml").stat().st_mtime_ns == before


def test_an_evaluation_is_of_a_model_however_that_is_told(tmp_path):
    """With a slash at its end it was another's, and refused."""
    model = str(tmp_path / "a")
    leave(tmp_path / "e", f"run={model}", command="evaluate")
    (tmp_path / "e" / "summary.json").rename(tmp_path / "e" / "evaluation.json")
    for spelled in (f"{model}/", os.path.relpath(model)):
        take(tmp_path / "e", f"run={spelled}", command="evaluate")
    with pytest.raises(NotOursError, match="e holds what kd-evaluate with run="):
        take(tmp_path / "e", f"run={model}2", command="evaluate")


def test_an_evaluation_is_not_written_over(tmp_path):
    leave(tmp_path, "seed=1", command="evaluate")
    (tmp_path / "summary.json").rename(tmp_path / "evaluation.json")
    (tmp_path / ".hydra" / "config.yaml").write_text("{}")  # its hash is what counts
    take(tmp_path, "seed=1", command="evaluate")
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[seed=1]")
    with pytest.raises(NotOursError, match="holds what kd-evaluate with seed=1 has made"):
        take(tmp_path, "seed=2", command="evaluate")


@pytest.mark.parametrize(("command", "made"), [("predict", "toy-validation.csv"), ("evaluate", "evaluation.json")])
def test_predictions_are_of_one_model(tmp_path, command, made):
    """A report took those of one for another's: beside them stood what the later command had been told."""
    take(tmp_path, "run=a", command=command)
    take(tmp_path, "run=b", command="predict")
    assert overrides_of(tmp_path) == ["run=b"], "nothing was made"
    (tmp_path / made).write_text("{}")
    if command == "predict":
        (tmp_path / "error.txt").touch()
        take(tmp_path, f"run={os.path.abspath('b')}", "split=train", command="predict")
    for other in ("predict", "evaluate"):
        with pytest.raises(NotOursError, match=r"holds what kd-predict (with run=.*b )?has made: choose another"):
            take(tmp_path, "run=a", command=other)


@pytest.mark.parametrize("text", [None, "a: [1", "", "hydra: {}", "\0"])
def test_who_has_made_it_may_not_be_known(tmp_path, text):
    """Nor is there a traceback; of a version that noted no hash nothing is known."""
    leave(tmp_path, "seed=1")
    noted = tmp_path / ".hydra" / "hydra.yaml"
    if text is None:
        noted.unlink()
    else:
        noted.write_text(text)
    with pytest.raises(NotOursError, match="holds what another command has made"):
        take(tmp_path, "seed=2")
    for damaged in (json.dumps({"status": "finished"}), "{"):
        (tmp_path / "summary.json").write_text(damaged)
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "last.ckpt").touch()
        with pytest.raises(NotOursError, match="holds what another command has made"):
            take(tmp_path, "seed=2")
    take(tmp_path, "seed=1")


def test_what_has_made_nothing_is_mended_in_its_place(tmp_path):
    """An evaluation of a model that is misspelt, a fit without a checkpoint, a first wave."""
    take(tmp_path / "typo", "run=typo", command="evaluate")
    (tmp_path / "typo" / "error.txt").touch()
    take(tmp_path / "typo", "run=a", command="evaluate")
    leave(tmp_path / "fit", "seed=1", status="interrupted")
    take(tmp_path / "fit", "seed=2")
    leave(tmp_path / "wave", "seed=1", "+until=soft_targets", status="interrupted", command="distill")
    take(tmp_path / "wave", "seed=1", command="distill")


@pytest.mark.parametrize("in_the_way", [".job.lock/x", ".running/x", ".hydra"])
def test_a_folder_that_cannot_be_had_is_told_as_one(tmp_path, in_the_way):
    """A lock of another user, a full table of files: the sweep stopped there, or ended well with a job less."""
    (tmp_path / "0" / in_the_way).parent.mkdir(parents=True)
    (tmp_path / "0" / in_the_way).touch()
    if in_the_way.startswith(".running"):
        (tmp_path / "0" / ".running" / "x").unlink()
        (tmp_path / "0" / ".running").rmdir()
        (tmp_path / "0" / ".running").symlink_to(tmp_path / "nowhere" / "x")
    with pytest.raises(NotOursError, match="; check that the path is right, and that it can be written"):
        take(tmp_path / "0", "seed=1", mode=RunMode.MULTIRUN)
    assert not (tmp_path / "0" / ".hydra" / "overrides.yaml").exists(), "it has not begun"


def test_a_job_begins_without_what_was_found_elsewhere(tmp_path, monkeypatch):
    """What it makes counts, not where another lies to which an earlier one pointed; one that cannot begin leaves it."""
    (tmp_path / "finished_in.txt").write_text("../run\n")
    with monkeypatch.context() as full:
        full.setattr(notes, "write_text", lambda path, text: (tmp_path / "nowhere" / "x").write_text(text))
        with pytest.raises(NotOursError):
            take(tmp_path, "seed=1")
    assert (tmp_path / "finished_in.txt").exists()
    take(tmp_path, "seed=1")
    assert not (tmp_path / "finished_in.txt").exists()


def test_a_log_begins_with_its_job(tmp_path, monkeypatch):
    """Of who is refused there is none; one that cannot be written is told before there is work."""
    leave(tmp_path / "0", "seed=1")
    log = tmp_path / "0" / "train.log"
    handler = logging.FileHandler(log, delay=True)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    with pytest.raises(NotOursError):
        take(tmp_path / "0", "seed=2")
    assert not log.exists()
    take(tmp_path / "0", "seed=1")
    assert log.read_text() == ""
    log.unlink()
    log.mkdir()
    with pytest.raises(NotOursError, match=r"Is a directory: .*train\.log"):
        take(tmp_path / "0", "seed=1")


@pytest.mark.parametrize("error", [UserError("it has diverged"), OSError(2, "it has diverged", "x")])
def test_a_log_says_what_ended_its_run(tmp_path, monkeypatch, error):
    """``failed; its log says why``, and it did not; the log of another's folder says nothing of who was refused it."""
    handler = logging.FileHandler(tmp_path / "train.log", delay=True)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    now = {"mode": RunMode.RUN, "runtime": {"output_dir": str(tmp_path)}, "job": {"config_name": "train"}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))

    def refuse(folder):
        raise NotOursError("another's")

    with pytest.raises(SystemExit), told_in_one_line("train", refuse):
        pytest.fail("it has begun")
    assert not (tmp_path / "train.log").exists()
    with pytest.raises(SystemExit), told_in_one_line("train"):
        raise error
    assert (tmp_path / "train.log").read_text().startswith("it has diverged")


@pytest.mark.parametrize(
    "told",
    ["teacher.members=3", "teacher.members=[a,b]", "teacher.members={a: 3}", "task=3", "run=${oc.env:NOT_THERE}"],
)
def test_settings_of_the_wrong_kind_are_those_of_another(tmp_path, told):
    """``'int' object has no attribute 'values'``."""
    leave(tmp_path, "seed=1")
    with pytest.raises(NotOursError, match=r"holds what kd-train with seed=1|Environment variable 'NOT_THERE'"):
        take(tmp_path, told)
    with pytest.raises(NotOursError) if "NOT_THERE" in told else nullcontext():
        take(tmp_path / "new", told)


def test_a_model_is_told_by_the_number_of_its_job(tmp_path, monkeypatch):
    """In a sweep's folder: ``expected str, bytes or os.PathLike object, not int``."""
    monkeypatch.chdir(tmp_path)
    take(tmp_path / "e", "run=0", command="evaluate")
    assert model_of(tmp_path / "e") == os.path.realpath("0")
    (tmp_path / "e" / "evaluation.json").write_text("{}")
    with pytest.raises(NotOursError, match="e holds what kd-evaluate with run=0 has made"):
        take(tmp_path / "e", "run=1", command="evaluate")
    take(tmp_path / "n", "run=null", command="evaluate")
    cfg = OmegaConf.create({"run": 0})
    resolve(cfg)
    assert cfg.run == "0"


def test_what_a_refused_evaluation_read_is_no_settings_of_who_comes_after(tmp_path):
    """A run was refused its own results: they were of an evaluation of ``typo``."""
    take(tmp_path, "run=typo", command="evaluate")
    take(tmp_path, "seed=1")
    (tmp_path / "metrics.csv").touch()
    (tmp_path / "summary.json").write_text("{}")
    take(tmp_path, "seed=1")


def test_a_model_is_known_by_its_folder(tmp_path, monkeypatch):
    """A link may lead elsewhere, and a path be seen from another place."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "latest").symlink_to("a")
    made = tmp_path / "made"
    take(made, "run=latest", command="predict")
    (made / "validation.csv").touch()
    take(made, "run=a/", command="predict")
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("b")
    for other in (["run=latest"], []):  # the latter trains, in the model's own folder
        with pytest.raises(NotOursError, match=r"made holds what kd-predict with run=\S*a has made"):
            take(made, *other, command="predict")
        monkeypatch.chdir(tmp_path / "a")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "x"), KeyboardInterrupt()])
def test_who_could_not_take_a_folder_leaves_its_mark(tmp_path, monkeypatch, error):
    """The job of before was killed: it counted as finished. A full disk ends this job, not its sweep."""
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"mode": RunMode.RUN}))

    def fails(folder):
        raise error

    full = isinstance(error, OSError)
    for marked in (True, False):
        folder = tmp_path / str(marked)
        folder.mkdir()
        if marked:
            (folder / ".running").touch()
        said = "No space left on device: x; make room, then the same command again"
        with pytest.raises(NotOursError, match=said) if full else pytest.raises(KeyboardInterrupt):  # noqa: SIM117
            with marked_as_running(folder, tell=fails):
                pytest.fail("it has begun")
        assert (state_of(folder) == "killed") is (marked or not full)


def test_who_is_started_again_finds_his_own_folder(tmp_path, monkeypatch):
    """A file server keeps the lock of a machine that is gone."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(jobs_of_sweeps, "LATE", 0.1)
    with locked_if_free(tmp_path / "job"):
        take(tmp_path, "seed=1")
        assert (tmp_path / ".job.lock").exists()
    assert overrides_of(tmp_path) == ["seed=1"]
    assert state_of(tmp_path) == "finished"


@pytest.mark.parametrize(("command", "state"), [("train", "running"), ("distill", "running"), ("predict", "finished")])
def test_a_single_run_is_seen_while_it_runs(tmp_path, monkeypatch, command, state):
    """Others with ``skip_finished=true`` leave it to it; killed, it is told from one that runs."""
    now = {"mode": RunMode.RUN, "runtime": {"output_dir": str(tmp_path)}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(now))
    if state == "running":  # in the place of a job that had failed
        (tmp_path / "error.txt").touch()
    with told_in_one_line(command):
        assert state_of(tmp_path) == state
    assert not os.listdir(tmp_path)


def test_who_is_gone_on_with_by_another_runs(tmp_path):
    """``ckpt_path=last`` trains in the folder of a job that was killed, whose mark lies there."""
    (tmp_path / ".running").touch()
    assert state_of(tmp_path) == "killed"
    with locked_if_free(tmp_path / "fit"):
        assert state_of(tmp_path) == "running"
