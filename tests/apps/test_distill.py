"""kd-distill: what it builds, what it finds, what it tells."""

import gc
import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file

from kd_lightning.apps.fits.fit import Fit
from kd_lightning.apps.fits.trained_model import TrainedModel
from kd_lightning.apps.stages.plan import Plan
from kd_lightning.callbacks import ResumeCheckpoint
from kd_lightning.data import SoftTargets
from kd_lightning.data.soft_targets import chunks
from kd_lightning.errors import Terminated, UserError
from kd_lightning.files import file_hash, read_json
from kd_lightning.systems import NLUSystem, Teacher
from kd_lightning.tasks import glue_average

SMALL = ["task=[animals,beasts]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1"]


def store(workplace, stage):
    """Return the folder of the only fit of a stage in the store."""
    (folder,) = (workplace / "outputs" / "store" / "fits").glob(f"{stage.replace(' ', '-')}-*")
    return folder


def test_a_distillation_tells_whether_it_was_worth_it(kd, fits, workplace):
    """Roles swapped, another metric, another model's score: the table is what all of this is for."""
    folder = kd("distill", "task=[animals,close]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=2")
    assert fits == ["teacher animals", "teacher close", "student", "baseline"]
    summary = read_json(folder / "summary.json")
    found = {
        role: read_json(store(workplace, stage) / "fit.json")
        for role, stage in (("student", "student"), ("baseline", "baseline"))
    }
    for task, metric in (("animals", "accuracy"), ("close", "pearson")):
        row = summary["tasks"][task]
        teacher = read_json(store(workplace, f"teacher {task}") / "fit.json")
        assert row["metric"] == metric
        assert row["teacher"] == teacher["scores"][task][metric]
        for role, result in found.items():
            assert row[role] == result["scores"][task][metric], role
            assert row["metrics"][role] == result["scores"][task]
        assert row["ensemble"] is None
    for role, result in found.items():
        assert summary["average"][role] == pytest.approx(glue_average(result["scores"]))
    assert summary["status"] == "finished"
    assert summary["parameters"]["student"] == found["student"]["parameters"]
    assert summary["parameters"]["student_without_embeddings"] < summary["parameters"]["student"]
    assert min(summary["latency_ms"].values()) > 0
    for key in ("experiment", "system", "seed", "config_hash", "seconds", "data", "versions"):
        assert summary[key], key
    report = (folder / "report.md").read_text()
    assert "| animals (accuracy) |" in report
    assert "`ensemble`" not in report
    for name in ("config.yaml", "metrics.csv", "student/encoder/model.safetensors"):
        assert (folder / name).is_file(), name
    modes = {path.stat().st_mode for path in workplace.glob("outputs/**/*") if path.suffix in (".json", ".safetensors")}
    assert len(modes) == 1, "weights that only their owner can read"


def test_the_student_that_is_handed_over_is_the_one_in_the_table(kd):
    folder = kd("distill", *SMALL)
    evaluation = read_json(kd("evaluate", f"run={folder}") / "evaluation.json")
    summary = read_json(folder / "summary.json")
    for name, task in summary["tasks"].items():
        assert evaluation["scores"][name] == pytest.approx(task["metrics"]["student"], abs=1e-6)
    assert evaluation["average"] == pytest.approx(summary["average"]["student"], abs=1e-6)


def test_students_of_one_task_each_are_handed_over_and_found(kd):
    folder = kd("distill", *SMALL, "student.scope=single", "baseline=false", "logger=tensorboard")
    summary = read_json(folder / "summary.json")
    assert list(Path(summary["folders"]["student"]["beasts"][0]).glob("tensorboard/events.*"))
    assert not list(folder.glob("student-*/tensorboard")), "a dashboard would show the fit twice"
    assert summary["tasks"]["animals"]["baseline"] is None
    assert (folder / "metrics-beasts.csv").is_file()
    evaluation = read_json(kd("evaluate", f"run={folder}") / "evaluation.json")
    for name, task in summary["tasks"].items():
        assert evaluation["scores"][name] == pytest.approx(task["metrics"]["student"], abs=1e-6)
    kd("predict", f"run={folder}", "output=predicted")


def test_teacher_and_student_are_what_their_settings_say(kd, workplace):
    """A teacher with the student's encoder, optimiser or epochs: every gain is gone, and nobody sees why."""
    kd("distill", *SMALL, "teacher.trainer.max_epochs=2", "teacher.batching.batch_size=16", "seed=5")
    teacher, student, baseline = (store(workplace, stage) for stage in ("teacher animals", "student", "baseline"))
    encoders = [read_json(folder / "encoder" / "config.json") for folder in (teacher, student, baseline)]
    assert [(c["hidden_size"], c["num_hidden_layers"]) for c in encoders] == [(48, 2), (32, 1), (32, 1)]
    settings = [OmegaConf.load(folder / "config.yaml") for folder in (teacher, student, baseline)]
    assert [c.optimizer.lr for c in settings] == [2e-3, 1e-4, 1e-4]
    assert [c.seed for c in settings] == [1, 5, 5]
    # 96 pairs in both orders, by 16, twice; 144 pairs in both orders, by 32, once.
    assert [read_json(folder / "fit.json")["steps"] for folder in (teacher, student, baseline)] == [24, 9, 9]


