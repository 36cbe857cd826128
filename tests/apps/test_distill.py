"""kd-distill: what it builds, what it finds, what it tells."""

import pytest

from kd_lightning.apps import fit
from kd_lightning.callbacks import ResumeCheckpoint
from kd_lightning.data.folders import read_json
from kd_lightning.errors import UserError

SMALL = ["task=[animals,beasts]", "trainer.max_epochs=1", "teacher.trainer.max_epochs=1"]


@pytest.fixture
def fits(monkeypatch):
    """The stages that were trained, in order."""
    trained = []
    run = fit.run_fit

    def record(cfg, folder, stage, *rest):
        trained.append(stage)
        return run(cfg, folder, stage, *rest)

    monkeypatch.setattr(fit, "run_fit", record)
    return trained


def test_a_distillation_tells_whether_it_was_worth_it(kd, fits):
    folder = kd("distill", *SMALL)
    assert fits == ["teacher animals", "teacher beasts", "student", "baseline"]
    summary = read_json(folder / "summary.json")
    for task in summary["tasks"].values():
        assert None not in (task["teacher"], task["baseline"], task["student"])
        assert task["ensemble"] is None
    assert summary["parameters"]["student_without_embeddings"] < summary["parameters"]["student"]
    assert summary["status"] == "finished"
    report = (folder / "report.md").read_text()
    assert "| animals (accuracy) |" in report
    assert "| average |" in report
    assert (folder / "student" / "encoder" / "model.safetensors").is_file()
    assert (folder / "metrics.csv").is_file()


def test_a_second_run_builds_nothing(kd, fits):
    first = kd("distill", *SMALL)
    before = len(fits)
    second = kd("distill", *SMALL)
    assert len(fits) == before
    for key in ("tasks", "average", "config_hash", "parameters"):
        assert read_json(first / "summary.json")[key] == read_json(second / "summary.json")[key]


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
    store = workplace / "outputs" / "store" / "fits"
    (student,), (baseline,) = store.glob("student-*"), store.glob("baseline-*")
    assert read_json(student / "fit.json")["steps"] == read_json(baseline / "fit.json")["steps"]
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
    summary = read_json(kd("distill", *SMALL, "teacher.seeds=[1,2]") / "summary.json")
    assert len([stage for stage in fits if stage.startswith("teacher")]) == 4
    assert summary["tasks"]["animals"]["ensemble"] is not None


def test_an_interrupted_distillation_goes_on_where_it_was(kd, fits, monkeypatch, workplace):
    """Killed inside the student: teachers are found, the student ends with the weights of a run in one piece."""
    store = workplace / "outputs" / "store"
    kd("distill", *SMALL)
    (whole,) = (store / "fits").glob("student-*")
    store.rename(workplace / "first")
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
    kd("distill", *SMALL, often)
    assert fits == ["teacher animals", "teacher beasts", "student", "student", "baseline"]
    (resumed,) = (store / "fits").glob("student-*")
    for name in ("encoder/model.safetensors", "heads.safetensors"):
        again = resumed / name
        assert again.read_bytes() == (workplace / "first" / "fits" / whole.name / name).read_bytes()


def test_a_damaged_store_is_refused_by_name(kd, workplace):
    kd("distill", *SMALL)
    for path in (workplace / "outputs" / "store" / "soft_targets").glob("animals-*/logits.safetensors"):
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="field sha256"):
        kd("distill", *SMALL, "seed=7")


def test_an_unknown_scope_is_refused(kd):
    with pytest.raises(UserError, match="scope is 'both', expected single"):
        kd("distill", *SMALL, "teacher.scope=both")
