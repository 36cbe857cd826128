"""Every configuration composes, every ``_target_`` exists and takes what it is given, recipes say what papers do."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

import kd_lightning.train  # noqa: F401 - registers the resolvers
from kd_lightning.apps.fits.build import build, build_encoder, build_system, build_tasks
from kd_lightning.apps.settings.stages import teachers_heard
from kd_lightning.encoders.vocabulary import train_word_tokenizer

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
GROUPS = {"data", "task", "system", "encoder", "distill_loss", "annealing", "task_sampler", "optimizer", "scheduler"}
GROUPS |= {
    "augmenter",
    "trainer",
    "accelerator",
    "callbacks",
    "logger",
    "paths",
    "debug",
    "experiment",
    "teacher",
    "topology",
}
COMMANDS = {
    "distill": GROUPS,
    "train": {"system", "encoder", "accelerator", "logger", "debug"},  # the rest comes from the same fit.yaml
    "predict": {"data", "augmenter", "accelerator"},
    "evaluate": {"data", "accelerator"},
}
CHOICES = [
    (command, path)
    for command, groups in COMMANDS.items()
    for path in FILES
    if str(path.parent) in groups and path.parent != Path()
]


def composed(command, *overrides):
    """Return the resolved configuration; a value that is missing or cannot be resolved is an error."""
    overrides = list(overrides)
    if "encoder=pretrained" in overrides:
        overrides += ["encoder.path=here", *(["teacher.encoder.path=there"] if command == "distill" else [])]
    if command in ("predict", "evaluate"):
        overrides.append("run=somewhere")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, overrides=overrides)
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def targets(node):
    """Yield every node with a ``_target_``, those inside others too."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def check_targets(cfg):
    """Fail on a ``_target_`` that is not there or does not take what it is given; return how many there are."""
    found = list(targets(cfg))
    for node in found:
        made = get_object(node["_target_"])
        given = {key for key in node if not key.startswith("_")}
        if node["_target_"].startswith("kd_lightning.data."):
            given -= {"unlabelled", "limit"}  # of the corpus around the source
        if made is pl.Trainer:
            given -= {"compile"}  # of the network that it trains
        parameters = inspect.signature(made).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            assert given <= {p.name for p in parameters}, node["_target_"]
    return len(found)


def test_the_list_is_complete():
    """A glob that finds nothing would pass every other test."""
    assert {str(path.parent) for path in FILES} == GROUPS | {
        ".",
        "hydra/job_logging",
        "hydra/launcher",
        "hydra/sweeper",
    }
    assert {path.stem for path in FILES if path.parent == Path()} == {"fit", "train", "distill", "predict", "evaluate"}
    names = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax", "glue", "wikiqa", "trecqa"}
    names |= {"toy_sentiment", "toy_comparison", "toy_preference", "snli", "webqa_kd"}
    assert {path.stem for path in FILES if path.parent == Path("task")} == names