def test_the_length_of_the_student_is_not_the_teachers(kd, workplace):
    """Teachers stopped after the student's few steps, or on its share of the data: weak, and nobody sees why."""
    short = ["trainer.max_epochs=-1", "trainer.max_steps=2", "trainer.limit_train_batches=2"]
    kd("distill", "task=[animals]", "teacher.trainer.max_epochs=2", *short)
    steps = {name: read_json(store(workplace, name) / "fit.json")["steps"] for name in ("teacher animals", "student")}
    assert steps == {"teacher animals": 12, "student": 2}


def test_own_code_is_part_of_what_a_fit_is_of(kd, fits, workplace, monkeypatch):
    """A mistake in a loss of one's own, mended: the student of the old loss would be found in the store."""
    monkeypatch.syspath_prepend(str(workplace))
    code = "import torch\n\n\nclass Mine(torch.nn.Module):\n    def forward(self, s, t):\n        return {}\n"
    own = "distill_loss._target_=mine_losses.Mine"
    for sign in ("((s - t) ** 2).sum(-1)", "((s - t) ** 2).mean(-1)"):
        (workplace / "mine_losses.py").write_text(code.format(sign))
        monkeypatch.delitem(sys.modules, "mine_losses", raising=False)
        kd("distill", *SMALL, "~distill_loss.temperature", own)
    assert [stage for stage in fits if stage == "student"] == ["student", "student"]
    assert len([stage for stage in fits if stage.startswith("teacher")]) == 2


def test_teachers_leave_the_memory_before_the_student_is_trained(kd, monkeypatch):
    """Eight large teachers beside one small student; or beside each other, where they label and are scored."""
    held, labelling = [], []
    run, logits = Fit.run, TrainedModel.logits

    def count(model, *args, **settings):
        found = logits(model, *args, **settings)
        gc.collect()
        labelling.append(sum(type(some) is Teacher for some in gc.get_objects()))
        return found

    def record(fit, folder, checkpoint=None):
        gc.collect()
        held.append(sum(type(found) is Teacher for found in gc.get_objects()))
        return run(fit, folder, checkpoint)

    monkeypatch.setattr(Fit, "run", record)
    monkeypatch.setattr(TrainedModel, "logits", count)
    kd("distill", *SMALL, "teacher.seeds=[1,2]")
    assert held[4] <= held[1]  # the student's fit against the second teacher's
    assert len(labelling) == 8  # four teachers, their training and their validation rows
    assert max(labelling) <= labelling[0]


def test_the_baseline_differs_by_its_teacher_alone(kd, workplace):
    """With another optimiser, encoder or sampler the gain is not the teacher's."""
    kd("distill", *SMALL)
    student, baseline = (OmegaConf.load(store(workplace, name) / "config.yaml") for name in ("student", "baseline"))
    different = {name for name in student if student[name] != baseline[name]}
    assert different == {"system", "batching"}
    assert baseline.system._target_ == "kd_lightning.systems.Teacher"
    assert baseline.system.reduction == student.system.reduction
    assert baseline.system.head == student.system.head
    assert {n for n in student.batching if student.batching[n] != baseline.batching[n]} == {"epoch_rows"}


def test_the_student_learns_from_the_mean_of_its_teachers(kd, monkeypatch):
    """The first member alone under the name of an ensemble."""
    taught = {}
    build_data = Fit.build_data

    def record(fit):
        if fit.stage == "student":
            taught.update(fit.soft_targets)
        return build_data(fit)

    monkeypatch.setattr(Fit, "build_data", record)
    kd("distill", "task=[animals]", *SMALL[1:], "teacher.seeds=[1,2]", "baseline=false")
    members = sorted(Path("outputs/store/soft_targets").glob("animals-train-*"))
    assert len(members) == 2
    found = taught["animals", "train"]
    one, two = (SoftTargets.open(folder) for folder in members)
    first, second, taught_by = (s.logits[s.find(one.example_id)].softmax(-1) for s in (one, two, found))
    torch.testing.assert_close(taught_by, (first + second) / 2)


def test_single_is_found_where_teachers_were_trained(kd, fits):
    """BAM's first row is its teachers: the same settings and data are the same fit, whatever they are called."""
    same = ["encoder.hidden_size=48", "encoder.num_layers=2", "optimizer.lr=2e-3", "task_sampler=size_power"]
    kd("distill", *SMALL, "baseline=false")
    fits.clear()
    kd("distill", *SMALL, "system=teacher", "student.scope=single", *same)
    assert fits == []


