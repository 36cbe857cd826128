"""What a constructor refuses, as one line with the setting's whole name."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from kd_lightning.apps.fits.build import build
from kd_lightning.apps.fits.opened_run import OpenedRun
from kd_lightning.errors import UserError
from kd_lightning.tasks import Task


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("linear_head", r"^system.head._target_ is 'linear_head', which cannot be imported \(.*linear_head"),
        (".linear_head", r"^system.head.*linear_head"),
        ("kd_lightning.heads.lineal_head", r"_target_ is .*, which cannot be imported; did you mean 'linear_head'\?$"),
        ("kd_lightning.heads.linear-head", r"_target_ is .*, which cannot be imported; did you mean 'linear_head'\?$"),
        ("broken_module.head", r"^system.head._target_ is 'broken_module.head', which cannot be imported \(.*boom"),
        (
            "unread_module.head",
            r"_target_ is 'unread_module.head', which cannot be imported \(.*SyntaxError",
        ),
    ],
)
def test_a_target_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, target, said):
    """A traceback through Hydra; or a nearest name in the place of the reason."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('boom')")
    (tmp_path / "unread_module.py").write_text("def head(:")
    with pytest.raises(UserError, match=said):
        build({"_target_": "kd_lightning.systems.Teacher", "head": {"_target_": target, "_partial_": True}}, "system")


def test_what_own_code_refuses_is_told_with_its_line(tmp_path, monkeypatch):
    """A message without a place, as if it were of a setting."""
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "import torch\n\ndef head(width):\n    return torch.nn.Linear(width, 'two')\n"
    (tmp_path / "own_heads.py").write_text(code)
    with pytest.raises(UserError, match=r"^system: .* \(\S+/own_heads\.py, line 4\)$"):
        build({"_target_": "own_heads.head", "width": 3}, "system")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "own_heads.py").rename(tmp_path / "site-packages" / "installed_heads.py")
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    with pytest.raises(UserError) as refused:
        build({"_target_": "installed_heads.head", "width": 3}, "system")
    assert "line 4" not in str(refused.value)
    with pytest.raises(UserError, match=r"^system: .*Linear.* has no setting 'wdith'$"):
        build({"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2, "wdith": 3}, "system")


@pytest.mark.parametrize("run", [None, "", "nowhere", ["a", "b"], "setup.cfg"])
def test_a_run_is_a_folder(run):
    with pytest.raises(UserError, match=r"^run is (null|'.*'|\[.*\]), expected the folder of a finished run"):
        OpenedRun.of(OmegaConf.create({"run": run}))


def test_a_run_without_a_head_is_named_as_it_was_told():
    """Of ``mix/0`` it was said that ``mix`` had none."""
    model = SimpleNamespace(cfg={"task": {"mnli": {}}}, folder=Path("mix/0"))
    task = Task(name="rte", kind="classification", texts=("a",), labels=("no", "yes"), metrics=("accuracy",))
    with pytest.raises(UserError, match=r"^no model of mix/0 has a head for rte, expected mnli$"):
        OpenedRun(None, (model,), Path("mix/0")).models_for(task)