@pytest.mark.parametrize(("command", "path"), CHOICES, ids=str)
def test_every_option_composes_and_resolves(command, path):
    check_targets(composed(command, f"{path.parent}={path.stem}"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_says_what_it_is_and_names_what_exists(path):
    text = (CONF / path).read_text()
    assert re.search(r"^# (?!@package)\w+", text, flags=re.MULTILINE), "a comment says what the option is"
    check_targets(yaml.safe_load(text))


def test_targets_inside_others_are_checked():
    """The optimiser within the optimiser, the head within the system."""
    node = yaml.safe_load((CONF / "optimizer" / "adamw.yaml").read_text())
    assert check_targets({"optimizer": node}) == 2
    node["optimizer"]["_target_"] = "torch.optim.AdamX"
    with pytest.raises(ImportError):
        check_targets({"optimizer": node})


@pytest.mark.parametrize("path", [p for p in FILES if p.parent == Path("task") and p.stem != "glue"], ids=str)
def test_a_task_file_is_named_like_its_task(path):
    node = yaml.safe_load((CONF / path).read_text())
    assert list(node) == [path.stem]
    assert get_object(node[path.stem].pop("_target_"))(**node[path.stem]).name == path.stem


# What the recipes must say. BAM: arXiv:1907.04829, section 3 and its authors' code. A fit is
# (system, scope, lr, layer decay, batch, epochs, optimiser, decay from start, sampler's exponent, gold weights at
# progress 0, 1/2 and 1); the optimiser's constants are the same in all.
SINGLE = ("Teacher", "single", 5e-5, 0.9, 32, 3, "BertAdam", True, 0.75, None)
MULTI = ("Teacher", "multi", 1e-4, 0.9, 128, 6, "BertAdam", True, 0.75, None)
BAM = ("BamStudent", "multi", 1e-4, 0.9, 128, 6, "BertAdam", True, 0.75, (0, 0.5, 1))
QUICK = ("Teacher", "multi", 2e-3, 1.0, 64, 210, "AdamW", False, 0.75, None)
RECIPES = {  # experiment -> teacher, student
    "bam_single": (None, SINGLE),
    "bam_multi": (None, MULTI),
    "bam_single_single": (SINGLE, ("BamStudent", *SINGLE[1:-1], (0, 0.5, 1))),
    "bam_multi_multi": (MULTI, BAM),
    "bam_glue": (SINGLE, BAM),
    "bam_no_layer_decay": (SINGLE, (*BAM[:3], 1.0, *BAM[4:])),
    "bam_no_task_sampling": (SINGLE, (*BAM[:8], 1.0, BAM[9])),
    "bam_teacher_only": (SINGLE, (*BAM[:-1], (0, 0, 0))),
    "bam_half": (SINGLE, (*BAM[:-1], (0.5, 0.5, 0.5))),
    "quickstart": (QUICK, ("BamStudent", "multi", 2e-3, 1.0, 64, 7, "AdamW", False, 0.75, (0, 0.5, 1))),
}


# Tang et al.: arXiv:1903.12136, sections 4.1 to 4.3: task -> batch, variants of each example.
BILSTM = {"sst2": (50, 20), "qqp": (256, 10), "mnli": (256, 10), "mrpc": (50, 20), "stsb": (50, 20), "cola": (50, 20)}
SWEEPS = {"bilstm_sst2_rules": "augmenter", "bilstm_sst2_n_iter": "augmenter.n_iter"}


def recipe(cfg, scope):
    """Return what a composed fit says, in the order of ``RECIPES``, behaviour rather than names where there is one."""
    drawn = instantiate(cfg["task_sampler"])(np.array([2490.0, 392702.0]), 0.3)
    exponent = np.log(drawn[1] / drawn[0]) / np.log(392702 / 2490)
    gold = None
    if "annealing" in cfg["system"]:
        gold = tuple(instantiate(cfg["system"]["annealing"])(progress) for progress in (0.0, 0.5, 1.0))
    made = instantiate(cfg["scheduler"])
    optimizer = cfg["optimizer"]
    return (
        cfg["system"]["_target_"].rpartition(".")[2],
        scope,
        optimizer["lr"],
        optimizer["layer_decay"],
        cfg["batching"]["batch_size"],
        cfg["trainer"]["max_epochs"],
        optimizer["optimizer"]["_target_"].rpartition(".")[2],
        bool(made(0.5) == pytest.approx(0.5)),  # from the end of the warm-up it would be 0.5 / 0.9
        round(float(exponent), 6),
        gold,
    )


def test_every_experiment_has_its_recipe():
    others = {"quickstart_bilstm", "bilstm_sst2_large", *SWEEPS, *(f"bilstm_{task}" for task in BILSTM)}
    others |= {
        "tmkd_qa",
        "tmkd_qa_minilm",
        "tmkd_qa_bilstm",
        "quickstart_mt_dnn_kd",
        "mt_dnn_kd_glue",
        "mt_dnn_kd_glue_six",
        "mt_dnn_kd_glue_minilm",
    }
    assert {path.stem for path in FILES if path.parent == Path("experiment")} == set(RECIPES) | others


@pytest.mark.parametrize("name", RECIPES)
def test_an_experiment_is_what_the_paper_says(name):
    cfg = composed("distill", f"experiment={name}")
    teacher, student = RECIPES[name]
    assert recipe(cfg, cfg["student"]["scope"]) == student
    fits = [cfg]
    if teacher is not None:
        keep = {**cfg["teacher"], "trainer": {**cfg["trainer"], **cfg["teacher"]["trainer"]}}
        assert recipe(keep, cfg["teacher"]["scope"]) == teacher
        assert cfg["teacher"]["seeds"] == ([1, 2] if name == "quickstart" else [1])
        fits.append(keep)
    for fit in fits:
        assert fit["system"]["reduction"] == "sum"
        assert fit["system"]["head"]["dropout"] == 0.1
        assert fit["system"]["head"]["sigmoid"] is True
        assert fit["trainer"]["gradient_clip_val"] == 1.0
        assert fit["scheduler"]["warmup"] == 0.1
        assert fit["optimizer"]["weight_decay"] == 0.01
        assert fit["optimizer"]["optimizer"]["betas"] == [0.9, 0.98 if name == "quickstart" else 0.999]
        assert fit["optimizer"]["optimizer"]["eps"] == 1e-6
        assert fit["encoder"]["max_length"] == 128
    if teacher is not None:
        assert cfg["system"]["distill_loss"] == {"_target_": "kd_lightning.losses.SoftCrossEntropy", "temperature": 1.0}


@pytest.mark.parametrize("task", BILSTM)
def test_a_bilstm_is_what_its_paper_says(task):
    """Logits alone, AdaDelta at its own rate, the three rules at their own."""
    cfg = composed("distill", f"experiment=bilstm_{task}", "encoder@teacher.encoder=minilm")
    batch, variants = BILSTM[task]
    assert list(cfg["task"]) == [task]
    assert cfg["system"]["_target_"].endswith(".BiLstmStudent")
    assert cfg["system"]["gold_weight"] == 0
    assert cfg["system"]["distill_loss"] == {"_target_": "kd_lightning.losses.LogitMSE", "over_classes": "sum"}
    assert (cfg["encoder"]["hidden_size"], cfg["system"]["head"]["hidden_size"]) == (150, 200)
    assert cfg["encoder"]["words"]["model"] == cfg["teacher"]["encoder"]["path"]
    assert (cfg["optimizer"]["lr"], cfg["optimizer"]["optimizer"]["rho"]) == (1.0, 0.95)
    assert instantiate(cfg["scheduler"])(1.0) == 0  # the paper has none
    assert cfg["batching"]["batch_size"] == batch
    rules = {name: cfg["augmenter"][name] for name in ("p_mask", "p_pos", "p_ng", "max_ngram", "n_iter")}
    assert rules == {"p_mask": 0.1, "p_pos": 0.1, "p_ng": 0.25, "max_ngram": 5, "n_iter": variants}
    assert composed("distill", f"experiment=bilstm_{task}")["teacher"]["encoder"]["path"].endswith("bert-large-uncased")
    assert cfg["teacher"]["optimizer"]["lr"] in (2e-5, 3e-5, 4e-5, 5e-5)


@pytest.mark.parametrize("task", BILSTM)
@pytest.mark.parametrize(
    "choice", ["augmenter=none", "augmenter=masking", "distill_loss=soft_ce", "distill_loss=kl", "encoder=bilstm"]
)
def test_what_is_chosen_instead_is_whole(task, choice):
    """A setting of the recipe that stays behind would be merged into what is chosen."""
    cfg = composed("distill", f"experiment=bilstm_{task}", "encoder@teacher.encoder=minilm", choice)
    group, _, name = choice.partition("=")
    found = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    given = cfg["system"][group] if group == "distill_loss" else cfg[group]
    assert set(given) <= set(composed("distill", choice)[group])
    assert bool(given) == (found != {})
    check_targets(cfg)


@pytest.mark.parametrize("command", ["train", "distill"])
def test_the_bilstm_system_learns_logits(command):
    """``system=bilstm`` alone is the method, too; what is chosen beside it holds."""
    encoders = ["encoder=bilstm"] + ["encoder@teacher.encoder=minilm"] * (command == "distill")
    cfg = composed(command, "system=bilstm", *encoders)
    assert cfg["system"]["distill_loss"] == {"_target_": "kd_lightning.losses.LogitMSE", "over_classes": "sum"}
    chosen = composed(command, "system=bilstm", *encoders, "distill_loss=kl")
    assert chosen["system"]["distill_loss"]["_target_"].endswith(".KLDivergence")
    assert composed(command, "system=bam")["distill_loss"]["_target_"].endswith(".SoftCrossEntropy")


def test_the_timing_model_of_the_paper():
    """963,002 parameters besides the vectors (table 2), from a command."""
    cfg = composed("distill", "experiment=bilstm_sst2", "encoder=bilstm", "encoder.channels=both")
    tokenizer = train_word_tokenizer(["a good film"], 10)
    system = build_system(cfg, build_tasks(cfg), build_encoder(build(cfg["encoder"], "encoder"), tokenizer))
    assert sum(p.numel() for p in system.parameters()) - 2 * 300 * len(tokenizer) == 963_002


def test_the_larger_size_changes_nothing_else():
    """300 per direction and 400, as the paper's other student."""
    small, large = (
        composed("distill", f"experiment=bilstm_sst2{size}", "encoder@teacher.encoder=minilm")
        for size in ("", "_large")
    )
    assert large == small | {
        "name": "bilstm_sst2_large",
        "encoder": small["encoder"] | {"hidden_size": 300},
        "system": small["system"] | {"head": small["system"]["head"] | {"hidden_size": 400}},
    }


@pytest.mark.parametrize("name", SWEEPS)
def test_an_ablation_is_a_sweep_of_one_setting(name):
    """Of the experiment as it is; each value of it composes."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("distill", overrides=[f"experiment={name}"], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    ((setting, values),) = cfg.hydra.sweeper.params.items()
    assert setting == SWEEPS[name]
    base = composed("distill", "experiment=bilstm_sst2", "encoder@teacher.encoder=minilm")
    for value in values.split(","):
        made = composed("distill", f"experiment={name}", "encoder@teacher.encoder=minilm", f"{setting}={value}")
        assert {key for key in made if made[key] != base[key]} <= {"augmenter", "trainer", "batching", "name"}
        assert made["name"] == name, "its runs would lie among the recipe's"
        assert made["trainer"] == base["trainer"] | {"max_epochs": -1, "max_steps": 36_000}  # the same for all values
        assert made["batching"] == base["batching"] | {"epoch_rows": 67_349}  # and so the baseline


@pytest.mark.parametrize("name", ["mt_dnn_kd_glue", "mt_dnn_kd_glue_six"])
def test_mt_dnn_kd_is_what_the_paper_says(name):
    """arXiv:1901.11504, section 4.2, for all fits; arXiv:1904.09482, section 3, for the distillation."""
    cfg = composed("distill", f"experiment={name}")
    teacher = {**cfg["teacher"], "trainer": {**cfg["trainer"], **cfg["teacher"]["trainer"]}}
    assert cfg["system"]["_target_"].endswith(".MtDnnKdStudent")
    assert cfg["system"]["gold_weight"] == 0.5
    assert cfg["batching"]["single_task"] is True
    for fit in (cfg, teacher):
        assert recipe({**fit, "system": {"_target_": "x"}}, "")[2:] == (5e-5, 1.0, 32, 5, "Adamax", False, 1.0, None)
        assert fit["system"]["reduction"] == "mean"
        assert (fit["system"]["head"]["dropout"], fit["system"]["head"]["sigmoid"]) == (0.1, False)
        assert fit["system"]["task_heads"] == {"mnli": {"dropout": 0.3}, "cola": {"dropout": 0.05}}
        assert fit["trainer"]["gradient_clip_val"] == 1.0
        assert fit["scheduler"]["warmup"] == 0.1
    assert set(cfg["task"]) == {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"}
    taught = [name for name, who in teacher["tasks"].items() if who == "all"]
    assert (teacher["scope"], taught) == ("multi", ["mnli", "qqp", "rte", "qnli"])
    assert set(teacher["tasks"]) == set(cfg["task"])
    assert teacher["fine_tune"]["tasks"] == cfg["student"]["fine_tune"]["tasks"] == "all"
    assert teacher["ensemble"] == {"mean": "probabilities", "weights": "equal"}
    members = {name: member for name, member in teacher["members"].items() if member is not None}
    rates = [member["encoder"]["dropout"] for member in members.values()]
    assert rates == [0.1, 0.2, 0.3] * (2 if name.endswith("six") else 1)
    assert cfg["seed"] not in teacher["seeds"], "one of the teachers would be the baseline"
    paths = [member["encoder"].get("path") for member in members.values()]
    assert paths == [None] * 3 + ["google-bert/bert-large-cased"] * (len(rates) - 3)
    assert teacher["select"] == ({"best": 3, "by": ["mnli", "rte"]} if name.endswith("six") else None)


def test_the_recipe_for_minilm_changes_what_it_says():
    """Its size, its rates and its epochs; not the method, nor who teaches what."""
    base = composed("distill", "experiment=mt_dnn_kd_glue", "encoder=minilm")
    own = composed("distill", "experiment=mt_dnn_kd_glue_minilm")
    changed = {"name", "encoder", "optimizer", "trainer", "student", "teacher"}
    assert {key for key in own if own[key] != base[key]} == changed
    assert (own["encoder"]["num_layers"], own["teacher"]["encoder"]["num_layers"]) == (3, None)
    of_teachers = {key for key in own["teacher"] if own["teacher"][key] != base["teacher"][key]}
    assert of_teachers == {"optimizer", "trainer", "fine_tune"}
    assert own["optimizer"] == base["optimizer"] | {"lr": 4e-4} == own["teacher"]["optimizer"]
    assert own["trainer"] == base["trainer"] | {"max_epochs": 2}
    for role in ("student", "teacher"):
        short = {"optimizer": {"lr": 1e-4}, "trainer": {"max_epochs": 1}}
        assert own[role]["fine_tune"] == base[role]["fine_tune"] | short


TOPOLOGIES = {
    "one_o_one": ({"best": 1}, None, False),
    "one_avg_o_one": (None, "logits", False),
    "m_o_m": (None, None, True),
    "m_o_1": (None, None, False),
}


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("before", ["experiment=tmkd_qa", "experiment=mt_dnn_kd_glue_six", "system=tmkd"])
def test_a_topology_says_all_of_itself(name, before):
    """Over a recipe that has another one, or chooses teachers of its own, or over none: nothing of it is left."""
    cfg = composed("distill", before, f"topology={name}", "encoder=tiny")
    best, mean, per_teacher = TOPOLOGIES[name]
    found = cfg["teacher"]["select"]
    assert found is None if best is None else found["best"] == best["best"]
    assert (cfg["teacher"]["ensemble"]["mean"], cfg["student"]["per_teacher"]) == (mean, per_teacher)
    (file,) = CONF.glob(f"topology/{name}.yaml")
    assert yaml.safe_load(file.read_text())["teacher"]["ensemble"]["weights"] == "equal"


@pytest.mark.parametrize("ending", ["", "_minilm", "_bilstm"])
def test_tmkd_is_what_its_paper_says(ending):
    """A head for each of three teachers, logits, 0.9 of the loss; before it, soft heads alone on pairs."""
    cfg = composed("distill", f"experiment=tmkd_qa{ending}")
    system = cfg["system"]
    assert system["_target_"].endswith(".TmkdStudent")
    assert (system["gold_weight"], system["predicts"]) == (0.1, "all")
    assert system["distill_loss"] == {"_target_": "kd_lightning.losses.LogitMSE", "over_classes": "mean"}
    assert cfg["pretrain"]["system"] == {"gold_weight": 0.0, "predicts": "soft"}
    assert (list(cfg["task"]), list(cfg["pretrain"]["task"])) == (["qnli"], ["qnli"])
    assert teachers_heard(cfg) == {"qnli": 3}
    assert [cfg[role]["scope"] for role in ("student", "teacher")] == ["single", "single"]
    if ending != "_minilm":
        members = cfg["teacher"]["members"].values()
        assert [member["optimizer"]["lr"] for member in members] == [2e-5, 3e-5, 5e-5]
        assert (cfg["teacher"]["batching"]["batch_size"], cfg["teacher"]["trainer"]["max_epochs"]) == (128, 10)
        assert cfg["teacher"]["encoder"]["max_length"] == cfg["encoder"]["max_length"] == 150
        assert cfg["teacher"]["encoder"]["path"].endswith("bert-large-uncased")
    if ending != "_bilstm":
        assert cfg["encoder"]["num_layers"] == 3


def test_the_quickstart_has_a_bilstm():
    """The same teachers, texts and budget: the second student costs no further teacher."""
    first, second = (composed("distill", f"experiment=quickstart{ending}") for ending in ("", "_bilstm"))
    same = [key for key in first if first[key] == second[key]]
    assert {"teacher", "task", "data", "batching", "trainer", "optimizer"} <= set(same)
    assert second["system"]["_target_"].endswith(".BiLstmStudent")


def test_the_quickstart_has_an_ensemble():
    """On the same texts: three teachers that differ, one task without any, as much of each task, fine-tuning."""
    first, own = (composed("distill", f"experiment=quickstart{ending}") for ending in ("", "_mt_dnn_kd"))
    assert {"task", "data", "encoder", "optimizer", "trainer"} <= {key for key in first if first[key] == own[key]}
    assert own["system"]["_target_"].endswith(".MtDnnKdStudent")
    assert own["batching"] == first["batching"] | {"single_task": True}
    drawn = instantiate(own["task_sampler"])(np.array([4200.0, 200.0]), 0.3)
    assert drawn[0] == drawn[1]
    teachers = own["teacher"]
    assert (teachers["scope"], len({str(member) for member in teachers["members"].values()})) == ("multi", 3)
    assert own["seed"] not in teachers["seeds"]
    assert teachers["tasks"] == {"toy_sentiment": "all", "toy_comparison": "all", "toy_preference": None}
    assert own["student"]["fine_tune"]["tasks"] == "all"


def test_the_tasks_of_the_paper():
    """WNLI is left out; MRPC and STS-B are trained on both orders, QQP is not."""
    tasks = composed("distill", "experiment=bam_glue", "task=glue")["task"]
    assert list(tasks) == ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]
    assert [name for name, task in tasks.items() if task.get("both_orders")] == ["mrpc", "stsb"]
    assert tasks["stsb"]["score_range"] == [0, 5]


def test_experiments_belong_to_kd_distill():
    """They set a teacher and a student; kd-train has one fit, so it must not take them half."""
    with pytest.raises(ConfigCompositionException, match="Could not override 'experiment'"):
        composed("train", "experiment=quickstart")
    assert "experiment" not in composed("train")
    assert "kd-distill" in yaml.safe_load((CONF / "train.yaml").read_text())["hydra"]["help"]["template"]


@pytest.mark.parametrize(("nodes", "devices"), [(1, 1), (1, 4), (2, 4)])
def test_each_process_is_a_task_of_the_cluster(nodes, devices):
    """A task for each process, a GPU for each task: with fewer, the first waits for the others until its time ends."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    told = [f"trainer.devices={devices}", *([f"+trainer.num_nodes={nodes}"] if nodes > 1 else [])]
    for launcher, gpus in (("slurm_cpu", None), ("slurm_gpu", devices)):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("distill", [*told, f"hydra/launcher={launcher}"], return_hydra_config=True)
        found = cfg.hydra.launcher
        assert (found.nodes, found.tasks_per_node, found.gpus_per_node) == (nodes, devices, gpus)
        assert found._target_.endswith(".SlurmLauncher")
        assert found.max_num_timeout > 0, "a job at its time limit would end for ever"
        assert found.signal_delay_s < 60 * found.timeout_min


@pytest.mark.parametrize("command", ["train", "distill"])
def test_who_goes_on_has_the_same_folder(command):
    """With ``${hydra.job.override_dirname}`` in its name, what is told to go on would make another one."""
    told = [*["encoder=tiny"] * (command == "train"), "seed=2", "skip_finished=true"]
    told += ["ckpt_path=last"] * (command == "train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, told, return_hydra_config=True)
    assert cfg.hydra.job.override_dirname == ",".join([*["encoder=tiny"] * (command == "train"), "seed=2"])