def test_mistakes_of_the_student_are_told_before_the_teachers_are_trained(kd, fits, workplace):
    """After hours of training teachers."""
    wrong = {
        "annealing=constant annealing.gold_weight=2": "gold_weight is 2",
        "distill_loss.temperature=0": r"^system.distill_loss.temperature is 0",
        "encoder.num_heads=3": "32",
        "student.scope=both": "scope is 'both', expected single",
        "system.reduction=average": "reduction is 'average'",
        "+optimizer.optimizer.speed=2": "speed",
        "accelerator=gpu": "gpu",
        "task_sampler.exponent=2": r"^task_sampler.exponent is 2",
        "accelerator=ddp_cpu batching.batch_size=31": "31, expected a multiple of the 2 processes",
        "trainer.limit_train_batches=0.01": "expected at least one of the . batches of an epoch",
        "optimizer.optimizer._target_=torch.optim.Adamax": r"optimizer.*: Adamax has no setting 'fused'",
        "+optimizer.optimizer.zzz=2": r"^optimizer.optimizer: AdamW has no setting 'zzz'$",
        "+optimizer.optimizer.capturabl=true": r"^optimizer.optimizer: AdamW has .*; did you mean 'capturable'\?$",
        "+system.reductio=mean": r"^system: \w+ has no setting 'reductio'; did you mean 'reduction'\?$",
        "+distill_loss.gold_weight=2": r"^system.distill_loss: SoftCrossEntropy has no setting 'gold_weight'$",
        "+system.head.dropot=1": r"^system.head: linear_head has no setting 'dropot'; did you mean 'dropout'\?$",
        "system.head.dropout=7": r"^system\.head\.dropout ",
        "+optimizer.optimizer.param=1": r"^optimizer.optimizer: AdamW has no setting 'param'(?!.*params)",
        "optimizer.optimizer._target_=mine.Optimizer": "Error loading 'mine.Optimizer'|No module named 'mine'",
        "batching.unlabelled=true": "task animals has no unlabelled split: expected it at .*, or data.unlabelled=FILE",
        "distill_loss._target_=torch.nn.MSELoss ~distill_loss.temperature": r"distill_loss gives \(\) for logits",
    }
    for overrides, message in wrong.items():
        with pytest.raises(UserError, match=message):
            kd("distill", *SMALL, *overrides.split())
        if not any(name in overrides for name in ("scope", "annealing", "distill_loss", "unlabelled")):
            with pytest.raises(UserError, match=message):
                kd("train", *SMALL[:2], *overrides.split())
    assert not list(workplace.glob("outputs/distill/*/summary.json")), "no run has begun"
    (workplace / "beasts-train.csv").write_text("first,second,label\nred cat,,same\n")
    with pytest.raises(UserError, match=r"beasts-train.csv, line 2, column 'second'"):
        kd("distill", *SMALL)
    assert fits == []


def test_a_bilstm_that_teaches_a_bilstm_is_told(workplace, caplog):
    """Who forgets the teacher's encoder has hours of a teacher that knows no more than its student."""
    settings = ["data=files", "task=[animals]", "system=bilstm", "encoder=bilstm"]
    for more, expected in (([], 1), (["encoder@teacher.encoder=tiny"], 0)):
        caplog.clear()
        with (
            initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"),
            caplog.at_level("INFO"),
        ):
            overrides = [f"hydra.searchpath=[file://{workplace}/mine]", *settings, *more]
            Plan.of(OmegaConf.to_container(compose("distill", overrides=overrides), resolve=True))
        assert caplog.text.count("the teacher is a BiLSTM, too") == expected


def test_a_run_that_fails_says_so(kd, workplace, monkeypatch):
    """A summary that says nothing, or one of the run before."""

    def stop(fit, folder, checkpoint=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        kd("distill", *SMALL, folder="outputs/stopped")
    assert read_json(workplace / "outputs" / "stopped" / "summary.json")["status"] == "interrupted"


def test_the_same_folder_twice(kd, workplace):
    """Files of the first run in the way of the second's, at its very end."""
    for _ in range(2):
        kd("distill", *SMALL, folder="outputs/again")
    assert read_json(workplace / "outputs" / "again" / "summary.json")["status"] == "finished"


def test_a_changed_teacher_is_refused(kd, workplace):
    """Weights that were replaced, under the soft targets' old name."""
    kd("distill", *SMALL)
    heads = store(workplace, "teacher animals") / "heads.safetensors"
    heads.write_bytes(heads.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="the weights are not those the fit wrote"):
        kd("predict", f"run={heads.parent}", "file=animals-dev.csv")


def test_a_changed_tokenizer_is_refused(kd, workplace):
    """Token ids of other words: scores as good as chance, under the model's name."""
    kd("distill", *SMALL)
    folder = store(workplace, "teacher animals")
    path = folder / "encoder" / "tokenizer.json"
    path.write_text(path.read_text().replace('"dog"', '"dgo"'))
    for command in (["predict", f"run={folder}", "file=animals-dev.csv"], ["evaluate", f"run={folder}"]):
        with pytest.raises(UserError, match="the tokenizer is not the one the model was trained with"):
            kd(*command)


def test_a_second_run_builds_nothing(kd, fits):
    first = kd("distill", *SMALL)
    before = len(fits)
    second = kd("distill", *SMALL)
    assert len(fits) == before
    for key in ("tasks", "average", "config_hash", "parameters"):
        assert read_json(first / "summary.json")[key] == read_json(second / "summary.json")[key]


def test_a_first_wave_makes_what_the_jobs_of_a_second_find(kd, fits, workplace):
    """Each job of a sweep on a cluster would wait for the one that trains the teacher, on a GPU of its own."""
    wave = kd("distill", *SMALL, "until=soft_targets")
    teachers = list(fits)
    assert {stage.partition(" ")[0] for stage in teachers} == {"teacher"}
    summary = read_json(wave / "summary.json")
    assert (summary["status"], summary["until"], summary["objective"]) == ("finished", "soft_targets", None)
    assert not (wave / "student").exists()
    targets = {path: path.stat().st_mtime_ns for path in workplace.glob("outputs/store/soft_targets/*/manifest.json")}
    assert targets
    kd("distill", *SMALL)
    assert fits == [*teachers, "student", "baseline"]
    assert targets == {path: path.stat().st_mtime_ns for path in targets}


def test_a_sweep_over_losses_shares_teachers_and_baseline(kd, fits):
    kd("distill", *SMALL)
    fits.clear()
    kd("distill", *SMALL, "distill_loss=logit_mse")
    assert fits == ["student"]


def test_another_seed_trains_student_and_baseline_but_no_teacher(kd, fits):
    kd("distill", *SMALL)
    fits.clear()
    kd("distill", *SMALL, "seed=2")
    assert fits == ["student", "baseline"]


def test_changed_data_builds_everything_again(kd, fits, workplace):
    kd("distill", *SMALL)
    fits.clear()
    with (workplace / "beasts-train.csv").open("a") as file:
        file.write("red cat,red dog,different\n")
    kd("distill", *SMALL)
    assert fits == ["teacher beasts", "student", "baseline"]


def test_the_baseline_has_the_budget_of_the_student(kd, workplace):
    """Unlabelled rows lengthen the student's epochs; the baseline must take as many steps."""
    for name in ("animals", "beasts"):
        path = workplace / "mine" / "task" / f"{name}.yaml"
        path.write_text(path.read_text().replace("train:", f"unlabelled: {name}-more.csv\n    train:"))
        rows = (workplace / "animals-train.csv").read_text().splitlines()
        (workplace / f"{name}-more.csv").write_text("\n".join(line.rpartition(",")[0] for line in rows) + "\n")
    folder = kd("distill", *SMALL, "batching.unlabelled=true")
    student, baseline = (read_json(store(workplace, name) / "fit.json") for name in ("student", "baseline"))
    assert student["steps"] == baseline["steps"] == 21  # by 32: 288 labelled examples, 384 unlabelled
    assert read_json(folder / "summary.json")["data"]["animals"]["unlabelled"] == 96


@pytest.mark.parametrize(("scope", "count"), [("single", 2), ("multi", 1)])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_scopes(kd, fits, role, scope, count):
    """BAM's rows: single or multi teachers, single or multi students."""
    kd("distill", *SMALL, f"{role}.scope={scope}")
    assert len([stage for stage in fits if stage.startswith(role)]) == count


def test_gold_labels_alone_need_no_teacher(kd, fits):
    summary = read_json(kd("distill", *SMALL, "system=teacher") / "summary.json")
    assert fits == ["student"]
    assert summary["tasks"]["animals"]["teacher"] is None


def test_an_ensemble_is_reported_beside_its_members(kd, fits):
    folder = kd("distill", *SMALL, "teacher.seeds=[1,2]")
    summary = read_json(folder / "summary.json")
    assert "`ensemble` that of their averaged predictions" in (folder / "report.md").read_text()
    assert len([stage for stage in fits if stage.startswith("teacher")]) == 4
    assert summary["tasks"]["animals"]["ensemble"] is not None


def test_an_interrupted_distillation_goes_on_where_it_was(kd, fits, monkeypatch, workplace, caplog):
    """Killed inside the student: teachers are found, the student ends with the weights of a run in one piece."""
    kd("distill", *SMALL)
    whole = store(workplace, "student")
    (workplace / "outputs" / "store").rename(workplace / "first")
    fits.clear()
    save = ResumeCheckpoint.save

    def save_and_die(self, trainer):
        save(self, trainer)
        if "student" in str(trainer.default_root_dir) and trainer.global_step == 3:
            raise KeyboardInterrupt

    often = "callbacks.resume_checkpoint.every_n_steps=1"
    with monkeypatch.context() as patch:
        patch.setattr(ResumeCheckpoint, "save", save_and_die)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            kd("distill", *SMALL, often)
    with caplog.at_level("INFO"):
        kd("distill", *SMALL, often)
    assert ", from step 3 (" in caplog.text
    assert fits == ["teacher animals", "teacher beasts", "student", "student", "baseline"]
    resumed = store(workplace, "student")
    for name in ("encoder/model.safetensors", "heads.safetensors"):
        again = resumed / name
        assert again.read_bytes() == (workplace / "first" / "fits" / whole.name / name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_scoring(kd, fits, monkeypatch, workplace, number):
    """Lightning leaves with code 1 at the one, and goes on to the last batch at the other."""
    seen = []

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        seen.append(batch_idx)
        os.kill(os.getpid(), number)
        return {"example_id": batch["example_id"], "logits": torch.zeros(len(batch["example_id"]), 2)}

    monkeypatch.setattr(NLUSystem, "predict_step", predict_step)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt) as stopped:
            kd("distill", *SMALL, "batching.eval_batch_size=4", folder="outputs/stopped")
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores the next one
    assert isinstance(stopped.value, Terminated) is (number == signal.SIGTERM)
    assert len(seen) == 1
    assert read_json(workplace / "outputs" / "stopped" / "summary.json")["status"] == "interrupted"
    assert not [path for path in (workplace / "outputs" / "store" / "soft_targets").iterdir() if path.is_dir()]


def test_labelling_goes_on_where_it_was(kd, fits, monkeypatch, workplace):
    """Millions of rows labelled again, since the job was killed at the last; or another soft target for it."""
    monkeypatch.setattr(chunks, "CHUNK", 50)
    settings = (*SMALL, "task=animals", "baseline=false")
    kd("distill", *settings, "paths.store=whole")
    whole = next(Path("whole/soft_targets").glob("animals-train-*"))
    seen, predict_step = [], NLUSystem.predict_step

    def dies(self, batch, batch_idx, dataloader_idx=0):
        if len(seen) == 2:
            raise RuntimeError("killed")
        seen.append(len(batch["example_id"]))
        return predict_step(self, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(NLUSystem, "predict_step", dies)
    with pytest.raises(RuntimeError, match="killed"):
        kd("distill", *settings)
    monkeypatch.setattr(NLUSystem, "predict_step", predict_step)
    fits.clear()
    logits = TrainedModel.logits
    again = []

    def counted(self, *args, some, **values):
        again.append(some.start)
        return logits(self, *args, some=some, **values)

    monkeypatch.setattr(TrainedModel, "logits", counted)
    kd("distill", *settings)
    assert again == [96, 146], "of 192 examples, of which 96 are swapped copies, 96 were labelled"
    assert fits == ["student"]
    own = next(Path("outputs/store/soft_targets").glob("animals-train-*"))
    assert file_hash(own / "logits.safetensors") == file_hash(whole / "logits.safetensors")


def test_a_damaged_store_is_refused_by_name(kd, workplace):
    kd("distill", *SMALL)
    for path in (workplace / "outputs" / "store" / "soft_targets").glob("animals-*/logits.safetensors"):
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="field sha256"):
        kd("distill", *SMALL, "seed=7")


def test_a_split_that_is_asked_for_and_absent_is_told_once(kd, workplace, caplog):
    """``unlabeled``, as Americans write it: the student learns from a tenth of the data, and nobody sees why."""
    for name, split in (("animals", "unlabelled"), ("beasts", "unlabeled")):
        path = workplace / "mine" / "task" / f"{name}.yaml"
        task = yaml.safe_load(path.read_text())
        task[name]["files"][split] = "beasts-dev.csv"
        path.write_text(yaml.safe_dump(task))
    with caplog.at_level("WARNING"):
        folder = kd("distill", *SMALL, "batching.unlabelled=true")
    told = [message for message in caplog.messages if "unlabelled" in message]
    assert len(told) == 1
    assert told[0].startswith("beasts: there is no split unlabelled, expected at `files: {unlabelled: PATH}`")
    assert "did you mean 'unlabeled'?; it is trained without" in told[0]
    assert read_json(folder / "summary.json")["data"]["animals"]["unlabelled"] == 32
    report = (folder / "report.md").read_text()
    assert "part of the gain may come from another mix of tasks" in report


def test_few_steps_are_told_before_anything_is_trained(kd, fits, caplog):
    """Three epochs of a hundred rows: a score by chance, and no word why."""
    with caplog.at_level("WARNING"):
        kd("distill", *SMALL)
    told = [message for message in caplog.messages if "are few" in message]
    assert told[0] == "teacher animals: 6 steps are few; if it stays at chance, raise teacher.trainer.max_epochs"
    assert told[2] == "student: 9 steps are few; if it stays at chance, raise trainer.max_epochs"
    caplog.clear()
    with caplog.at_level("WARNING"):
        kd("train", "task=animals", "name=teacher_of_animals", "trainer.max_epochs=-1", "trainer.max_steps=5")
        kd("train", "task=animals", "trainer.max_epochs=1", "trainer.limit_train_batches=2")
        kd("train", "task=animals", "trainer.max_epochs=17")
    told = [message for message in caplog.messages if "are few" in message]
    assert told == ["teacher_of_animals: 5 steps are few; if it stays at chance, raise trainer.max_steps"]


MEMBERS = "teacher.members={wide: {encoder: {hidden_size: 64}}, deep: {encoder: {num_layers: 3}}}"
TWO_TASKS = ["task=[animals,beasts]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1", "teacher.scope=multi"]


def test_members_differ_as_they_are_told(kd, fits, workplace):
    """Members that are all the same: an ensemble of one, under the name of three."""
    folder = kd("distill", *TWO_TASKS, MEMBERS, "teacher.seeds=[1,2]", "baseline=false")
    assert fits == ["teacher wide 1", "teacher wide 2", "teacher deep 1", "teacher deep 2", "student"]
    sizes = {
        name: read_json(store(workplace, f"teacher {name} 1") / "encoder" / "config.json") for name in ("wide", "deep")
    }
    assert [(c["hidden_size"], c["num_hidden_layers"]) for c in sizes.values()] == [(64, 2), (48, 3)]
    summary = read_json(folder / "summary.json")
    assert [teacher["name"] for teacher in summary["teachers"]] == ["wide 1", "wide 2", "deep 1", "deep 2"]
    for teacher in summary["teachers"]:
        fit = read_json(store(workplace, f"teacher {teacher['name']}") / "fit.json")
        assert teacher["scores"] == fit["scores"]
    report = (folder / "report.md").read_text()
    assert "| deep 2 |" in report
    first, *_, last = (teacher["parameters"] for teacher in summary["teachers"])
    assert summary["parameters"]["teacher"] == first != last
    assert {*summary["folders"]} == {"teacher", "baseline", "student", "baseline_fine_tuned", "student_fine_tuned"}
    assert summary["tasks"]["animals"]["ensemble"] is not None


def test_the_best_teach(kd, fits, workplace, caplog):
    """The first instead of the best; or by the wrong task."""
    caplog.set_level("INFO")
    folder = kd("distill", *TWO_TASKS, MEMBERS, "teacher.select={best: 1, by: [beasts]}", "baseline=false")
    summary = read_json(folder / "summary.json")
    scores = {teacher["name"]: teacher["scores"]["beasts"]["accuracy"] for teacher in summary["teachers"]}
    (chosen,) = (teacher["name"] for teacher in summary["teachers"] if teacher["chosen"])
    assert scores[chosen] == max(scores.values())
    assert summary["tasks"]["animals"]["teacher"] == next(
        teacher["scores"]["animals"]["accuracy"] for teacher in summary["teachers"] if teacher["name"] == chosen
    )
    assert "the best 1 teach" in caplog.text
    assert summary["tasks"]["animals"]["ensemble"] is None


def test_tasks_without_a_teacher_follow_their_labels(kd, workplace):
    """A teacher's guess for all tasks, or no training at all for some."""
    folder = kd(
        "distill",
        *TWO_TASKS,
        "system=mt_dnn_kd",
        "teacher.tasks={animals: null, beasts: all}",
        "batching.single_task=true",
    )
    summary = read_json(folder / "summary.json")
    assert summary["tasks"]["animals"]["teacher"] is None
    assert summary["tasks"]["beasts"]["teacher"] is not None
    assert set(summary["averages"]) == {"with a teacher", "without a teacher"}
    assert summary["averages"]["with a teacher"]["student"] == pytest.approx(
        glue_average({"beasts": summary["tasks"]["beasts"]["metrics"]["student"]})
    )
    assert "| average without a teacher |" in (folder / "report.md").read_text()
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["train/beasts/soft_loss"].notna().any()
    assert "train/animals/soft_loss" not in metrics or metrics["train/animals/soft_loss"].isna().all()


def test_fine_tuning_goes_on_from_what_was_distilled(kd, fits, workplace):
    """A fine-tuned student that starts anew, or that is scored under the name of the one before."""
    tuned = ["student.fine_tune={tasks: all, heads: kept, trainer: {max_epochs: 1}, optimizer: {lr: 1e-12}}"]
    folder = kd("distill", *TWO_TASKS, *tuned)
    assert fits == [
        *("teacher", "student", "student animals fine-tuned", "student beasts fine-tuned"),
        *("baseline", "baseline animals fine-tuned", "baseline beasts fine-tuned"),
    ]
    summary = read_json(folder / "summary.json")
    for task in summary["tasks"].values():  # with next to no steps, they are what they were
        assert task["student_fine_tuned"] == pytest.approx(task["student"], abs=1e-6)
        assert task["baseline_fine_tuned"] == pytest.approx(task["baseline"], abs=1e-6)
    kd("distill", *TWO_TASKS, tuned[0].replace("1e-12", "1e-2"))
    anew = [f"{role} {task} fine-tuned" for role in ("student", "baseline") for task in ("animals", "beasts")]
    assert fits[-4:] == anew
    fits.clear()
    kd("distill", *TWO_TASKS, tuned[0].replace("1e-12", "1e-2").replace("kept", "new"))
    assert fits == anew, "new heads and kept ones are not one model"


def test_what_is_handed_over_is_fine_tuned(kd, workplace):
    folder = kd("distill", *TWO_TASKS, "student.fine_tune={tasks: [beasts]}", "baseline=false")
    summary = read_json(folder / "summary.json")
    assert summary["tasks"]["animals"]["student_fine_tuned"] is None
    evaluation = read_json(kd("evaluate", f"run={folder}") / "evaluation.json")
    assert evaluation["scores"]["beasts"] == pytest.approx(summary["tasks"]["beasts"]["metrics"]["student_fine_tuned"])
    assert evaluation["scores"]["animals"] == pytest.approx(summary["tasks"]["animals"]["metrics"]["student"], abs=1e-6)


def test_teachers_are_fine_tuned_on_each_task(kd, fits, workplace):
    """One model of two tasks becomes two of one each, and these teach."""
    folder = kd("distill", *TWO_TASKS, "teacher.fine_tune={tasks: all, heads: new}", "baseline=false")
    assert fits == ["teacher", "teacher animals fine-tuned", "teacher beasts fine-tuned", "student"]
    summary = read_json(folder / "summary.json")
    for name in ("animals", "beasts"):
        tuned = read_json(store(workplace, f"teacher {name} fine-tuned") / "fit.json")
        assert summary["tasks"][name]["teacher"] == tuned["scores"][name]["accuracy"]
        assert summary["teachers"][0]["fine_tuned"][name] == tuned["scores"][name]


def test_new_heads_are_new(kd, workplace):
    """Heads that go on although they were to begin anew; or an encoder that does, too."""
    settings = "{heads: new, trainer: {max_epochs: 1}, optimizer: {lr: 1e-12}}"
    kd("distill", *TWO_TASKS, f"student.fine_tune={settings}", "baseline=false")
    tuned = store(workplace, "student animals fine-tuned")
    (begun,) = set((workplace / "outputs/store/fits").glob("student-*")) - {
        *(workplace / "outputs/store/fits").glob("student-*-fine-tuned-*")
    }
    before, after = (load_file(folder / "encoder" / "model.safetensors") for folder in (begun, tuned))
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)
    before, after = (load_file(folder / "heads.safetensors") for folder in (begun, tuned))
    assert set(after) == {name for name in before if name.startswith("animals")}
    assert not torch.allclose(after["animals.output.weight"], before["animals.output.weight"], atol=1e-3)


def test_a_teacher_of_all_the_weight_is_the_ensemble(kd, workplace):
    """Weights that are read and not used, or given to the other teacher; in scores, and in what the student learns."""
    weights = "teacher.ensemble.weights={wide: 1, deep: 1e-30}"
    folder = kd("distill", *TWO_TASKS, MEMBERS, weights, "baseline=false")
    summary = read_json(folder / "summary.json")
    wide, deep = summary["teachers"]
    for name, task in summary["tasks"].items():
        assert task["ensemble"] == pytest.approx(wide["scores"][name]["accuracy"], abs=1e-6)
    assert wide["scores"] != deep["scores"]
    alone = kd("distill", *TWO_TASKS, MEMBERS.replace("deep: {encoder: {num_layers: 3}}", "x: null"), "baseline=false")
    metrics = [pd.read_csv(run / "metrics.csv") for run in (folder, alone)]
    for column in ("train/animals/soft_loss", "val/animals/accuracy"):
        expected = metrics[1][column].dropna().to_numpy()
        assert metrics[0][column].dropna().to_numpy() == pytest.approx(expected, rel=1e-3)


def test_weights_by_score(kd):
    folder = kd("distill", *TWO_TASKS, MEMBERS, "teacher.ensemble.weights=score", "baseline=false")
    equal = kd("distill", *TWO_TASKS, MEMBERS, "baseline=false")
    losses = [pd.read_csv(run / "metrics.csv")["train/animals/soft_loss"].dropna().tolist() for run in (folder, equal)]
    assert losses[0] != losses[1]
    found = read_json(folder / "summary.json")
    scores = {teacher["name"]: teacher["scores"]["animals"]["accuracy"] for teacher in found["teachers"]}
    shares = {name: score / sum(scores.values()) for name, score in scores.items()}
    assert found["ensemble"]["shares"]["animals"] == pytest.approx(shares, abs=1e-4)
    assert set(read_json(equal / "summary.json")["ensemble"]["shares"]["animals"].values()) == {0.5}


def test_tasks_have_teachers_of_their_own(kd, fits, workplace):
    """A map of who teaches what that is read as a list of tasks: everyone teaches everything."""
    mapping = "teacher.tasks={animals: [deep], beasts: all, close: null}"
    tasks = ["task=[animals,beasts,close]", "system=mt_dnn_kd", "batching.single_task=true"]
    folder = kd("distill", *TWO_TASKS, *tasks, MEMBERS, mapping, "baseline=false")
    summary = read_json(folder / "summary.json")
    wide, deep = summary["teachers"]
    found = summary["tasks"]
    assert (
        found["animals"]["teacher"]
        == deep["scores"]["animals"]["accuracy"]
        == pytest.approx(found["animals"]["ensemble"])
    )
    both = [teacher["scores"]["beasts"]["accuracy"] for teacher in (wide, deep)]
    assert found["beasts"]["teacher"] == pytest.approx(sum(both) / 2)
    assert found["close"]["teacher"] is None
    assert {task: len(paths) for task, paths in summary["folders"]["teacher"].items()} == {"animals": 1, "beasts": 2}
    fits.clear()
    kd("distill", *TWO_TASKS, *tasks, MEMBERS, mapping, "teacher.scope=single", "baseline=false")
    assert fits[:-1] == ["teacher beasts wide", "teacher animals deep", "teacher beasts deep"]


def test_members_may_read_other_words(kd, workplace):
    """Soft targets by position in one teacher's tokens; or one tokenizer for all."""
    members = "teacher.members={few: {encoder: {vocab_size: 40}}, many: {encoder: {vocab_size: 90}}}"
    folder = kd("distill", *TWO_TASKS, members, "baseline=false")
    prints = {read_json(store(workplace, f"teacher {name}") / "fit.json")["tokenizer"] for name in ("few", "many")}
    assert len(prints) == 2
    summary = read_json(folder / "summary.json")
    assert all(task["ensemble"] is not None for task in summary["tasks"].values())


def test_a_sweep_seeks_the_student_that_is_handed_over(kd):
    """An objective before fine-tuning, of a student that nobody gets."""
    folder = kd("distill", *TWO_TASKS, "student.fine_tune={tasks: [beasts], optimizer: {lr: 3e-3}}", "baseline=false")
    summary = read_json(folder / "summary.json")
    metrics = {name: task["metrics"] for name, task in summary["tasks"].items()}
    final = {"animals": metrics["animals"]["student"], "beasts": metrics["beasts"]["student_fine_tuned"]}
    assert kd.returned == summary["objective"] == pytest.approx(glue_average(final))
    assert {task: len(paths) for task, paths in summary["folders"]["student_fine_tuned"].items()} == {"beasts": 1}


def test_teachers_are_shown(kd, capsys):
    kd("distill", *TWO_TASKS, MEMBERS, "teacher.select={best: 1, by: [beasts/f1]}", "baseline=false")
    shown = capsys.readouterr().out
    assert shown.index("wide") < shown.index("deep") < shown.index("task (metric)")
    assert "(not chosen)" in shown


OTHER_HEAD = r"{}.fine_tune.heads is kept, but the head would have animals.attention.weight .* has none: set"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["teacher.tasks={animal: all, beasts: all}"], r"teacher.tasks says nothing of animals: .*; animal is no task"),
        ([MEMBERS, "teacher.tasks={animals: [deep], beasts: [deep]}"], r"gives the teacher wide no task"),
        (["teacher.members={a: {}, b: {}}"], r"teacher.members: a and b are the same model: change one of them"),
        (["teacher.members={a: {trainer: {log_every_n_steps: 7}}, b: {}}"], r"members: a and b are the same model"),
        (
            [
                "teacher.members={a: {seed: 1}, b: {}}",
                "teacher.scope=single",
                "teacher.tasks={animals: [a, b], beasts: [a]}",
            ],
            r"members: a and b are the same model",
        ),
        (
            ["teacher.members={a: {optimizer: {lrr: 1}}}"],
            r"^teacher.members.a.optimizer: .* 'lrr'; did you mean 'lr'\?",
        ),
        (
            ["student.fine_tune={trainer: {max_epoch: 3}}"],
            r"^student.fine_tune.trainer: Trainer has no setting 'max_epoch'",
        ),
        (
            ["system=mt_dnn_kd", "annealing=constant"],
            r"annealing=constant: MtDnnKdStudent has no annealing, .*gold_weight",
        ),
        (["system=teacher", "distill_loss=kl"], r"distill_loss=kl: Teacher has no distill_loss, it learns from labels"),
        (["system.task_heads={animals: 0.3}"], r"system.task_heads.animals is 0.3, expected settings"),
        (["teacher.members={a: {trainer: {max_epochs: 0}}}"], r"teacher.members.a.trainer.max_epochs is 0, expected"),
        (["teacher.members={a: {encoder: {max_length: 1}}}"], r"teacher.members.a.encoder.max_length is 1, expected"),
        (["student.fine_tune={batching: {window: 0}}"], r"student.fine_tune.batching.window is 0, expected"),
        (["student.fine_tune={system: {head: {_target_: kd_lightning.heads.san_head}}}"], OTHER_HEAD.format("student")),
        (["teacher.fine_tune={system: {head: {_target_: kd_lightning.heads.san_head}}}"], OTHER_HEAD.format("teacher")),
        (
            ["student.fine_tune={tasks: all, heads: kept, optimizer: {lr: -1}}"],
            r"^student.fine_tune.optimizer.lr is -1",
        ),
        (["teacher.members={a: {encoder: minilm}}"], r"a.encoder is 'minilm', expected .*\{NAME: VALUE\}"),
        (
            [
                "teacher.members={a: {encoder: minilm}}",
                "+teacher.encoder.path=nowhere",
            ],
            r"a.encoder is 'minilm', expected .*\{path: OWNER/MODEL\}",
        ),
    ],
)
def test_wrong_plans_are_told_before_anything_is_trained(kd, fits, settings, message):
    with pytest.raises(UserError, match=message):
        kd("distill", *TWO_TASKS, *settings)
    assert not fits


def test_heads_of_single_tasks(kd, fits, workplace, caplog):
    """Settings for one task that reach all, or none; and those of a misspelt one in silence."""
    caplog.set_level("INFO")
    san = "{_target_: kd_lightning.heads.san_head, num_steps: 2}"
    kd("distill", *TWO_TASKS, f"system.task_heads={{animals: {san}, b: {{dropout: 0.3}}}}", "baseline=false")
    student = read_json(store(workplace, "student") / "fit.json")
    weights = load_file(store(workplace, "student") / "heads.safetensors")
    assert {name.partition(".")[0] for name in weights if "cell" in name} == {"animals"}
    assert "system.task_heads.b: b is no task of this run" in caplog.text
    fits.clear()
    kd(
        "distill",
        *TWO_TASKS,
        f"system.task_heads={{animals: {san}, beasts: null, b: {{dropout: 1}}}}",
        "baseline=false",
    )
    assert not fits, "heads of other tasks, or none, train it anew"
    assert set(student["scores"]) == {"animals", "beasts"}
